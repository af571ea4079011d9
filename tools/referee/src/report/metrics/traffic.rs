//! Packets, what was kept of them, flows, and how long things took, as families. Whoever asks for the page, on its own
//! thread; only words of numbers that workers and the writer counted.

use dataplane::ledger::{DropReason, UnwrittenReason};
use dataplane::record::WriterAccount;

use super::text::Text;
use super::{OfWorker, Sample, Store};
use crate::board::streams::{Ending, Streamed};
use crate::report::ledger::CLASSES;

pub(super) fn packets(page: &mut Text, s: &Sample) {
    let w = &s.worker;
    page.counter("referee_received_packets_total", "Packets received, lost ones included.")
        .only("received", w.received + s.lost.iter().sum::<u64>());
    page.counter("referee_received_bytes_total", "Bytes of the packets taken.").only("bytes", w.bytes);
    page.counter("referee_analysed_packets_total", "Packets analysed, by what they are.");
    for (class, packets) in CLASSES.iter().zip(w.classes) {
        page.account(&format!("classes.{class}"), &[("class", class)], packets);
    }
    page.counter("referee_filtered_packets_total", "Packets left out by a filter.")
        .only("filtered", w.filtered);
    filter(page, s);
    page.counter("referee_dropped_packets_total", "Packets received and not analysed, by the reason.");
    for reason in DropReason::ALL {
        let packets = w.dropped[reason as usize] + s.lost[reason as usize];
        page.account(&format!("dropped.{}", reason.name()), &[("reason", reason.name())], packets);
    }
    page.counter(
        "referee_handed_over_packets_total",
        "Packets one worker took and gave to another, who has their flow.",
    )
    .only("handed_over", w.handed_over);
    page.counter("referee_duplicate_packets_total", "Packets the mirror delivered a second time.")
        .only("span_duplicates", w.span_duplicates);
    page.counter("referee_late_packets_total", "Packets taken after packets with a later time.")
        .only("late", s.late);
    page.counter("referee_fragments_total", "Later IP fragments, by whether their first one was known.")
        .account("fragments.followed", &[("fate", "followed")], w.fragments_followed)
        .account("fragments.unmatched", &[("fate", "unmatched")], w.fragments_unmatched);
    page.counter(
        "referee_fragmented_packets_evicted_total",
        "Fragmented packets forgotten for want of room.",
    )
    .only("fragments.evicted", w.fragments_evicted);
    page.counter("referee_icmp_unmatched_total", "ICMP errors about flows that are not known.")
        .only("icmp_unmatched", w.icmp_unmatched);
}

fn filter(page: &mut Text, s: &Sample) {
    page.counter(
        "referee_related_packets_total",
        "Packets a filter doesn't name that belong to what it names.",
    )
    .only("filter.related", s.refused.related);
    page.counter("referee_filtered_vlan_packets_total", "Of the packets left out, those with a VLAN tag.")
        .only("filter.filtered_vlan", s.refused.tagged);
    page.counter(
        "referee_filtered_other_link_packets_total",
        "Of the packets left out, those of a link type for which the filter means nothing.",
    )
    .only("filter.filtered_other_link", s.refused.unjudged);
}

