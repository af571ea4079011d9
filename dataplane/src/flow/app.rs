//! What is known of a flow's application: its TLS hello, its answers, how long it waited for them. A bounded
//! slab; a flow that finds it full goes on without, counted. Worker's thread; never allocates after start.
//! `analyze::app` writes the records, facts and rows are read from them.

use rules::facts::{AnswerCounts, NAME_BYTES, Name};

use super::slab::{Record, Slab};
use super::waits::{Link, Waiting};
use crate::source::Nanos;

/// Bits of [`App::flags`].
pub mod app_flag {
    /// A ClientHello was seen; `hello_ns` is known.
    pub const HELLO: u8 = 1;
    /// The server sent payload after it that is no alert.
    pub const ANSWERED: u8 = 2;
    /// An alert came in place of a ServerHello; `alert` is known.
    pub const ALERT: u8 = 4;
    /// No ServerHello can come any more.
    pub const OVER: u8 = 8;
    /// A RST in the server's name came before any answer.
    pub const SERVER_RST: u8 = 16;
    /// A ServerHello came after that RST.
    pub const HELLO_AFTER_RST: u8 = 32;
}

/// The record of one flow.
#[derive(Clone, Copy, Debug, bytemuck::Zeroable)]
#[repr(C)]
pub struct App {
    /// While a ClientHello waits for its answer; and links free records.
    link: Link,
    pub hello_ns: Nanos,
    /// Slot of the flow that waits.
    pub slot: u32,
    /// ClientHello to the server's first payload, µs; 0 while unknown.
    pub tls_us: u32,
    /// From a request to the first byte of its answer, the last that was late or HTTP's, ms; 0 if there was none.
    pub answer_ms: u32,
    /// Answers of the service in the last minute, errors and late ones among them, as of the last HTTP answer.
    service: [u32; 3],
    /// Of the last HTTP answer; 0 if there was none.
    pub http_status: u16,
    pub http_errors: u16,
    pub dns_errors: u16,
    pub flags: u8,
    pub alert: u8,
    name_len: u8,
    name: [u8; NAME_BYTES],
    spare: [u8; 5],
}

impl App {
    pub fn has(&self, flag: u8) -> bool {
        self.flags & flag != 0
    }

    pub fn name(&self) -> Name {
        Name::from_parts(self.name_len, self.name)
    }

    /// `None` if there was no HTTP answer that could be counted.
    pub fn service(&self) -> Option<AnswerCounts> {
        let [answers, errors, late] = self.service;
        (answers > 0).then_some(AnswerCounts { answers, errors, late })
    }

    pub fn set_service(&mut self, counts: Option<AnswerCounts>) {
        let counts = counts.unwrap_or_default();
        self.service = [counts.answers, counts.errors, counts.late];
    }

    pub fn set_name(&mut self, name: Name) {
        (self.name_len, self.name) = name.parts();
    }
}

impl Waiting for App {
    fn link(&mut self) -> &mut Link {
        &mut self.link
    }
}

/// What a row tells of it.
#[derive(Clone, Copy, Debug, Default)]
pub struct AppEnd {
    /// µs; 0 if unknown.
    pub tls_us: u32,
    pub http_errors: u16,
    pub dns_errors: u16,
}

impl Record for App {
    fn next_free(&mut self) -> &mut u32 {
        &mut self.link.next
    }
}

/// The slab.
pub type AppSlab = Slab<App>;

impl Slab<App> {
    pub fn end_of(&self, index: u32) -> AppEnd {
        let end = |app: &App| AppEnd {
            tls_us: app.tls_us,
            http_errors: app.http_errors,
            dns_errors: app.dns_errors,
        };
        self.get(index).map(end).unwrap_or_default()
    }
}
