//! How services answer: answers, errors and late answers of the last minute by address and port, for those whose
//! answers can be read (HTTP in clear text, DNS). Direct-mapped and fixed in size; a service whose place another one
//! holds goes uncounted, and is unknown. Worker's thread; never allocates after start.

use rules::facts::AnswerCounts;

use crate::decode::Address;
use crate::source::Nanos;

/// Parts of the minute, and their length.
const PARTS: usize = 6;
const PART: Nanos = 10_000_000_000;
const PLACES: usize = 4096;

#[derive(Clone, Copy, Debug, Default)]
struct Service {
    /// Who holds the place; the port is never 0 then.
    address: Address,
    port: u16,
    /// Number of the newest part.
    part: u64,
    answers: [u32; PARTS],
    errors: [u32; PARTS],
    late: [u32; PARTS],
}

/// What kind of answer it was.
#[derive(Clone, Copy, Debug, Default)]
pub struct Answer {
    /// It says that the server failed.
    pub error: bool,
    /// It came a second or more after what it answers.
    pub late: bool,
}

/// The table.
#[derive(Debug)]
pub struct Services {
    places: Box<[Service]>,
    secret: u64,
}

impl Services {
    pub fn new(secret: u64) -> Services {
        Services { places: vec![Service::default(); PLACES].into_boxed_slice(), secret }
    }

    /// Counts an answer; gives the sums of the last minute, this one included.
    pub fn answer(
        &mut self,
        (address, port): (Address, u16),
        answer: Answer,
        now: Nanos,
    ) -> Option<AnswerCounts> {
        let mixed = (address[1] ^ address[0].rotate_left(32) ^ u64::from(port) << 48 ^ self.secret)
            .wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let place = self.places.get_mut((mixed >> 32) as usize % PLACES)?;
        let part = now / PART;
        let passed = part.saturating_sub(place.part);
        if (place.address, place.port) != (address, port) {
            if place.port != 0 && passed < PARTS as u64 {
                return None;
            }
            *place = Service { address, port, part, ..Service::default() };
        }
        place.advance(part, passed);
        let at = (place.part % PARTS as u64) as usize;
        place.answers[at] = place.answers[at].saturating_add(1);
        place.errors[at] = place.errors[at].saturating_add(u32::from(answer.error));
        place.late[at] = place.late[at].saturating_add(u32::from(answer.late));
        let sum = |counts: &[u32; PARTS]| counts.iter().fold(0_u32, |sum, count| sum.saturating_add(*count));
        let (answers, errors, late) = (sum(&place.answers), sum(&place.errors), sum(&place.late));
        Some(AnswerCounts { answers, errors, late })
    }
}

impl Service {
    /// Empties the parts that time has come round to again.
    fn advance(&mut self, part: u64, passed: u64) {
        for n in 0..passed.min(PARTS as u64) {
            let at = ((part - n) % PARTS as u64) as usize;
            (self.answers[at], self.errors[at], self.late[at]) = (0, 0, 0);
        }
        self.part = self.part.max(part);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counts(answers: u32, errors: u32, late: u32) -> Option<AnswerCounts> {
        Some(AnswerCounts { answers, errors, late })
    }

    #[test]
    fn a_minute_slides() {
        let mut services = Services::new(3);
        let mut at = |second: u64, error, late| {
            services.answer(([0, 9], 80), Answer { error, late }, second * 1_000_000_000)
        };
        assert_eq!(at(0, true, true), counts(1, 1, 1));
        assert_eq!(at(9, false, false), counts(2, 1, 1));
        assert_eq!(at(59, true, false), counts(3, 2, 1));
        assert_eq!(at(60, false, true), counts(2, 1, 1));
        assert_eq!(at(58, false, false), counts(3, 1, 1), "time that went back");
        assert_eq!(at(500, false, false), counts(1, 0, 0));
    }

    #[test]
    fn a_place_is_held_by_who_uses_it() {
        let mut services = Services::new(3);
        for n in 0..50_000 {
            let counted = services.answer(([0, n], 80), Answer::default(), 1);
            assert!(counted.is_none() || counted == counts(1, 0, 0));
        }
        let error = Answer { error: true, late: false };
        assert_eq!(services.answer(([0, 49_999], 80), error, 200_000_000_000), counts(1, 1, 0));
    }
}
