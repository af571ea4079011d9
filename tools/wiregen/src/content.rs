//! Payload bytes as a function of the position in a stream, so that a repeated segment repeats its bytes.
//!
//! Tables made once, read from any thread; nothing is allocated per packet. TLS streams begin with well-formed
//! hellos and go on in whole records; text is lines of JSON. Read by render.rs.

use std::sync::OnceLock;

use crate::profile::{Content, Side};
use crate::rng::Rng;

/// Longest payload of one segment, bytes.
pub const MAX_PAYLOAD: usize = 9216;
/// Bytes of one TLS record, header included.
const RECORD: usize = 1029;
/// Records, or lines, before the content repeats.
const REPEATS: usize = 64;

struct Table {
    /// Sent once, at the stream's start.
    prefix: usize,
    /// Length of what repeats after it.
    cycle: usize,
    bytes: Vec<u8>,
}

impl Table {
    fn new(prefix: Vec<u8>, cycle: &[u8]) -> Table {
        let mut bytes = prefix;
        let start = bytes.len();
        while bytes.len() < start + cycle.len() + MAX_PAYLOAD {
            bytes.extend_from_slice(cycle);
        }
        Table { prefix: start, cycle: cycle.len(), bytes }
    }

    fn at(&self, offset: u32, len: usize) -> &[u8] {
        let offset = offset as usize;
        let from =
            if offset < self.prefix { offset } else { self.prefix + (offset - self.prefix) % self.cycle };
        &self.bytes[from..from + len.min(MAX_PAYLOAD)]
    }
}

fn tables() -> &'static [Table; 7] {
    static TABLES: OnceLock<[Table; 7]> = OnceLock::new();
    TABLES.get_or_init(|| {
        let tls = records();
        let hello = [client_hello(), server_hello()];
        let [client, server] = hello;
        let json = lines();
        [
            Table::new(Vec::new(), &json),
            Table::new(b"{\"status\":\"ok\",\"items\":[".to_vec(), &json),
            Table::new(client, &tls),
            Table::new(server, &tls),
            Table::new(b"GET /items HTTP/1.1\r\nHost: service.example.com\r\n\r\n".to_vec(), &json),
            Table::new(status_line("200 OK"), &json),
            Table::new(status_line("500 Internal Server Error"), &json),
        ]
    })
}

/// The bytes `side` sends at `offset` of its stream; `len` is cut to [`MAX_PAYLOAD`].
pub fn stream(content: Content, side: Side, offset: u32, len: usize) -> &'static [u8] {
    let which = match content {
        Content::Text => side.index(),
        Content::Tls => 2 + side.index(),
        Content::Http { failed } => 4 + side.index() + usize::from(failed && side == Side::Server),
    };
    tables()[which].at(offset, len)
}

/// Length of the client's first message if the protocol fixes it: a TLS ClientHello, an HTTP request.
pub fn first_message(content: Content) -> Option<u32> {
    match content {
        Content::Text => None,
        Content::Http { .. } => Some(tables()[4].prefix as u32),
        Content::Tls => Some(tables()[2].prefix as u32),
    }
}

fn status_line(status: &str) -> Vec<u8> {
    let head =
        format!("HTTP/1.1 {status}\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n");
    head.into_bytes()
}

fn random(n: usize, seed: u64) -> Vec<u8> {
    let mut rng = Rng::new(seed);
    (0..n).map(|_| rng.next_u64() as u8).collect()
}

fn records() -> Vec<u8> {
    let body = random(REPEATS * RECORD, 0x7157);
    let mut out = Vec::with_capacity(body.len());
    for chunk in body.chunks(RECORD) {
        let len = (RECORD - 5) as u16;
        out.extend_from_slice(&[23, 3, 3]);
        out.extend_from_slice(&len.to_be_bytes());
        out.extend_from_slice(&chunk[5..]);
    }
    out
}

fn lines() -> Vec<u8> {
    let mut rng = Rng::new(0x1ed);
    let words = ["amber", "basil", "cobalt", "dune", "ember", "fjord", "grove", "harbor"];
    let mut out = Vec::new();
    for id in 0..REPEATS * 4 {
        let (a, b) = (words[rng.below(8) as usize], words[rng.below(8) as usize]);
        let n = rng.below(1_000_000);
        out.extend_from_slice(format!("{{\"id\":{id},\"name\":\"{a}-{b}\",\"count\":{n}}},\n").as_bytes());
    }
    out
}

