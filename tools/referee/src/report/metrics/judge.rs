//! What became of what rules matched, incidents, and what many flows show together, as families. Whoever asks for the
//! page, on its own thread; only words of numbers that workers, the judge and main counted.

use std::net::SocketAddr;

use dataplane::judge::{JudgeAccount, Standing};

use super::Sample;
use super::text::Text;
use crate::notify::account::Told;

pub(super) fn events(page: &mut Text, s: &Sample) {
    let (e, j) = (&s.worker.events, s.judge);
    page.counter("referee_events_total", "Messages for the judge, by what became of them.")
        .account("events.delivered", &[("fate", "delivered")], e.delivered)
        .account("events.dropped", &[("fate", "dropped")], e.dropped);
    page.counter("referee_judge_messages_total", "Messages the judge has taken.")
        .only("events.taken", s.counted.messages);
    page.counter("referee_matches_total", "How often a condition held for a flow.")
        .only("events.matched", e.matched);
    page.counter("referee_matches_untold_total", "Of these, those the judge was not told of, by the reason.")
        .account("events.matched_again", &[("reason", "nothing_new")], e.matched_again)
        .account("events.sampled_out", &[("reason", "sampled_out")], e.sampled_out)
        .account("events.hits_overflowed", &[("reason", "too_many_at_once")], e.hits_overflowed)
        .account("events.hits_dropped", &[("reason", "queue_full")], e.hits_dropped);
    page.counter("referee_findings_lost_total", "Matches that found no place among a flow's findings.")
        .only("events.rules_per_flow_lost", e.rules_per_flow_lost);
    page.counter("referee_flow_rows_total", "Rows of ended flows, by what became of them.")
        .account("events.rows", &[("fate", "sent")], e.rows)
        .account("events.rows_dropped", &[("fate", "dropped")], e.rows_dropped);
    page.counter(
        "referee_counts_lost_total",
        "What found no room in a worker's counts: hosts and services, pairs of them, services to compare with.",
    )
    .account("events.activity_lost", &[("of", "activity")], e.activity_lost)
    .account("events.pairs_lost", &[("of", "pairs")], e.pairs_lost)
    .account("events.siblings_unwatched", &[("of", "siblings")], e.siblings_unwatched);
    page.counter("referee_commands_dropped_total", "Commands to workers that found no room.")
        .only("events.commands_dropped", s.counted.commands_dropped);
    page.counter("referee_reports_dropped_total", "Incidents and rows that main was too busy to take.")
        .only("events.reports_dropped", s.counted.reports_dropped);
    page.counter("referee_hits_total", "Matches that came to the judge, by what became of them.")
        .account("judge.judged", &[("fate", "judged")], j.hits_judged)
        .account("judge.repeated", &[("fate", "repeated")], j.hits_repeated)
        .account("judge.refused", &[("fate", "refused")], j.hits_refused);
    if let Some(timing) = s.timing {
        page.histogram(
            "referee_judge_lag_seconds",
            "From a moment of the capture clock until the judge heard of it from a worker, ten times a second.",
        )
        .durations(&[], &timing.lag);
        page.histogram("referee_judge_hit_seconds", "What judging a hit took, body included; of one in 16.")
            .durations(&[], &timing.hits);
    }
}

