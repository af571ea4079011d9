//! How an interface spreads packets over its receive queues (ethtool's ioctls): the hash function, its key, what is done
//! to its input, and which fields go into it.
//!
//! Main thread, before anything is opened. Changes only what its caller asks for.

use std::io;

use crate::ethtool::ask;

const GET_HASH: u32 = 0x46;
const SET_HASH: u32 = 0x47;
const GET_FIELDS: u32 = 0x29;
const SET_FIELDS: u32 = 0x2a;
/// Leaves the table of queues as it is (ETH_RXFH_INDIR_NO_CHANGE).
const SAME_TABLE: u32 = u32::MAX;
/// Bytes of a key at most. Those there are have 40 to 52.
const LONGEST_KEY: usize = 512;

/// The hash function of Microsoft's RSS (ETH_RSS_HASH_TOP).
pub const TOEPLITZ: u8 = 1 << 0;
/// Source and destination are XORed first, and both stand where either would (RXH_XFRM_SYM_XOR; Linux 6.8).
pub const SYMMETRIC_XOR: u8 = 1 << 0;
/// The OR of source and destination, and their XOR (RXH_XFRM_SYM_OR_XOR; Linux 6.16).
pub const SYMMETRIC_OR_XOR: u8 = 1 << 1;

/// Fields that go into the hash (RXH_*).
pub const SOURCE: u64 = 1 << 4;
pub const DESTINATION: u64 = 1 << 5;
pub const SOURCE_PORT: u64 = 1 << 6;
pub const DESTINATION_PORT: u64 = 1 << 7;

/// `struct ethtool_rxfh` and room for a key, include/uapi/linux/ethtool.h.
#[repr(C)]
struct Rxfh {
    command: u32,
    context: u32,
    table_size: u32,
    key_size: u32,
    function: u8,
    transform: u8,
    reserved: [u8; 6],
    key: [u8; LONGEST_KEY],
}

const _: () = assert!(size_of::<Rxfh>() == 24 + LONGEST_KEY);

impl Rxfh {
    fn new(command: u32) -> Rxfh {
        Rxfh {
            command,
            context: 0,
            table_size: 0,
            key_size: 0,
            function: 0,
            transform: 0,
            reserved: [0; 6],
            key: [0; LONGEST_KEY],
        }
    }
}

/// `struct ethtool_rxnfc`, of which the first part is used, include/uapi/linux/ethtool.h.
#[repr(C)]
struct Rxnfc {
    command: u32,
    flow: u32,
    data: u64,
    rest: [u64; 22],
}

const _: () = assert!(size_of::<Rxnfc>() == 192);

/// How the hash is made.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Hash {
    /// [`TOEPLITZ`] or another; 0 if the driver doesn't say.
    pub function: u8,
    /// What is done to the input first; 0 for nothing.
    pub transform: u8,
    pub key: Vec<u8>,
}

/// Kinds of packets whose fields can be chosen (`*_FLOW`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Flow {
    Tcp4 = 1,
    Udp4 = 2,
    Tcp6 = 5,
    Udp6 = 6,
}

impl Flow {
    pub const ALL: [Flow; 4] = [Flow::Tcp4, Flow::Udp4, Flow::Tcp6, Flow::Udp6];

    /// As ethtool calls it.
    pub fn name(self) -> &'static str {
        match self {
            Flow::Tcp4 => "tcp4",
            Flow::Udp4 => "udp4",
            Flow::Tcp6 => "tcp6",
            Flow::Udp6 => "udp6",
        }
    }
}

/// # Errors
/// EOPNOTSUPP: the driver doesn't say. ENODEV: no such interface.
pub fn hash(interface: &str) -> io::Result<Hash> {
    let mut sizes = Rxfh::new(GET_HASH);
    ask(interface, &mut sizes)?;
    let mut full = Rxfh::new(GET_HASH);
    // Where there is a table, it isn't asked for: a size of 0 leaves it out.
    full.key_size = sizes.key_size;
    if sizes.key_size as usize > LONGEST_KEY {
        return Err(io::Error::from_raw_os_error(libc::EOPNOTSUPP));
    }
    if sizes.key_size > 0 {
        ask(interface, &mut full)?;
    }
    let key = full.key.get(..sizes.key_size as usize).unwrap_or_default().to_vec();
    Ok(Hash { function: sizes.function, transform: sizes.transform, key })
}

/// Makes the hash so, as far as it can be; the table of queues stays. An empty key is left as it is.
///
/// # Errors
/// EOPNOTSUPP or EINVAL: the driver can't. EPERM: missing privilege (CAP_NET_ADMIN).
pub fn set_hash(interface: &str, to: &Hash) -> io::Result<()> {
    let mut request = Rxfh::new(SET_HASH);
    request.table_size = SAME_TABLE;
    request.function = to.function;
    request.transform = to.transform;
    let Some(place) = request.key.get_mut(..to.key.len()) else {
        return Err(io::Error::from_raw_os_error(libc::EINVAL));
    };
    place.copy_from_slice(&to.key);
    request.key_size = to.key.len() as u32;
    ask(interface, &mut request)
}

/// Which fields of these packets go into the hash; 0 if they aren't hashed.
///
/// # Errors
/// EOPNOTSUPP or EINVAL: the driver doesn't say.
pub fn fields(interface: &str, flow: Flow) -> io::Result<u64> {
    let mut request = Rxnfc { command: GET_FIELDS, flow: flow as u32, data: 0, rest: [0; 22] };
    ask(interface, &mut request)?;
    Ok(request.data)
}

/// # Errors
/// EOPNOTSUPP or EINVAL: the driver can't. EPERM: missing privilege (CAP_NET_ADMIN).
pub fn set_fields(interface: &str, flow: Flow, fields: u64) -> io::Result<()> {
    ask(interface, &mut Rxnfc { command: SET_FIELDS, flow: flow as u32, data: fields, rest: [0; 22] })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_has_no_hash_says_so() {
        let unsupported =
            |result: io::Result<()>| result.unwrap_err().raw_os_error() == Some(libc::EOPNOTSUPP);
        assert!(unsupported(hash("lo").map(drop)));
        assert!(unsupported(fields("lo", Flow::Udp4).map(drop)));
        assert!(hash("no-such-if").is_err());
        let long = Hash { key: vec![0; LONGEST_KEY + 1], ..Hash::default() };
        assert_eq!(set_hash("lo", &long).unwrap_err().raw_os_error(), Some(libc::EINVAL));
    }
}
