//! What a packet socket's filter refused: two numbers, in which each CPU counts alone. Main thread, which makes the map
//! and reads it; the filter in the kernel counts.

use std::os::fd::{AsFd, BorrowedFd};

use libbpf_rs::{MapCore, MapFlags, MapHandle, MapType, libbpf_sys};

use crate::LoadError;

/// Keys of the map: packets without a VLAN tag, and with one.
const KEYS: [u32; 2] = [UNTAGGED, TAGGED];
pub(super) const UNTAGGED: u32 = 0;
pub(super) const TAGGED: u32 = 1;

/// Packets refused, and those of them with a VLAN tag.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RefusedCount {
    pub packets: u64,
    pub tagged: u64,
}

/// The counters, which the filter is told of when it is translated.
#[derive(Debug)]
pub struct Refusals(MapHandle);

impl Refusals {
    /// # Errors
    /// The kernel makes no map, as for want of privilege.
    pub fn new() -> Result<Refusals, LoadError> {
        let options = libbpf_sys::bpf_map_create_opts {
            sz: size_of::<libbpf_sys::bpf_map_create_opts>() as libbpf_sys::size_t,
            ..Default::default()
        };
        Ok(Refusals(MapHandle::create(
            MapType::PercpuArray,
            Some("referee_refused"),
            4,
            8,
            KEYS.len() as u32,
            &options,
        )?))
    }

    /// Packets refused so far.
    ///
    /// # Errors
    /// Those of reading a map.
    pub fn count(&self) -> Result<RefusedCount, LoadError> {
        let tagged = self.sum(TAGGED)?;
        Ok(RefusedCount { packets: self.sum(UNTAGGED)? + tagged, tagged })
    }

    fn sum(&self, key: u32) -> Result<u64, LoadError> {
        let values = self.0.lookup_percpu(&key.to_ne_bytes(), MapFlags::ANY)?.unwrap_or_default();
        let numbers = values.iter().filter_map(|value| value.first_chunk());
        Ok(numbers.map(|bytes| u64::from_ne_bytes(*bytes)).sum())
    }
}

impl AsFd for Refusals {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}
