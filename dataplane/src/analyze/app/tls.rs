//! The beginnings of TLS (RFC 8446 §4, §5; RFC 6066 §3): ClientHello with its server name, ServerHello, alert.
//! Worker's thread; plain values, any bytes give one. There is no reassembly: what is not in the segment is
//! unknown. What is found goes into the flow's record.

use rules::facts::Name;

const HANDSHAKE: u8 = 22;
const ALERT: u8 = 21;
const CLIENT_HELLO: u8 = 1;
const SERVER_HELLO: u8 = 2;
const SERVER_NAME: u16 = 0;
/// A record header, and the handshake header in it.
const HEADERS: usize = 9;
/// Largest plaintext record (RFC 8446 §5.1).
const LARGEST: usize = 1 << 14;

/// What a server's first record is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Record {
    ServerHello,
    Alert {
        fatal: bool,
        description: u8,
    },
    /// Something else, or the capture doesn't show it.
    Other,
}

/// The server name of a ClientHello that begins here, empty if it has none or not in this segment; `None` if
/// this is no ClientHello.
pub(super) fn client_hello(payload: &[u8]) -> Option<Name> {
    let [HANDSHAKE, 3, 0..=4, high, low, CLIENT_HELLO, top, ..] = payload else { return None };
    let len = usize::from(u16::from_be_bytes([*high, *low]));
    // A hello has a version, a random and two lists at least, and is no longer than three bytes can say.
    if !(42..=LARGEST).contains(&len) || *top != 0 {
        return None;
    }
    let end = payload.len().min(5 + len);
    Some(payload.get(HEADERS..end).and_then(server_name).unwrap_or(Name::EMPTY))
}

fn server_name(hello: &[u8]) -> Option<Name> {
    let mut rest = Reader(hello);
    rest.skip(2 + 32)?;
    let session = rest.u8()?;
    rest.skip(usize::from(session))?;
    let ciphers = rest.u16()?;
    rest.skip(usize::from(ciphers))?;
    let compressions = rest.u8()?;
    rest.skip(usize::from(compressions))?;
    rest.u16()?;
    loop {
        let (kind, len) = (rest.u16()?, rest.u16()?);
        let body = rest.take(usize::from(len))?;
        if kind == SERVER_NAME {
            return host_name(Reader(body));
        }
    }
}

/// The first name of the list, if it is a host's: no other kind was ever defined.
fn host_name(mut list: Reader) -> Option<Name> {
    list.u16()?;
    let (kind, len) = (list.u8()?, list.u16()?);
    let name = list.take(usize::from(len))?;
    (kind == 0).then(|| Name::of(name))
}

pub(super) fn record(payload: &[u8]) -> Record {
    match payload {
        [HANDSHAKE, 3, _, _, _, SERVER_HELLO, ..] => Record::ServerHello,
        [ALERT, 3, _, 0, 2, level, description, ..] => {
            Record::Alert { fatal: *level == 2, description: *description }
        }
        _ => Record::Other,
    }
}

struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn take(&mut self, len: usize) -> Option<&'a [u8]> {
        let (part, rest) = self.0.split_at_checked(len)?;
        self.0 = rest;
        Some(part)
    }

    fn skip(&mut self, len: usize) -> Option<()> {
        self.take(len).map(|_| ())
    }

    fn u8(&mut self) -> Option<u8> {
        self.take(1)?.first().copied()
    }

    fn u16(&mut self) -> Option<u16> {
        self.take(2)?.first_chunk().map(|two| u16::from_be_bytes(*two))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A ClientHello with these extensions.
    pub fn hello(extensions: &[(u16, Vec<u8>)]) -> Vec<u8> {
        let mut body = vec![3, 3];
        body.extend([7; 32]);
        body.push(0);
        body.extend([0, 2, 0x13, 1, 1, 0]);
        let mut list = Vec::new();
        for (kind, data) in extensions {
            list.extend(kind.to_be_bytes());
            list.extend((data.len() as u16).to_be_bytes());
            list.extend(data);
        }
        body.extend((list.len() as u16).to_be_bytes());
        body.extend(list);
        let mut record = vec![22, 3, 1];
        record.extend((body.len() as u16 + 4).to_be_bytes());
        record.extend([1, 0]);
        record.extend((body.len() as u16).to_be_bytes());
        record.extend(body);
        record
    }

    fn sni(name: &[u8]) -> (u16, Vec<u8>) {
        let mut data = (name.len() as u16 + 3).to_be_bytes().to_vec();
        data.push(0);
        data.extend((name.len() as u16).to_be_bytes());
        data.extend(name);
        (0, data)
    }

    #[test]
    fn the_server_name_is_found_wherever_it_stands() {
        let found = |extensions: &[(u16, Vec<u8>)]| client_hello(&hello(extensions));
        assert_eq!(found(&[sni(b"a.example")]), Some(Name::of(b"a.example")));
        assert_eq!(found(&[(43, vec![2, 3, 4]), sni(b"b.example")]), Some(Name::of(b"b.example")));
        assert_eq!(found(&[(43, vec![2, 3, 4])]), Some(Name::EMPTY));
        assert_eq!(found(&[sni(b"x\x1b]0;\x07")]).unwrap().as_str(), "x\\027]0;\\007");
    }

    #[test]
    fn a_hello_cut_anywhere_is_still_one_without_a_name() {
        let whole = hello(&[(43, vec![2, 3, 4]), sni(b"b.example")]);
        for len in 0..whole.len() {
            let wanted = (len >= 7).then_some(Name::EMPTY);
            assert_eq!(client_hello(&whole[..len]), wanted, "{len} bytes");
        }
        // Extensions that lie about their lengths end the search.
        for at in 9..whole.len() {
            let mut lies = whole.clone();
            lies[at] = 0xff;
            let _ = client_hello(&lies);
        }
    }

    #[test]
    fn other_bytes_are_no_hello() {
        let mut bytes = hello(&[]);
        bytes[5] = 2;
        assert_eq!(client_hello(&bytes), None);
        assert_eq!(record(&bytes), Record::ServerHello);
        assert_eq!(client_hello(b"GET / HTTP/1.1\r\nHost: a.example\r\n\r\n"), None);
        assert_eq!(record(&[21, 3, 3, 0, 2, 2, 40]), Record::Alert { fatal: true, description: 40 });
        assert_eq!(record(&[21, 3, 3, 0, 2, 1, 112]), Record::Alert { fatal: false, description: 112 });
        assert_eq!(record(&[]), Record::Other);
    }
}