/// A handshake message in one record (RFC 8446 §4, §5.1).
fn handshake(kind: u8, version: u8, body: &[u8]) -> Vec<u8> {
    let len = body.len() as u16;
    let mut out = vec![22, 3, version];
    out.extend_from_slice(&(len + 4).to_be_bytes());
    out.extend_from_slice(&[kind, 0]);
    out.extend_from_slice(&len.to_be_bytes());
    out.extend_from_slice(body);
    out
}

fn extension(out: &mut Vec<u8>, kind: u16, body: &[u8]) {
    out.extend_from_slice(&kind.to_be_bytes());
    out.extend_from_slice(&(body.len() as u16).to_be_bytes());
    out.extend_from_slice(body);
}

fn client_hello() -> Vec<u8> {
    let name = b"service.example.com";
    let mut sni = Vec::new();
    sni.extend_from_slice(&(name.len() as u16 + 3).to_be_bytes());
    sni.push(0);
    sni.extend_from_slice(&(name.len() as u16).to_be_bytes());
    sni.extend_from_slice(name);
    let mut share = vec![0, 36, 0, 29, 0, 32];
    share.extend_from_slice(&random(32, 3));
    let mut extensions = Vec::new();
    extension(&mut extensions, 0, &sni);
    extension(&mut extensions, 10, &[0, 4, 0, 29, 0, 23]);
    extension(&mut extensions, 13, &[0, 6, 4, 3, 8, 4, 4, 1]);
    extension(&mut extensions, 43, &[2, 3, 4]);
    extension(&mut extensions, 51, &share);
    let mut body = vec![3, 3];
    body.extend_from_slice(&random(32, 1));
    body.push(32);
    body.extend_from_slice(&random(32, 2));
    body.extend_from_slice(&[0, 6, 0x13, 1, 0x13, 2, 0x13, 3, 1, 0]);
    body.extend_from_slice(&(extensions.len() as u16).to_be_bytes());
    body.extend_from_slice(&extensions);
    handshake(1, 1, &body)
}

/// ServerHello and the compatibility ChangeCipherSpec.
fn server_hello() -> Vec<u8> {
    let mut share = vec![0, 29, 0, 32];
    share.extend_from_slice(&random(32, 5));
    let mut extensions = Vec::new();
    extension(&mut extensions, 43, &[3, 4]);
    extension(&mut extensions, 51, &share);
    let mut body = vec![3, 3];
    body.extend_from_slice(&random(32, 4));
    body.push(32);
    body.extend_from_slice(&random(32, 2));
    body.extend_from_slice(&[0x13, 1, 0]);
    body.extend_from_slice(&(extensions.len() as u16).to_be_bytes());
    body.extend_from_slice(&extensions);
    let mut out = handshake(2, 3, &body);
    out.extend_from_slice(&[20, 3, 3, 0, 1, 1]);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn content_depends_on_position_alone() {
        for content in [Content::Text, Content::Tls] {
            for side in [Side::Client, Side::Server] {
                let whole = stream(content, side, 0, 4000).to_vec();
                for (from, to) in [(0usize, 10usize), (100, 1500), (1400, 4000)] {
                    assert_eq!(stream(content, side, from as u32, to - from), &whole[from..to]);
                }
                assert_eq!(stream(content, side, u32::MAX, MAX_PAYLOAD).len(), MAX_PAYLOAD);
            }
        }
    }

    #[test]
    fn hellos_are_whole_records_and_data_records_follow() {
        let len = first_message(Content::Tls).unwrap();
        let hello = stream(Content::Tls, Side::Client, 0, len as usize + 5);
        assert_eq!(hello[..3], [22, 3, 1]);
        assert_eq!(usize::from(u16::from_be_bytes([hello[3], hello[4]])) + 5, len as usize);
        assert_eq!(hello[len as usize..], [23, 3, 3, 4, 0]);
        assert_eq!(stream(Content::Tls, Side::Server, 0, 3), [22, 3, 3]);
    }
}
