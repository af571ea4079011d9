//! DNS messages (RFC 1035 §4): header and first question. Worker's thread; plain values, any bytes give one.
//! Knows no flow; questions go to the table of those without answer.

use rules::facts::Name;

const HEADER: usize = 12;
/// Longest name on the wire, and longest label.
const LONGEST_NAME: usize = 255;
const LONGEST_LABEL: u8 = 63;

/// The service's port, for UDP.
pub const PORT: u16 = 53;
/// Name does not exist: an answer like any other.
const NXDOMAIN: u8 = 3;

/// A query, or the answer to one.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Message {
    pub id: u16,
    pub is_answer: bool,
    pub rcode: u8,
    /// Unknown if the message repeats none, or the capture cut it.
    pub question: Option<Question>,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Question {
    /// Of name in lower case, type and class; never 0. Clients may vary the case from one repeat to the next.
    pub hash: u64,
    pub kind: u16,
    pub name: Name,
}

impl Message {
    /// The answer says that its server failed, or would not.
    pub fn is_error(&self) -> bool {
        self.rcode != 0 && self.rcode != NXDOMAIN
    }
}

/// Reads a message of `len` bytes on the wire, of which the capture has `bytes`; `None` if it is no standard
/// query or answer to one.
pub fn message(bytes: &[u8], len: usize) -> Option<Message> {
    let bytes = bytes.get(..len).unwrap_or(bytes);
    let (header, rest) = bytes.split_first_chunk::<HEADER>()?;
    let [id_high, id_low, first, second, counts @ ..] = header;
    let count = |n: usize| counts.get(2 * n..2 * n + 2).map_or(0, |two| u16::from_be_bytes([two[0], two[1]]));
    let is_answer = first & 0x80 != 0;
    let opcode = first >> 3 & 15;
    let (questions, answers) = (count(0), count(1));
    let standard = opcode == 0 && if is_answer { questions <= 1 } else { questions == 1 && answers == 0 };
    if !standard {
        return None;
    }
    let question = if questions == 1 { question(rest) } else { None };
    if question.is_none() && questions == 1 && bytes.len() == len {
        // All of it is here and it can't be read: something else on this port.
        return None;
    }
    let id = u16::from_be_bytes([*id_high, *id_low]);
    Some(Message { id, is_answer, rcode: second & 15, question })
}

fn question(bytes: &[u8]) -> Option<Question> {
    let mut name = Name::EMPTY;
    let mut hash: u64 = 0xcbf2_9ce4_8422_2325;
    let mut mix = |byte: u8| hash = (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3);
    let mut rest = bytes;
    loop {
        let (&len, after) = rest.split_first()?;
        if len > LONGEST_LABEL || bytes.len() - after.len() + usize::from(len) > LONGEST_NAME {
            return None;
        }
        let (label, after) = after.split_at_checked(usize::from(len))?;
        mix(len);
        if len == 0 {
            rest = after;
            break;
        }
        if !name.is_empty() {
            name.push(b'.');
        }
        for &byte in label {
            mix(byte.to_ascii_lowercase());
            name.push_in_label(byte);
        }
        rest = after;
    }
    if name.is_empty() {
        // The root.
        name.push(b'.');
    }
    let four = rest.first_chunk::<4>()?;
    four.iter().for_each(|&byte| mix(byte));
    Some(Question { hash: hash.max(1), kind: u16::from_be_bytes([four[0], four[1]]), name })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn query(name: &str, kind: u8) -> Vec<u8> {
        let mut bytes = vec![0x12, 0x34, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
        for label in name.split('.').filter(|label| !label.is_empty()) {
            bytes.push(label.len() as u8);
            bytes.extend(label.as_bytes());
        }
        bytes.extend([0, 0, kind, 0, 1]);
        bytes
    }

    fn read(bytes: &[u8]) -> Option<Message> {
        message(bytes, bytes.len())
    }

    #[test]
    fn a_query_and_its_answer_have_the_same_question() {
        let asked = read(&query("www.example.com", 28)).unwrap();
        let mut bytes = query("WWW.Example.com", 28);
        (bytes[2], bytes[3], bytes[7]) = (0x81, 0x82, 0);
        let answer = read(&bytes).unwrap();
        assert_eq!((asked.is_answer, answer.is_answer, answer.rcode), (false, true, 2));
        assert!(answer.is_error() && !asked.is_error());
        let (question, repeated) = (asked.question.unwrap(), answer.question.unwrap());
        assert_eq!((question.kind, question.name.as_str()), (28, "www.example.com"));
        assert_eq!((asked.id, question.hash), (answer.id, repeated.hash));
        let other = |name, kind| read(&query(name, kind)).unwrap().question.unwrap().hash;
        assert_ne!(other("www.example.com", 1), question.hash);
        assert_ne!(other("ww.wexample.com", 28), question.hash);
    }

    #[test]
    fn names_are_bounded_and_escaped() {
        let name = |text: &str| read(&query(text, 1)).unwrap().question.unwrap().name;
        assert_eq!(name("").as_str(), ".");
        assert_eq!(name("a\u{7}b.example").as_str(), "a\\007b.example");
        let long = ["x"; 40].join(".");
        assert!(name(&long).as_str().ends_with("..."));
        assert_eq!(read(&query(&["label"; 60].join("."), 1)), None, "longer than a name can be");
    }

    #[test]
    fn what_the_capture_cut_is_unknown_and_what_is_no_dns_is_nothing() {
        let whole = query("www.example.com", 1);
        for len in 0..whole.len() {
            let read = message(&whole[..len], whole.len());
            assert_eq!(read.map(|m| (m.id, m.question)), (len >= 12).then_some((0x1234, None)), "{len}");
            assert_eq!(message(&whole[..len], len), None, "{len}");
        }
        let mut update = whole.clone();
        update[2] = 5 << 3;
        assert_eq!(read(&update), None);
        let mut pointer = whole;
        pointer[12] = 0xc0;
        assert_eq!(read(&pointer), None);
        assert_eq!(read(&[0xff; 40]), None);
    }
}