pub(super) fn kept(page: &mut Text, s: &Sample) {
    let (w, k) = (&s.worker, &s.worker.kept);
    let none = WriterAccount::default();
    let writer = s.store.as_ref().map_or(&none, |store| &store.account);
    page.counter("referee_kept_packets_total", "Packets selected for a capture.").only("kept", k.kept);
    page.counter("referee_written_packets_total", "Packets written to the store.")
        .only("written", writer.written_packets);
    page.counter("referee_written_bytes_total", "Compressed bytes written to the store.")
        .only("chunks.bytes_written", writer.bytes_written);
    page.counter("referee_unwritten_packets_total", "Packets selected and not written, by the reason.");
    for reason in UnwrittenReason::ALL {
        let packets = k.unwritten[reason as usize] + writer.unwritten(reason);
        page.account(&format!("unwritten.{}", reason.name()), &[("reason", reason.name())], packets);
    }
    page.counter("referee_holds_total", "Flows whose lead-up was to be held, by what became of it.")
        .account("holds.taken", &[("fate", "taken")], w.holds_taken)
        .account("holds.refused", &[("fate", "refused")], w.holds_refused)
        .account("holds.unanswered", &[("fate", "unanswered")], w.holds_unanswered);
    page.counter("referee_history_cut_packets_total", "Packets of which history remembers a part only.")
        .only("history.cut", w.history_cut);
    page.counter("referee_flow_tails_total", "Last packets of flows that fell silent, by their fate.")
        .account("history.tails_rescued", &[("fate", "rescued")], w.tails_rescued)
        .account("history.tails_forgotten", &[("fate", "forgotten")], w.tails_forgotten)
        .account("history.tails_refused", &[("fate", "refused")], w.tails_refused);
    if let Some(seconds) = s.history_seconds {
        page.gauge("referee_history_seconds", "How far back the history of the worst worker reaches.")
            .is(seconds);
    }
    store(page, writer);
    if let Some(store) = &s.store {
        now(page, store);
    }
}

fn store(page: &mut Text, writer: &WriterAccount) {
    page.counter("referee_store_chunks_total", "Chunks of packets that the writer took from workers.")
        .only("chunks.handed_over", writer.chunks);
    page.counter("referee_store_segments_total", "Segments of the store, by what was done with them.")
        .account("chunks.segments", &[("fate", "begun")], writer.segments)
        .account("chunks.segments_abandoned", &[("fate", "abandoned")], writer.segments_abandoned)
        .account("chunks.segments_deleted", &[("fate", "deleted")], writer.segments_deleted);
    page.counter("referee_store_deleted_bytes_total", "Bytes of the segments deleted to make room.")
        .is(writer.bytes_deleted);
    page.counter(
        "referee_store_deleted_incident_bytes_total",
        "Bytes of incidents deleted to make room or for their age.",
    )
    .account("chunks.incident_bytes_deleted", &[], writer.incident_bytes_deleted);
    page.counter("referee_store_sync_failures_total", "Segments that might not survive a power cut.")
        .only("chunks.sync_failures", writer.sync_failures);
}

/// Only where there is a store.
fn now(page: &mut Text, store: &Store) {
    page.gauge("referee_store_failing", "1 while the disk refuses what is to be written.")
        .is(u8::from(store.account.failing));
    if store.account.newest_ns > 0 {
        page.gauge(
            "referee_store_newest_packet_timestamp_seconds",
            "Capture time of the newest packet in the store, since the epoch.",
        )
        .is(store.account.newest_ns as f64 / 1e9);
    }
    if let Some(lag) = store.lag_ns {
        page.gauge(
            "referee_store_lag_seconds",
            "While selected packets are not in the store yet: the age of the newest that is.",
        )
        .is(lag as f64 / 1e9);
    }
}

/// Who follows what is kept.
pub(super) fn streamed(page: &mut Text, streamed: Option<Streamed>) {
    let Some(Streamed { open, ended }) = streamed else { return };
    page.gauge("referee_live_streams", "Readers that follow what is kept.").is(open);
    page.counter("referee_live_streams_ended_total", "Those there were, by how they ended.");
    for (ending, count) in Ending::ALL.iter().zip(ended) {
        page.labelled(&[("ending", ending.name())], count);
    }
}

