//! What a driver itself counted, by its own names (`ethtool -S`): there, losses have the names that its vendor documents.
//!
//! Main thread, when a capture begins and ends; changes nothing.

use std::io;

use crate::ethtool::{ask_words, receive_queues};

const COUNT: u32 = 0x37;
const NAMES: u32 = 0x1b;
const VALUES: u32 = 0x1d;
/// ETH_SS_STATS: the set of names that is asked for.
const STATISTICS: u32 = 1;
/// Words of a name.
const NAME: usize = 8;
/// Counters of an interface at most. The kernel writes as many as there are, whatever room there is: room for as many
/// again as any driver has, should queues be added between the two questions.
const MOST: usize = 1 << 15;

/// Names and values, in the driver's order.
///
/// # Errors
/// ENODEV: no such interface. EOPNOTSUPP: its driver counts nothing of its own.
pub fn statistics(interface: &str) -> io::Result<Vec<(String, u64)>> {
    receive_queues(interface)?;
    // `struct ethtool_sset_info`: command, reserved, the mask's two halves, the counts.
    let mask = (1_u64 << STATISTICS).to_ne_bytes();
    let [low, high] =
        [0, 4].map(|at| u32::from_ne_bytes([mask[at], mask[at + 1], mask[at + 2], mask[at + 3]]));
    let mut count = [COUNT, 0, low, high, 0, 0];
    ask_words(interface, &mut count)?;
    let count = count[4] as usize;
    if count == 0 || count > MOST {
        return Err(io::Error::from_raw_os_error(libc::EOPNOTSUPP));
    }
    // `struct ethtool_gstrings`: command, set, count, the names. `struct ethtool_stats`: command, count, the values.
    let mut names = vec![0; 3 + 2 * MOST * NAME];
    names[..3].copy_from_slice(&[NAMES, STATISTICS, count as u32]);
    ask_words(interface, &mut names)?;
    let mut values = vec![0; 2 + 2 * MOST * 2];
    values[..2].copy_from_slice(&[VALUES, count as u32]);
    ask_words(interface, &mut values)?;
    // Were one added meanwhile, names and values would not belong together.
    if [names[2], values[1]] != [count as u32; 2] {
        return Err(io::Error::from(io::ErrorKind::Interrupted));
    }
    let names = names[3..].chunks_exact(NAME);
    let values = values[2..].chunks_exact(2);
    Ok(names.zip(values).take(count).map(|(name, value)| (text(name), number(value))).collect())
}

fn text(words: &[u32]) -> String {
    let bytes = words.iter().flat_map(|word| word.to_ne_bytes()).take_while(|&byte| byte != 0);
    String::from_utf8_lossy(&bytes.collect::<Vec<u8>>()).trim().to_owned()
}

fn number(halves: &[u32]) -> u64 {
    let mut bytes = [0; 8];
    for (to, half) in bytes.chunks_exact_mut(4).zip(halves) {
        to.copy_from_slice(&half.to_ne_bytes());
    }
    u64::from_ne_bytes(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_numbers_come_in_words() {
        let words = |bytes: &[u8]| -> Vec<u32> {
            bytes.chunks(4).map(|four| u32::from_ne_bytes(four.try_into().unwrap())).collect()
        };
        assert_eq!(text(&words(b"rx_missed\0\0\0")), "rx_missed");
        assert_eq!(number(&words(&(7_u64 << 40).to_ne_bytes())), 7 << 40);
        assert_eq!(statistics("lo").unwrap_err().raw_os_error(), Some(libc::EOPNOTSUPP));
        assert_eq!(statistics("no-such-if").unwrap_err().raw_os_error(), Some(libc::ENODEV));
    }
}
