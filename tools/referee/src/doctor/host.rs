//! Checks of the host: kernel, privileges, memory, clock, processors, libraries.
//!
//! Main thread; reads and changes nothing.

use std::fs;
use std::path::Path;

use dataplane_sys::host;
use rustix::process::{Resource, getrlimit};
use rustix::thread::{CapabilitySet, capabilities};

use super::check::Check;
use crate::term::plural;

/// Bytes of a huge page, with the usual setting.
const HUGE_PAGE: u64 = 2 << 20;
/// The oldest kernel that has what the capture uses.
const KERNEL: (u32, u32) = (5, 19);

/// What captures will take of the host.
#[derive(Clone, Copy, Debug)]
pub struct Wanted {
    /// Bytes of all rings' memory.
    pub ring_bytes: u64,
    /// Receive queues of all interfaces, each with a worker.
    pub workers: usize,
}

pub fn checks(wanted: &Wanted) -> Vec<Check> {
    let read = |path: &str| fs::read_to_string(path).ok().map(|text| text.trim().to_owned());
    let effective = capabilities(None).map_or(CapabilitySet::empty(), |sets| sets.effective);
    let cores = dataplane_sys::allowed_cores().map_or(0, |cores| cores.len());
    let mut all = vec![
        kernel(read("/proc/sys/kernel/osrelease").as_deref()),
        jit(read("/proc/sys/net/core/bpf_jit_enable").as_deref()),
        privileges(effective),
        locked_memory(getrlimit(Resource::Memlock).current, effective, wanted.ring_bytes),
        huge_pages(&read("/proc/meminfo").unwrap_or_default(), wanted.ring_bytes),
        transparent(read("/sys/kernel/mm/transparent_hugepage/enabled").as_deref()),
        processors(cores, wanted.workers),
        clock(host::clock().ok()),
        clock_source(read("/sys/devices/system/clocksource/clocksource0/current_clocksource").as_deref()),
        filter(host::has_library(c"libpcap.so.0.8") || host::has_library(c"libpcap.so.1")),
    ];
    all.extend(read("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor").map(|now| governor(&now)));
    all
}

/// "6.18.44-generic" is (6, 18).
fn version(release: &str) -> Option<(u32, u32)> {
    let mut parts = release.split(|c: char| !c.is_ascii_digit());
    Some((parts.next()?.parse().ok()?, parts.next()?.parse().ok()?))
}

fn kernel(release: Option<&str>) -> Check {
    let Some((release, number)) = release.and_then(|text| Some((text, version(text)?))) else {
        return Check::unknown("kernel", "its version can't be read");
    };
    let check = Check::new("kernel", format!("Linux {release}"));
    if number < KERNEL {
        return check
            .bad("the XDP program uses what Linux has from 5.19 on")
            .command("apt-get install linux-image-amd64");
    }
    check
}

fn jit(enabled: Option<&str>) -> Check {
    match enabled {
        None => Check::unknown("bpf_jit", "not to be seen from here (a network namespace, or no BPF)"),
        Some("0") => Check::new("bpf_jit", "off")
            .warn("the XDP program is interpreted, instruction by instruction, for each packet")
            .command("sysctl -w net.core.bpf_jit_enable=1"),
        Some(_) => Check::new("bpf_jit", "on"),
    }
}

fn privileges(effective: CapabilitySet) -> Check {
    let needed = [
        (CapabilitySet::NET_ADMIN, "net_admin"),
        (CapabilitySet::NET_RAW, "net_raw"),
        (CapabilitySet::BPF, "bpf"),
    ];
    let lacking: Vec<&str> =
        needed.iter().filter(|(one, _)| !effective.contains(*one)).map(|(_, name)| *name).collect();
    if lacking.is_empty() {
        return Check::new("privileges", "net_admin, net_raw, bpf");
    }
    Check::new("privileges", format!("without {}", lacking.join(", ")))
        .bad("opening an interface needs them; they are given up before the first packet is analysed")
        .command("sudo referee run …")
}

fn locked_memory(limit: Option<u64>, effective: CapabilitySet, needed: u64) -> Check {
    let Some(limit) = limit.filter(|_| !effective.contains(CapabilitySet::IPC_LOCK)) else {
        return Check::new("locked_memory", "no limit");
    };
    let found = format!("{} of {} needed", mib(limit), mib(needed));
    match limit < needed {
        true => Check::new("locked_memory", found)
            .bad("the rings' memory is locked, and the kernel refuses what goes beyond")
            .command("ulimit -l unlimited"),
        false => Check::new("locked_memory", found),
    }
}

fn mib(bytes: u64) -> String {
    format!("{} MiB", bytes.div_ceil(1 << 20))
}

/// A field of /proc/meminfo, as it stands.
fn field(meminfo: &str, name: &str) -> Option<u64> {
    let line = meminfo.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
    line.split_whitespace().next()?.parse().ok()
}