pub(super) fn flows(page: &mut Text, s: &Sample) {
    let w = &s.worker;
    page.gauge("referee_flows", "Flows in the table.").only("flows.live", s.live_flows.into());
    page.gauge("referee_flows_peak", "The most there were, as the sum of each worker's most.")
        .only("flows.peak_live", s.peak_flows.into());
    page.counter("referee_flows_created_total", "Flows begun.").only("flows.created", w.flows_created);
    page.counter("referee_flows_ended_total", "Flows that ended by themselves.")
        .only("flows.ended", w.flows_ended);
    page.counter("referee_flows_evicted_total", "Flows that had to make room while alive, by their state.")
        .account("flows.evicted", &[("state", "established")], w.flows_evicted)
        .account("flows.half_open_evicted", &[("state", "half_open")], w.half_open_evicted);
    page.counter(
        "referee_flows_split_total",
        "Flows that two workers have, so that each judges a part of them.",
    )
    .only("flows.split", w.flows_split);
    page.counter("referee_flows_without_record_total", "Flows whose record found no room, by its kind.")
        .account("flows.without_trouble_record", &[("record", "trouble")], w.trouble_refused)
        .account("flows.without_app_record", &[("record", "application")], w.apps_refused);
    page.counter("referee_dns_questions_forgotten_total", "DNS questions forgotten for want of room.")
        .only("flows.dns_questions_forgotten", w.questions_forgotten);
    page.counter("referee_connections_total", "Connections that came about, by whose packets were seen.")
        .account("flows.connections_whole", &[("seen", "both_ends")], w.connections_whole)
        .account("flows.connections_one_sided", &[("seen", "one_end")], w.connections_one_sided);
    page.counter("referee_siblings_evicted_total", "Services whose healthy flows were forgotten for others.")
        .only("history.siblings_evicted", w.siblings_evicted);
    latencies(page, s);
}

fn latencies(page: &mut Text, s: &Sample) {
    let latency = &s.worker.latency;
    page.histogram(
        "referee_handshake_rtt_seconds",
        "Round trips of handshakes from where is captured, to the client and to the server.",
    )
    .durations(&[("side", "client")], &latency.client_rtt);
    page.durations(&[("side", "server")], &latency.server_rtt);
    page.histogram("referee_connect_seconds", "First SYN to the ACK that completes the handshake.")
        .durations(&[], &latency.connect);
    page.histogram("referee_first_byte_seconds", "A connection's first request to its answer's first byte.")
        .durations(&[], &latency.first_byte);
    page.histogram("referee_dns_answer_seconds", "DNS questions, as first asked, to their answers.")
        .durations(&[], &latency.dns_answer);
}

/// A family's name, what it says, and its value of a worker.
type OfEach = (&'static str, &'static str, fn(&OfWorker) -> f64);

const WORKER_COUNTERS: [OfEach; 4] = [
    ("referee_worker_packets_total", "Packets each worker received.", |w| w.account.received as f64),
    ("referee_worker_bytes_total", "Bytes of these.", |w| w.account.bytes as f64),
    ("referee_worker_events_dropped_total", "Messages for the judge that found no room.", |w| {
        w.account.events.dropped as f64
    }),
    ("referee_worker_kept_packets_total", "Packets each worker selected for a capture.", |w| {
        w.account.kept.kept as f64
    }),
];
const WORKER_GAUGES: [OfEach; 2] = [
    ("referee_worker_flows", "Flows in each worker's table.", |w| w.live.into()),
    ("referee_worker_history_seconds", "How far back each worker's history reaches.", |w| {
        w.history_ns as f64 / 1e9
    }),
];

/// Each worker for itself, while there are workers.
pub(super) fn workers(page: &mut Text, workers: &[OfWorker]) {
    if workers.is_empty() {
        return;
    }
    let mut family = |(name, help, value): OfEach, counter: bool| {
        match counter {
            true => page.counter(name, help),
            false => page.gauge(name, help),
        };
        for (number, worker) in workers.iter().enumerate() {
            page.labelled(&[("worker", &number.to_string())], value(worker));
        }
    };
    WORKER_COUNTERS.into_iter().for_each(|one| family(one, true));
    WORKER_GAUGES.into_iter().for_each(|one| family(one, false));
}
