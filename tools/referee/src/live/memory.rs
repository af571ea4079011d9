//! Whether the host has the memory that a run is sure to fill: the workers' history and the rings that packets wait in.
//! Main thread, before any of it is taken: a host that runs out kills something, and not always this.

use std::fs;

use super::mode::Mode;
use crate::config::Config;
use crate::error::Failure;
use crate::term::plural;

/// Frames of an AF_XDP ring: as many wait to be read as to be filled, of 2 KiB at least.
const FRAMES_A_PLACE: u64 = 2;
const FRAME: u64 = 2048;
const MIB: u64 = 1 << 20;

/// # Errors
/// Usage: there is less than that.
pub fn check(config: &Config, mode: Mode, workers: usize, queues: usize) -> Result<(), Failure> {
    let available = fs::read_to_string("/proc/meminfo").ok().and_then(|text| available(&text));
    let wanted = wanted(config, mode, workers, queues);
    match available {
        Some(available) if wanted > available => Err(Failure::usage(format!(
            "{} and {} would fill {} MiB with history and rings alone, and {} MiB are free",
            plural(workers as u64, "worker"),
            plural(queues as u64, "queue"),
            wanted / MIB,
            available / MIB
        ))
        .help("lower [capture] workers, ring_packets or packet_ring_mib, or [worker] history_mib")),
        _ => Ok(()),
    }
}

/// Bytes that will be written to, whatever comes.
fn wanted(config: &Config, mode: Mode, workers: usize, queues: usize) -> u64 {
    let ring = match mode {
        Mode::Afpacket => u64::from(config.packet_ring_mib) * MIB,
        Mode::Auto | Mode::Xdp => u64::from(config.ring_packets) * FRAMES_A_PLACE * FRAME,
    };
    let history = config.worker.history_bytes as u64;
    (workers as u64).saturating_mul(history).saturating_add((queues as u64).saturating_mul(ring))
}

/// What the kernel says it could give without swapping, bytes.
fn available(meminfo: &str) -> Option<u64> {
    let line = meminfo.lines().find_map(|line| line.strip_prefix("MemAvailable:"))?;
    let kib: u64 = line.split_whitespace().next()?.parse().ok()?;
    kib.checked_mul(1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_sure_to_be_filled_is_added_up() {
        let mut config = Config::default();
        config.worker.history_bytes = 256 << 20;
        assert_eq!(wanted(&config, Mode::Xdp, 2, 4) / MIB, 2 * 256 + 4 * 64);
        assert_eq!(wanted(&config, Mode::Afpacket, 1, 1) / MIB, 256 + 64);
        let error = check(&config, Mode::Auto, 1 << 20, 1).unwrap_err();
        assert!(
            error.message.starts_with("1,048,576 workers and 1 queue would fill 268435"),
            "{}",
            error.message
        );
        assert!(check(&config, Mode::Auto, 0, 0).is_ok());
    }

    #[test]
    fn the_kernel_says_what_is_there() {
        assert_eq!(available("MemTotal: 9 kB\nMemAvailable:   2048 kB\n"), Some(2 << 20));
        assert_eq!((available(""), available("MemAvailable: x kB")), (None, None));
    }
}
