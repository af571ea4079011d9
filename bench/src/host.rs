//! What the numbers were measured on, and what this process takes of it. Reads `/proc`; called before and
//! after the timed loops, never in them, except for the page faults at a measurement's two ends.

use std::fs::{self, File};
use std::io::Read;

use serde::Serialize;

/// The machine.
#[derive(Clone, Debug, Serialize)]
pub struct Host {
    pub cpu: String,
    pub cores: usize,
    pub kernel: String,
    /// Size of the last-level cache as the kernel words it ("32768K").
    pub last_level_cache: String,
    /// The CPU everything ran on.
    pub core: usize,
}

impl Host {
    pub fn read(core: usize) -> Host {
        let info = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
        let model = info.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": "));
        let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
        let cache =
            |level| fs::read_to_string(format!("/sys/devices/system/cpu/cpu{core}/cache/index{level}/size"));
        let last = (0..5).rev().find_map(|level| cache(level).ok()).unwrap_or_default();
        Host {
            cpu: model.map_or("unknown CPU", |(_, name)| name).to_owned(),
            cores: info.lines().filter(|line| line.starts_with("processor")).count(),
            kernel: kernel.trim().to_owned(),
            last_level_cache: last.trim().to_owned(),
            core,
        }
    }
}

/// Bytes of this process that are in RAM.
pub fn resident() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kib = line.and_then(|rest| rest.trim().strip_suffix(" kB")?.trim().parse::<u64>().ok());
    kib.unwrap_or(0) << 10
}

/// Pages the kernel had to find for this process so far (minor faults, proc(5) stat field 10). Doesn't
/// allocate: it is asked for inside a worker's step.
pub fn page_faults() -> u64 {
    let mut text = [0; 512];
    let read = File::open("/proc/self/stat").and_then(|mut file| file.read(&mut text));
    let stat = std::str::from_utf8(&text[..read.unwrap_or(0)]).unwrap_or_default();
    // The second field, the program's name, may have blanks in it; it ends at the last parenthesis.
    let after_name = stat.rsplit_once(')').map_or("", |(_, rest)| rest);
    after_name.split_whitespace().nth(7).and_then(|field| field.parse().ok()).unwrap_or(0)
}
