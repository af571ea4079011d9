//! HTTP/1 status lines in clear text (RFC 9112 §4). Worker's thread; plain values, any bytes give one.
//! The status goes into the flow's record.

/// The status, if an answer begins here.
pub(super) fn status(payload: &[u8]) -> Option<u16> {
    let [b'H', b'T', b'T', b'P', b'/', b'1', b'.', b'0'..=b'9', b' ', code @ ..] = payload else {
        return None;
    };
    let [a @ b'1'..=b'5', b @ b'0'..=b'9', c @ b'0'..=b'9', rest @ ..] = code else { return None };
    let digit = |byte: &u8| u16::from(byte - b'0');
    let ends = matches!(rest.first(), None | Some(b' ' | b'\r' | b'\n'));
    ends.then(|| digit(a) * 100 + digit(b) * 10 + digit(c))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_status_line_has_a_status() {
        for (line, wanted) in [
            (&b"HTTP/1.1 200 OK\r\n"[..], Some(200)),
            (b"HTTP/1.0 503 Service Unavailable", Some(503)),
            (b"HTTP/1.1 500", Some(500)),
            (b"HTTP/1.1 5000 x", None),
            (b"HTTP/1.1 600 x", None),
            (b"HTTP/1.1 50", None),
            (b"HTTP/2.0 500 x", None),
            (b"GET / HTTP/1.1\r\n", None),
            (b"", None),
        ] {
            assert_eq!(status(line), wanted, "{line:?}");
        }
    }
}
