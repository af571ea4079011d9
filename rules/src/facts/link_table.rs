//! The facts of the link, that is of all traffic at the capture point, in the same form as those of hosts and services.
//!
//! Getters run on the judge: they neither allocate nor block. A getter that returns `None` says *unknown*.

use crate::facts::crowd_table::{Windows, rate, ratio, window_facts};
use crate::facts::table::{Fact, Get, Window, int, row};
use crate::facts::{Counts, LinkFacts};

impl Windows for LinkFacts {
    fn counts(&self, window: Window) -> &Counts {
        match window {
            Window::S1 => &self.last_1s,
            Window::S10 => &self.last_10s,
            Window::S60 => &self.last_60s,
        }
    }
}

const HOW_MANY: &str = "How many; 0 if there is none.";
const ITS_PORT: &str = "Its port.";

pub(super) static LINK: &[Fact<LinkFacts>] = window_facts!(
    LinkFacts,
    "link",
    [
        row(
            "link.state_entries",
            "entries",
            "Entries all traffic takes in the table of a stateful device in the path (docs/state-gauge.md).",
            Get::Int(|l| Some(int(l.state_entries))),
        ),
        row(
            "link.client_1",
            "",
            "The client that most of those entries belong to; unknown if there is none.",
            Get::Address(|l| Some(l.clients[0]?.0)),
        ),
        row(
            "link.client_1_entries",
            "entries",
            HOW_MANY,
            Get::Int(|l| Some(int(l.clients[0].map_or(0, |(_, entries)| entries))))
        ),
        row("link.client_2", "", "The next client.", Get::Address(|l| Some(l.clients[1]?.0))),
        row(
            "link.client_2_entries",
            "entries",
            HOW_MANY,
            Get::Int(|l| Some(int(l.clients[1].map_or(0, |(_, entries)| entries))))
        ),
        row("link.client_3", "", "The one after it.", Get::Address(|l| Some(l.clients[2]?.0))),
        row(
            "link.client_3_entries",
            "entries",
            HOW_MANY,
            Get::Int(|l| Some(int(l.clients[2].map_or(0, |(_, entries)| entries))))
        ),
        row(
            "link.service_1",
            "",
            "The service that most of those entries belong to; unknown if there is none.",
            Get::Address(|l| Some(l.services[0]?.addr)),
        ),
        row("link.service_1_port", "", ITS_PORT, Get::Int(|l| Some(int(l.services[0]?.port)))),
        row(
            "link.service_1_entries",
            "entries",
            HOW_MANY,
            Get::Int(|l| Some(int(l.services[0].map_or(0, |s| s.entries))))
        ),
        row("link.service_2", "", "The next service.", Get::Address(|l| Some(l.services[1]?.addr))),
        row("link.service_2_port", "", ITS_PORT, Get::Int(|l| Some(int(l.services[1]?.port)))),
        row(
            "link.service_2_entries",
            "entries",
            HOW_MANY,
            Get::Int(|l| Some(int(l.services[1].map_or(0, |s| s.entries))))
        ),
        row("link.service_3", "", "The one after it.", Get::Address(|l| Some(l.services[2]?.addr))),
        row("link.service_3_port", "", ITS_PORT, Get::Int(|l| Some(int(l.services[2]?.port)))),
        row(
            "link.service_3_entries",
            "entries",
            HOW_MANY,
            Get::Int(|l| Some(int(l.services[2].map_or(0, |s| s.entries))))
        )
    ],
    "SYNs without ACK to all services, repeats not counted.",
    "RST segments sent by the services' sides."
);
