//! The flows of both captures, numbered alike. Filled while files are read, then only looked at.
//! Main thread; grows with the number of flows.

use std::collections::HashMap;
use std::hash::{Hash, Hasher};

use dataplane::decode::{Address, FlowKey};

/// Any value: flows of a file that somebody chose can't be aimed at a table whose hasher is seeded besides.
const SECRET: u64 = 0x005e_ed0f_c0de;

#[derive(Clone, Copy, PartialEq, Eq)]
struct Key(FlowKey);

impl Hash for Key {
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write_u64(self.0.hash(SECRET));
    }
}

/// Flow keys by number.
#[derive(Default)]
pub struct Flows {
    numbers: HashMap<Key, u32>,
    keys: Vec<FlowKey>,
}

impl Flows {
    pub fn new() -> Flows {
        Flows::default()
    }

    pub(crate) fn number(&mut self, key: &FlowKey) -> u32 {
        let next = self.keys.len() as u32;
        *self.numbers.entry(Key(*key)).or_insert_with(|| {
            self.keys.push(*key);
            next
        })
    }

    pub(crate) fn len(&self) -> usize {
        self.keys.len()
    }

    pub(crate) fn key(&self, number: u32) -> &FlowKey {
        self.keys.get(number as usize).unwrap_or(&FlowKey::NONE)
    }

    /// Sender and receiver of a packet of this flow.
    pub(crate) fn ends(&self, number: u32, from_low: bool) -> (Address, Address) {
        let key = self.key(number);
        if from_low { (key.low, key.high) } else { (key.high, key.low) }
    }
}
