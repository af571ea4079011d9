//! What the payload and the clock tell of a flow's application: TLS hellos, DNS questions, HTTP status lines,
//! and how long who let whom wait. Plain data, filled by workers, read by guards and bodies; the list of
//! facts goes into `table`.

use crate::facts::FlowFacts;
use crate::facts::name::Name;
use crate::facts::table::{Fact, Get, int, row};

/// What a rule can see of a flow's application. `None` and an empty name mean *unknown*.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct AppFacts {
    /// Server name of the TLS ClientHello (RFC 6066 §3), or the name asked for in the DNS question.
    pub name: Name,
    /// Time since the ClientHello, ms.
    pub hello_ms: Option<u64>,
    /// The server has sent payload after the ClientHello; unknown if no ClientHello was seen.
    pub tls_answered: Option<bool>,
    /// A ClientHello was seen and nothing has ended the wait for its answer but, maybe, a RST.
    pub tls_waits: bool,
    /// No ServerHello can come any more: an alert or a FIN came instead.
    pub tls_over: Option<bool>,
    /// Description of the alert that came in place of a ServerHello (RFC 8446 §6).
    pub tls_alert: Option<u8>,
    /// A ServerHello came after a RST in the server's name.
    pub server_hello_after_rst: Option<bool>,
    /// Status of the last HTTP/1 answer in clear text.
    pub http_status: Option<u16>,
    /// How the flow's service answered in the last minute.
    pub service: Option<AnswerCounts>,
    /// SYN to the ACK that completed the handshake, µs, as seen at the tap.
    pub connect_us: Option<u64>,
    /// ClientHello to the first payload of the server, µs.
    pub tls_us: Option<u64>,
    /// The client's first request, not TLS, to the first byte of its answer, µs.
    pub first_byte_us: Option<u64>,
    /// The request to the first byte of its answer, ms; only on the event that tells of it.
    pub answer_ms: Option<u64>,
    pub dns: Option<DnsFacts>,
    /// A DNS question was asked on this flow.
    pub dns_asked: bool,
}

/// HTTP or DNS answers of one address and port within a minute.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct AnswerCounts {
    pub answers: u32,
    /// Of them, those that say the server failed.
    pub errors: u32,
    /// Of them, those that came a second or more after what they answer.
    pub late: u32,
}

/// A DNS question the event is about.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct DnsFacts {
    /// Type asked for (1 A, 28 AAAA, …).
    pub kind: u16,
    /// Response code of the answer, if the event is one.
    pub rcode: Option<u8>,
    /// Since it was first asked, ms.
    pub wait_ms: u64,
    /// Since it was last asked before this event, ms.
    pub since_last_ms: u64,
    /// How often it was asked, repeats from other ports and to other servers included.
    pub asks: u32,
    /// Of these, repeats of the very same message: from the same socket, with the same id.
    pub repeats: u32,
}

const TCP: u8 = 6;

fn dns(facts: &FlowFacts) -> Option<DnsFacts> {
    facts.app.dns
}