pub(super) fn judged(page: &mut Text, j: &JudgeAccount) {
    page.counter(
        "referee_scope_matches_lost_total",
        "Matches on hosts, services and the link with no place.",
    )
    .account("judge.matches_refused", &[("reason", "too_many_open")], j.matches_refused)
    .account("judge.matches_overflowed", &[("reason", "too_many_at_once")], j.matches_overflowed);
    page.counter("referee_rule_bodies_total", "Runs of bodies of rules.")
        .only("judge.bodies_run", j.bodies_run);
    page.counter("referee_rule_errors_total", "Bodies of rules that failed.")
        .only("judge.body_errors", j.body_errors);
    page.counter("referee_rule_deadlines_total", "Of these, bodies stopped at their deadline.")
        .only("judge.body_deadlines", j.body_deadlines);
    page.counter("referee_rule_bodies_left_out_total", "Bodies left out: their rule had had its share.")
        .only("judge.bodies_left_out", j.bodies_left_out);
    page.counter("referee_verdicts_total", "What the judge told workers about flows they hold.")
        .account("judge.keeps", &[("verdict", "keep")], j.keeps)
        .account("judge.releases", &[("verdict", "release")], j.releases);
    page.counter("referee_captures_over_budget_total", "Captures refused: the incident had had its share.")
        .only("judge.captures_over_budget", j.captures_over_budget);
    page.counter("referee_absorbed_hits_total", "Hits that went into an incident of a host or service.")
        .only("judge.absorbed", j.absorbed);
    page.counter("referee_judge_evictions_total", "What the judge let go of for want of room, by its table.")
        .account("judge.hosts_evicted", &[("table", "hosts")], j.hosts_evicted)
        .account("judge.services_evicted", &[("table", "services")], j.services_evicted)
        .account("judge.pairs_evicted", &[("table", "pairs")], j.pairs_evicted)
        .account("judge.flows_forgotten", &[("table", "flows")], j.flows_forgotten)
        .account("judge.kept_forgotten", &[("table", "kept")], j.kept_forgotten)
        .account("judge.siblings_refused", &[("table", "siblings")], j.siblings_refused)
        .account("judge.gauges_evicted", &[("table", "state_tables")], j.gauges_evicted);
    page.counter("referee_rules_switched_off_untold_total", "Rules switched off of which no incident tells.")
        .only("judge.switched_off_untold", j.switched_off_untold);
}

pub(super) fn incidents(page: &mut Text, s: &Sample) {
    let j = s.judge;
    page.counter("referee_incidents_opened_total", "Incidents opened.")
        .only("judge.incidents_opened", j.incidents_opened);
    page.counter("referee_incidents_closed_total", "Incidents closed.")
        .only("judge.incidents_closed", j.incidents_closed);
    page.counter("referee_incidents_withdrawn_total", "Of these, incidents that later packets disproved.")
        .only("judge.incidents_withdrawn", j.incidents_withdrawn);
    page.gauge("referee_incidents_unsettled", "Incidents open now, and flow incidents that wait to settle.")
        .only("judge.open", j.open);
    s.troubles.show(page);
}

/// Who is told of incidents, and what became of it.
pub(super) fn told(page: &mut Text, all: &[Told]) {
    if all.is_empty() {
        return;
    }
    page.counter("referee_notify_total", "Incidents to be told, by whom and what became of it.");
    for Told { name, sent, failed, dropped, limited, .. } in all {
        let results = [("sent", sent), ("failed", failed), ("dropped", dropped), ("limited", limited)];
        for (result, count) in results {
            let path = format!("notify.{name}.{result}");
            page.account(&path, &[("sink", name), ("result", result)], *count);
        }
    }
    page.gauge("referee_notify_waiting", "Those that wait to be told, or to be told again.");
    for told in all {
        page.labelled(&[("sink", &told.name)], told.waiting);
    }
}

/// Labels are bounded: of clients and services the [`SHOWN`](super::SHOWN) with most entries.
pub(super) fn state_tables(page: &mut Text, standing: &Standing) {
    page.gauge("referee_state_table_entries", "Entries all traffic takes in a firewall that sees all this.")
        .is(standing.entries);
    page.gauge("referee_state_table_entries_peak", "The most there were.")
        .only("judge.state_entries_peak", standing.peak.into());
    page.gauge("referee_state_table_client_entries", "Of these, entries of the clients that have most.");
    for (client, entries) in &standing.clients {
        page.labelled(&[("client", &client.to_string())], entries);
    }
    let services: Vec<_> = standing
        .services
        .iter()
        .map(|service| (SocketAddr::new(service.addr, service.port).to_string(), service))
        .collect();
    page.gauge("referee_state_table_service_entries", "Of these, entries of the services that have most.");
    for (name, service) in &services {
        page.labelled(&[("service", name), ("protocol", &service.proto)], service.states.entries);
    }
    page.gauge(
        "referee_service_connections",
        "Connections to those services, by state as seen from the wire.",
    );
    for (name, service) in services.iter().filter(|(_, service)| service.proto == "tcp") {
        let s = &service.states;
        let states = [
            ("syn_recv", s.syn_recv),
            ("established", s.established),
            ("close_wait", s.close_wait),
            ("fin_wait2", s.fin_wait2),
            ("time_wait", s.time_wait),
        ];
        for (state, connections) in states {
            page.labelled(&[("service", name), ("state", state)], connections);
        }
    }
}
