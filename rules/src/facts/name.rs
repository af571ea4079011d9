//! A short text out of a packet: a server name, a DNS name. Plain data of fixed size, so that it travels in
//! snapshots; made on workers, read by conditions and rule bodies. It ends in terminals and JSON, and whoever sent the packet
//! chose it: what is not a printable ASCII character is escaped as `\DDD` (RFC 1035 §5.1).

use std::fmt;

/// Bytes kept at most.
pub const NAME_BYTES: usize = 64;
/// What a name that was cut ends in.
const CUT: &[u8] = b"...";

/// At most [`NAME_BYTES`] printable ASCII characters; empty if there is no name.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Name {
    len: u8,
    bytes: [u8; NAME_BYTES],
}

impl Name {
    pub const EMPTY: Name = Name { len: 0, bytes: [0; NAME_BYTES] };

    /// The text of bytes as they came.
    pub fn of(raw: &[u8]) -> Name {
        let mut name = Name::EMPTY;
        let plain = |byte: &u8| matches!(byte, b'!'..=b'~') && *byte != b'\\';
        if raw.len() <= NAME_BYTES - CUT.len() && raw.iter().all(plain) {
            name.bytes[..raw.len()].copy_from_slice(raw);
            name.len = raw.len() as u8;
            return name;
        }
        raw.iter().take(NAME_BYTES + 1).for_each(|&byte| name.push(byte));
        name
    }

    /// The name taken apart, for a record that must be plain bytes.
    pub const fn parts(self) -> (u8, [u8; NAME_BYTES]) {
        (self.len, self.bytes)
    }

    /// What [`Name::parts`] gave.
    pub const fn from_parts(len: u8, bytes: [u8; NAME_BYTES]) -> Name {
        Name { len, bytes }
    }

    /// Appends a byte as it came: escaped if it isn't printable. What finds no room cuts the name.
    pub fn push(&mut self, byte: u8) {
        match byte {
            b'\\' => self.append(b"\\\\"),
            b'!'..=b'~' => self.append(&[byte]),
            _ => self.append(&[b'\\', b'0' + byte / 100, b'0' + byte / 10 % 10, b'0' + byte % 10]),
        }
    }

    /// Appends a byte of a DNS label: a dot inside one is not what stands between two.
    pub fn push_in_label(&mut self, byte: u8) {
        match byte {
            b'.' => self.append(b"\\."),
            _ => self.push(byte),
        }
    }

    fn append(&mut self, text: &[u8]) {
        let len = usize::from(self.len);
        if self.is_cut() {
            return;
        }
        let room = NAME_BYTES - CUT.len();
        let text = if len + text.len() > room { CUT } else { text };
        if let Some(free) = self.bytes.get_mut(len..len + text.len()) {
            free.copy_from_slice(text);
            self.len += text.len() as u8;
        }
    }

    /// More of it followed than there was room for.
    pub fn is_cut(&self) -> bool {
        self.as_bytes().ends_with(CUT)
    }

    /// What was kept of it, without the mark of the cut.
    pub(crate) fn kept(&self) -> &[u8] {
        self.as_bytes().strip_suffix(CUT).unwrap_or(self.as_bytes())
    }

    fn as_bytes(&self) -> &[u8] {
        self.bytes.get(..usize::from(self.len)).unwrap_or_default()
    }

    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    pub fn as_str(&self) -> &str {
        std::str::from_utf8(self.as_bytes()).unwrap_or_default()
    }

    /// `None` for no name.
    pub fn known(self) -> Option<Name> {
        (!self.is_empty()).then_some(self)
    }
}

impl Default for Name {
    fn default() -> Self {
        Name::EMPTY
    }
}

impl fmt::Debug for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self.as_str(), f)
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_printable_is_escaped() {
        assert_eq!(Name::of(b"www.example.com").as_str(), "www.example.com");
        assert_eq!(
            Name::of(b"a\x1b[2J\n\"b\" \\\xc3\xa9").as_str(),
            "a\\027[2J\\010\"b\"\\032\\\\\\195\\169"
        );
        assert_eq!(Name::of(b"").known(), None);
        let mut name = Name::EMPTY;
        b"a.b".iter().for_each(|&byte| name.push_in_label(byte));
        assert_eq!(name.as_str(), "a\\.b");
    }

    #[test]
    fn what_is_too_long_is_cut_once_and_says_so() {
        let long = Name::of(&[b'x'; 300]);
        assert_eq!((long.as_str().len(), &long.as_str()[60..]), (64, "x..."));
        assert_eq!(Name::of(&[0; 300]).as_str().len(), 63);
        let fits = Name::of(&[b'y'; 61]);
        assert_eq!(fits.as_str(), "y".repeat(61));
    }
}