pub(crate) static APP: &[Fact<FlowFacts>] = &[
    row(
        "flow.connect_us",
        "µs",
        "SYN to the ACK that completed the handshake, at the tap; unknown if not seen whole.",
        Get::Int(|f| f.app.connect_us.map(int)),
    ),
    row(
        "flow.tls_us",
        "µs",
        "TLS ClientHello to the server's first payload; unknown before it.",
        Get::Int(|f| f.app.tls_us.map(int)),
    ),
    row(
        "flow.first_byte_us",
        "µs",
        "End of the first request, not TLS, to the first byte of its answer; unknown before it.",
        Get::Int(|f| f.app.first_byte_us.map(int)),
    ),
    row(
        "flow.answer_ms",
        "ms",
        "End of the request to the first byte of its answer, on `first_byte` and `http_error`; otherwise unknown.",
        Get::Int(|f| f.app.answer_ms.map(int)),
    ),
    row(
        "flow.sni",
        "",
        "Server name in the TLS ClientHello; unknown if there was none, or it was not in its first segment.",
        Get::Text(|f| if f.proto == TCP { f.app.name.known() } else { None }),
    ),
    row(
        "flow.tls_hello_ms",
        "ms",
        "Time since the TLS ClientHello; unknown if none was seen.",
        Get::Int(|f| f.app.hello_ms.map(int)),
    ),
    row(
        "flow.tls_answered",
        "",
        "The server has sent payload after the ClientHello, other than an alert; unknown if none was seen.",
        Get::Bool(|f| f.app.tls_answered),
    ),
    row(
        "flow.tls_waits",
        "",
        "A ClientHello is without answer, FIN or alert; false if none was seen.",
        Get::Bool(|f| Some(f.app.tls_waits)),
    ),
    row(
        "flow.tls_over",
        "",
        "No ServerHello can come any more: an alert or a FIN came instead; unknown without a ClientHello.",
        Get::Bool(|f| f.app.tls_over),
    ),
    row(
        "flow.tls_alert",
        "",
        "Number of the alert that came in place of a ServerHello (40 handshake_failure, 112 unrecognized_name, …).",
        Get::Int(|f| f.app.tls_alert.map(int)),
    ),
    row(
        "flow.server_hello_after_rst",
        "",
        "A ServerHello came after a RST in the server's name; unknown if no ClientHello was seen.",
        Get::Bool(|f| f.app.server_hello_after_rst),
    ),
    row(
        "flow.http_status",
        "",
        "Status of the last HTTP/1 answer in clear text; unknown if none was seen.",
        Get::Int(|f| f.app.http_status.map(int)),
    ),
    row(
        "flow.service_answers",
        "answers",
        "HTTP or DNS answers of this address and port in the last minute, on `http_error` and `dns_answer`.",
        Get::Int(|f| f.app.service.map(|counts| int(counts.answers))),
    ),
    row(
        "flow.service_errors",
        "answers",
        "Those of them that say the server failed: HTTP 5xx; DNS errors other than NXDOMAIN.",
        Get::Int(|f| f.app.service.map(|counts| int(counts.errors))),
    ),
    row(
        "flow.service_late",
        "answers",
        "Those of them that came a second or more after the request, or after the question was last asked.",
        Get::Int(|f| f.app.service.map(|counts| int(counts.late))),
    ),
    row(
        "flow.dns_name",
        "",
        "Name asked for; unknown if the capture cut it.",
        Get::Text(|f| if f.app.dns.is_some() { f.app.name.known() } else { None }),
    ),
    row(
        "flow.dns_type",
        "",
        "Type asked for: 1 A, 28 AAAA, 5 CNAME, 12 PTR, 15 MX, 16 TXT, 33 SRV, 65 HTTPS.",
        Get::Int(|f| dns(f).map(|dns| int(dns.kind))),
    ),
    row(
        "flow.dns_rcode",
        "",
        "Response code of the answer: 0 none, 2 SERVFAIL, 3 NXDOMAIN, 5 REFUSED; unknown without an answer.",
        Get::Int(|f| dns(f).and_then(|dns| dns.rcode).map(int)),
    ),
    row(
        "flow.dns_wait_ms",
        "ms",
        "Time since the question was first asked.",
        Get::Int(|f| dns(f).map(|dns| int(dns.wait_ms))),
    ),
    row(
        "flow.dns_since_last_ms",
        "ms",
        "Time since it was last asked before this event.",
        Get::Int(|f| dns(f).map(|dns| int(dns.since_last_ms))),
    ),
    row(
        "flow.dns_asks",
        "times",
        "How often it was asked, repeats from other ports and to other servers included.",
        Get::Int(|f| dns(f).map(|dns| int(dns.asks))),
    ),
    row(
        "flow.dns_repeats",
        "times",
        "Of these, repeats of the very same message: from the same socket, with the same id.",
        Get::Int(|f| dns(f).map(|dns| int(dns.repeats))),
    ),
    row("flow.dns_asked", "", "A DNS question was asked on this flow.", Get::Bool(|f| Some(f.app.dns_asked))),
];