fn huge_pages(meminfo: &str, ring_bytes: u64) -> Check {
    let (Some(free), Some(all)) = (field(meminfo, "HugePages_Free"), field(meminfo, "HugePages_Total"))
    else {
        return Check::unknown("huge_pages", "this kernel doesn't count them");
    };
    let needed = ring_bytes.div_ceil(HUGE_PAGE);
    let check = Check::new("huge_pages", format!("{free} free; the rings take {needed}"));
    if free >= needed {
        return check;
    }
    check
        .warn("the rings' memory then lies on small pages, and each packet costs more lookups of addresses")
        .command(format!("sysctl -w vm.nr_hugepages={}", all + needed - free))
}

fn transparent(enabled: Option<&str>) -> Check {
    match enabled {
        None => Check::unknown("table_pages", "this kernel has no transparent huge pages"),
        Some(text) if text.contains("[never]") => Check::new("table_pages", "transparent huge pages: never")
            .warn("the flow table lies on small pages; with a million flows that costs some ns a packet")
            .command("echo madvise > /sys/kernel/mm/transparent_hugepage/enabled"),
        Some(_) => Check::new("table_pages", "transparent huge pages where asked for"),
    }
}

fn processors(cores: usize, workers: usize) -> Check {
    let check =
        Check::new("processors", format!("{cores}, for {} and all else", plural(workers as u64, "worker")));
    match workers > 0 && cores <= workers {
        true => check.warn(
            "a worker shares its CPU with the kernel and the other threads, and loses packets when they run",
        ),
        false => check,
    }
}

fn clock(clock: Option<host::Clock>) -> Check {
    match clock {
        None => Check::unknown("clock", "can't be asked"),
        Some(clock) if clock.synchronised => {
            Check::new("clock", format!("kept, to within {} ms", clock.largest_error.max(0) / 1000))
        }
        Some(_) => Check::new("clock", "nobody keeps it")
            .warn("times in captures and incidents can't be put beside those of other hosts")
            .command("timedatectl set-ntp true"),
    }
}

fn clock_source(source: Option<&str>) -> Check {
    let Some(source) = source else { return Check::unknown("clock_source", "can't be read") };
    let check = Check::new("clock_source", source);
    if ["hpet", "acpi_pm", "jiffies"].contains(&source) {
        let file = "/sys/devices/system/clocksource/clocksource0/current_clocksource";
        return check
            .warn("each packet is stamped by it, and reading it takes a microsecond or is coarse")
            .command(format!("echo tsc > {file}"));
    }
    check
}

fn filter(there: bool) -> Check {
    match there {
        true => Check::new("libpcap", "there"),
        false => Check::new("libpcap", "not there")
            .warn("only --filter needs it: it compiles the expression")
            .command("apt-get install libpcap0.8"),
    }
}

fn governor(now: &str) -> Check {
    let check = Check::new("cpu_speed", format!("governor {now}"));
    if now == "performance" || !Path::new("/sys/devices/system/cpu/cpu0/cpufreq").exists() {
        return check;
    }
    check
        .warn("a CPU that slept is slow for the first packets of a burst, which then wait in the ring")
        .command("cpupower frequency-set -g performance")
}

#[cfg(test)]
mod tests {
    use super::super::check::State;
    use super::*;

    #[test]
    fn kernels() {
        for (release, state) in [
            ("6.18.44", State::Ok),
            ("5.19.0-50-generic", State::Ok),
            ("6.1.0-30-amd64", State::Ok),
            ("5.15.0-91-generic", State::Bad),
            ("4.19.0", State::Bad),
            ("", State::Unknown),
        ] {
            assert_eq!(kernel(Some(release)).state, state, "{release}");
        }
    }

    #[test]
    fn memory() {
        let meminfo = "MemTotal:  24 kB\nHugePages_Total:      10\nHugePages_Free:        4\n";
        let short = huge_pages(meminfo, 64 << 20);
        assert_eq!(
            (short.state, short.command.as_deref()),
            (State::Warn, Some("sysctl -w vm.nr_hugepages=38"))
        );
        assert_eq!(huge_pages(meminfo, 8 << 20).state, State::Ok);
        assert_eq!(huge_pages("", 1).state, State::Unknown);
        let none = CapabilitySet::empty();
        assert_eq!(locked_memory(Some(8 << 20), none, 64 << 20).state, State::Bad);
        assert_eq!(locked_memory(Some(8 << 20), CapabilitySet::IPC_LOCK, 64 << 20).state, State::Ok);
        assert_eq!(locked_memory(None, none, 64 << 20).state, State::Ok);
        assert_eq!(transparent(Some("always madvise [never]")).state, State::Warn);
        assert_eq!(transparent(Some("always [madvise] never")).state, State::Ok);
    }

    #[test]
    fn who_may_and_what_is_missing() {
        assert_eq!(privileges(CapabilitySet::all()).state, State::Ok);
        let some = privileges(CapabilitySet::NET_RAW);
        assert_eq!((some.state, some.found.as_str()), (State::Bad, "without net_admin, bpf"));
        assert_eq!((processors(2, 1).state, processors(2, 2).state), (State::Ok, State::Warn));
        assert_eq!(clock_source(Some("hpet")).state, State::Warn);
        assert_eq!(
            (jit(Some("1")).state, jit(Some("0")).state, jit(None).state),
            (State::Ok, State::Warn, State::Unknown)
        );
    }
}
