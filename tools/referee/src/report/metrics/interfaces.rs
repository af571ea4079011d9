//! What interfaces, and the sockets at their queues, counted, as metrics. Main thread; only words of numbers that the
//! kernel and the workers keep.

use dataplane::ledger::DropReason;
use dataplane::source::live::{PortReport, QueueReport};
use dataplane_sys::ethtool;

use super::text::Text;

/// An interface that is captured from.
pub struct Watched<'a> {
    name: &'a str,
    /// How, in words.
    capture: String,
    /// Its driver's name; empty if it doesn't say.
    driver: String,
    port: &'a PortReport,
}

impl<'a> Watched<'a> {
    pub fn new(name: &'a str, capture: String, port: &'a PortReport) -> Watched<'a> {
        let driver = ethtool::driver(name).unwrap_or_default();
        Watched { name, capture, driver, port }
    }
}

/// A family's name, what it says, and its value of an interface or a queue with the value's name in the ledger.
type Family<T> = (&'static str, &'static str, &'static str, fn(&T) -> u64);

const INTERFACES: [Family<PortReport>; 5] = [
    ("referee_interface_packets_total", "Packets seen at an interface.", "seen", |port| port.seen),
    ("referee_interface_bytes_total", "Bytes of these.", "seen_bytes", |port| port.seen_bytes),
    (
        "referee_interface_filtered_packets_total",
        "Of these, packets a filter left out.",
        "filtered",
        |port| port.filtered,
    ),
    (
        "referee_interface_related_packets_total",
        "Of those seen, packets a filter doesn't name that belong to what it names.",
        "related",
        |port| port.related,
    ),
    (
        "referee_interface_missed_packets_total",
        "Packets a NIC had no room for itself.",
        "nic.rx_missed",
        |port| port.nic.rx_missed,
    ),
];
const QUEUES: [Family<QueueReport>; 5] = [
    ("referee_queue_taken_packets_total", "Packets taken from a queue.", "taken", |queue| queue.taken),
    (
        "referee_queue_coalesced_packets_total",
        "Of these, packets such as no wire carries: joined by the host, or not yet cut up.",
        "coalesced",
        |queue| queue.coalesced,
    ),
    (
        "referee_queue_busy_polls_total",
        "How often a queue's worker had the kernel look.",
        "busy_polls",
        |queue| queue.busy_polls,
    ),
    (
        "referee_queue_wakings_total",
        "How often packets came to a queue after silence.",
        "after_silence",
        |queue| queue.after_silence,
    ),
    (
        "referee_queue_late_wakings_total",
        "Of these, how often the first packet had waited for more than 10 ms.",
        "woken_late",
        |queue| queue.woken_late,
    ),
];

pub(super) fn show(page: &mut Text, interfaces: &[Watched]) {
    if interfaces.is_empty() {
        return;
    }
    page.gauge("referee_interface_info", "Always 1: how an interface is captured from.");
    interfaces.iter().for_each(|one| info(page, one));
    for (name, help, path, value) in INTERFACES {
        page.counter(name, help);
        for (number, one) in interfaces.iter().enumerate() {
            page.account(&format!("interfaces.{number}.{path}"), &[("interface", one.name)], value(one.port));
        }
    }
    page.counter(
        "referee_interface_dropped_packets_total",
        "Packets seen that reached no worker, by the reason.",
    );
    for (number, one) in interfaces.iter().enumerate() {
        for reason in DropReason::ALL.map(|reason| (reason.name(), one.port.dropped[reason as usize])) {
            let path = format!("interfaces.{number}.dropped.{}", reason.0);
            page.account(&path, &[("interface", one.name), ("reason", reason.0)], reason.1);
        }
    }
    if interfaces.iter().any(|one| one.port.nic_clock_steps.is_some()) {
        page.counter(
            "referee_interface_clock_steps_total",
            "How often a card's clock or the host's was set.",
        );
    }
    for (number, one) in interfaces.iter().enumerate() {
        if let Some(steps) = one.port.nic_clock_steps {
            page.account(&format!("interfaces.{number}.nic_clock_steps"), &[("interface", one.name)], steps);
        }
    }
    counted_itself(page, interfaces);
    queues(page, interfaces);
}

fn info(page: &mut Text, one: &Watched) {
    let queues = &one.port.queues;
    let zero_copy = !queues.is_empty() && queues.iter().all(|queue| queue.zero_copy);
    page.labelled(
        &[
            ("interface", one.name),
            ("capture", &one.capture),
            ("driver", &one.driver),
            ("clock", if one.port.nic_clock_steps.is_some() { "nic" } else { "kernel" }),
            ("zero_copy", if zero_copy { "yes" } else { "no" }),
        ],
        1,
    );
}

fn counted_itself(page: &mut Text, interfaces: &[Watched]) {
    page.counter(
        "referee_interface_counts_total",
        "What an interface counted itself, by its counters' names.",
    );
    for (number, one) in interfaces.iter().enumerate() {
        let nic = &one.port.nic;
        let counts =
            [("rx_packets", nic.rx_packets), ("rx_dropped", nic.rx_dropped), ("rx_errors", nic.rx_errors)];
        for (name, count) in counts {
            let path = format!("interfaces.{number}.nic.{name}");
            page.account(&path, &[("interface", one.name), ("counter", name)], count);
        }
    }
}

fn queues(page: &mut Text, interfaces: &[Watched]) {
    let all: Vec<_> = interfaces
        .iter()
        .enumerate()
        .flat_map(|(number, one)| {
            let of = move |(queue, report)| (number, one.name, queue, report);
            one.port.queues.iter().enumerate().map(of)
        })
        .collect();
    let each = |page: &mut Text, values: &dyn Fn(&QueueReport) -> Vec<Value>| {
        for (number, name, queue, report) in &all {
            for (path, more, value) in values(report) {
                let path = format!("interfaces.{number}.queues.{queue}.{path}");
                let queue = queue.to_string();
                let labels: Vec<Label> =
                    [("interface", *name), ("queue", &queue)].into_iter().chain(more).collect();
                page.account(&path, &labels, value);
            }
        }
    };
    for (name, help, path, value) in QUEUES {
        page.counter(name, help);
        each(page, &|queue| vec![(path, Vec::new(), value(queue))]);
    }
    page.counter(
        "referee_queue_unstamped_packets_total",
        "Packets that came without a time, by who was to stamp them: the kernel's program or the card.",
    );
    each(page, &|queue| {
        vec![
            ("unstamped", vec![("by", "kernel")], queue.unstamped),
            ("unstamped_by_nic", vec![("by", "nic")], queue.unstamped_by_nic),
        ]
    });
    page.counter(
        "referee_queue_socket_counts_total",
        "What a queue's socket counted, by the kernel's names.",
    );
    each(page, &|queue| {
        let s = &queue.socket;
        let counts = [
            ("rx_ring_full", s.rx_ring_full),
            ("rx_dropped", s.rx_dropped),
            ("rx_invalid_descs", s.rx_invalid_descs),
            ("rx_fill_ring_empty_descs", s.rx_fill_ring_empty_descs),
        ];
        counts.map(|(name, count)| (name, vec![("counter", name)], count)).into()
    });
    page.gauge("referee_queue_frames", "Frames of a queue's memory, by who has them.");
    each(page, &|queue| {
        vec![
            ("frames_with_kernel", vec![("holder", "kernel")], queue.frames_with_kernel),
            ("frames_in_hand", vec![("holder", "worker")], queue.frames_in_hand),
        ]
    });
}

/// Of one queue: the value's name in the ledger, what its labels have beside interface and queue, and the value.
type Value = (&'static str, Vec<Label<'static>>, u64);
type Label<'a> = (&'static str, &'a str);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_queue_has_its_numbers() {
        let queue = |taken| QueueReport { taken, zero_copy: taken == 3, ..QueueReport::default() };
        let port = PortReport { seen: 5, queues: vec![queue(2), queue(3)], ..PortReport::default() };
        let mut page = Text::default();
        show(&mut page, &[Watched::new("no such", "AF_XDP".into(), &port)]);
        let text = page.into_text();
        for line in [
            "referee_interface_info{interface=\"no such\",capture=\"AF_XDP\",driver=\"\",clock=\"kernel\",zero_copy=\"no\"} 1\n",
            "referee_interface_packets_total{interface=\"no such\"} 5\n",
            "referee_queue_taken_packets_total{interface=\"no such\",queue=\"1\"} 3\n",
            "referee_queue_unstamped_packets_total{interface=\"no such\",queue=\"0\",by=\"nic\"} 0\n",
        ] {
            assert!(text.contains(line), "{line} is not in {text}");
        }
        let mut none = Text::default();
        show(&mut none, &[]);
        assert_eq!(none.into_text(), "");
    }
}
