//! Big-endian reads that cannot go past the end. Worker's thread; no allocation, no panic.
//! What is not there is `None`; `link`, `net` and `transport` read every header through these.

#[inline(always)]
pub(super) fn u8_at(bytes: &[u8], at: usize) -> Option<u8> {
    bytes.get(at).copied()
}

#[inline(always)]
pub(super) fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    let part = bytes.get(at..at.checked_add(2)?)?;
    Some(u16::from_be_bytes([part[0], part[1]]))
}

#[inline(always)]
pub(super) fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    let part = bytes.get(at..at.checked_add(4)?)?;
    Some(u32::from_be_bytes([part[0], part[1], part[2], part[3]]))
}

/// The bytes from `at` on; nothing if `at` is past the end.
#[inline(always)]
pub(super) fn after(bytes: &[u8], at: usize) -> &[u8] {
    bytes.get(at..).unwrap_or(&[])
}
