//! What interfaces, and the sockets at their queues, counted, as metrics. Main thread; only words of numbers that the
//! kernel keeps.

use dataplane::source::live::{PortReport, QueueReport};

use super::metrics::Text;

/// An interface that is captured from.
pub struct Watched<'a> {
    pub name: &'a str,
    /// How, in words.
    pub capture: String,
    pub port: &'a PortReport,
}

pub(super) fn show(page: &mut Text, interfaces: &[Watched]) {
    if interfaces.is_empty() {
        return;
    }
    page.gauge("referee_interface_info", "Always 1: how an interface is captured from.");
    for one in interfaces {
        let zero_copy = !one.port.queues.is_empty() && one.port.queues.iter().all(|queue| queue.zero_copy);
        let zero_copy = if zero_copy { "yes" } else { "no" };
        page.labelled(&[("interface", one.name), ("capture", &one.capture), ("zero_copy", zero_copy)], 1);
    }
    page.counter("referee_interface_packets_total", "Packets seen at an interface.");
    for one in interfaces {
        page.labelled(&[("interface", one.name)], one.port.seen);
    }
    page.counter("referee_interface_missed_packets_total", "Packets a NIC had no room for itself.");
    for one in interfaces {
        page.labelled(&[("interface", one.name)], one.port.nic.rx_missed);
    }
    page.counter(
        "referee_interface_counts_total",
        "What an interface counted itself, by its counters' names.",
    );
    for one in interfaces {
        let nic = &one.port.nic;
        let counts =
            [("rx_packets", nic.rx_packets), ("rx_dropped", nic.rx_dropped), ("rx_errors", nic.rx_errors)];
        for (name, count) in counts {
            page.labelled(&[("interface", one.name), ("counter", name)], count);
        }
    }
    page.counter("referee_queue_counts_total", "What a queue's worker took, and its socket counted.");
    for one in interfaces {
        for (number, queue) in one.port.queues.iter().enumerate() {
            for (name, count) in counts(queue) {
                let labels = [("interface", one.name), ("queue", &number.to_string()), ("counter", name)];
                page.labelled(&labels, count);
            }
        }
    }
}

fn counts(queue: &QueueReport) -> [(&'static str, u64); 6] {
    [
        ("taken", queue.taken),
        ("unstamped", queue.unstamped),
        ("rx_ring_full", queue.socket.rx_ring_full),
        ("rx_dropped", queue.socket.rx_dropped),
        ("rx_invalid_descs", queue.socket.rx_invalid_descs),
        ("rx_fill_ring_empty_descs", queue.socket.rx_fill_ring_empty_descs),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_queue_has_its_numbers() {
        let queue = |taken| QueueReport { taken, zero_copy: taken == 3, ..QueueReport::default() };
        let port = PortReport { seen: 5, queues: vec![queue(2), queue(3)], ..PortReport::default() };
        let mut page = Text::default();
        show(&mut page, &[Watched { name: "tap0", capture: "AF_XDP".into(), port: &port }]);
        let text = page.into_text();
        for line in [
            "referee_interface_info{interface=\"tap0\",capture=\"AF_XDP\",zero_copy=\"no\"} 1\n",
            "referee_interface_packets_total{interface=\"tap0\"} 5\n",
            "referee_queue_counts_total{interface=\"tap0\",queue=\"1\",counter=\"taken\"} 3\n",
        ] {
            assert!(text.contains(line), "{line} is not in {text}");
        }
        let mut none = Text::default();
        show(&mut none, &[]);
        assert_eq!(none.into_text(), "");
    }
}
