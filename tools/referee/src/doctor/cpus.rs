//! Checks of processors against an interface: where its interrupts go, which of them are near it, and where the workers
//! will be. Main thread; reads /sys and /proc, and changes nothing.

use std::fs;
use std::path::Path;

use super::check::Check;

pub fn checks(interface: &str, cores: &[usize], workers: &[usize]) -> Vec<Check> {
    let device = Path::new("/sys/class/net").join(interface).join("device");
    let mut all = Vec::new();
    if let Some(irqs) = interrupts(&device) {
        all.push(interrupts_apart(&irqs, cores, workers));
        if balanced() {
            all.push(
                Check::new("irqbalance", "running")
                    .warn("it moves interrupts to CPUs that look idle, workers' included")
                    .command("systemctl stop irqbalance"),
            );
        }
    }
    let near = fs::read_to_string(device.join("local_cpulist")).ok().map(|text| list(&text));
    all.extend(near.filter(|near| !near.is_empty()).map(|near| near_it(&near, workers)));
    all
}

/// Numbers of a device's interrupts and the CPUs that take each; `None` if it has none, as what is no hardware.
fn interrupts(device: &Path) -> Option<Vec<(u32, Vec<usize>)>> {
    // A virtio device's are its PCI parent's.
    let places = ["msi_irqs", "../msi_irqs"];
    let entries = places.iter().find_map(|place| fs::read_dir(device.join(place)).ok())?;
    let numbers = entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
    let mut all: Vec<(u32, Vec<usize>)> =
        numbers.filter_map(|number| Some((number, taken_by(number)?))).collect();
    all.sort_unstable();
    Some(all)
}

fn taken_by(irq: u32) -> Option<Vec<usize>> {
    let read =
        |name: &str| fs::read_to_string(format!("/proc/irq/{irq}/{name}")).ok().map(|text| list(&text));
    read("effective_affinity_list").filter(|cores| !cores.is_empty()).or_else(|| read("smp_affinity_list"))
}

fn interrupts_apart(irqs: &[(u32, Vec<usize>)], cores: &[usize], workers: &[usize]) -> Check {
    let on_workers: Vec<&(u32, Vec<usize>)> =
        irqs.iter().filter(|(_, at)| at.iter().any(|core| workers.contains(core))).collect();
    let rest: Vec<usize> = cores.iter().copied().filter(|core| !workers.contains(core)).collect();
    let check =
        Check::new("interrupts", format!("{} of {} reach a worker's CPU", on_workers.len(), irqs.len()));
    if on_workers.is_empty() || rest.is_empty() {
        return check;
    }
    let numbers: Vec<String> = on_workers.iter().map(|(number, _)| number.to_string()).collect();
    let command = format!(
        "for n in {}; do echo {} > /proc/irq/$n/smp_affinity_list; done",
        numbers.join(" "),
        shown(&rest)
    );
    check
        .warn("the kernel takes packets from the NIC where its interrupts go; on a worker's CPU each waits for the other")
        .command(command)
}

fn near_it(near: &[usize], workers: &[usize]) -> Check {
    let far = workers.iter().filter(|core| !near.contains(core)).count();
    let check = Check::new(
        "numa",
        format!("{} of {} workers' CPUs are near the NIC", workers.len() - far, workers.len()),
    );
    match far {
        0 => check,
        _ => check.warn("each packet crosses from one socket's memory to another's").command(format!(
            "taskset -c {} referee run …   (workers take the highest CPUs there are)",
            shown(near)
        )),
    }
}

/// Something moves interrupts about.
fn balanced() -> bool {
    let Ok(processes) = fs::read_dir("/proc") else { return false };
    processes
        .flatten()
        .filter_map(|process| fs::read_to_string(process.path().join("comm")).ok())
        .any(|name| name.trim() == "irqbalance")
}

/// "0-2,8" is 0, 1, 2 and 8.
fn list(text: &str) -> Vec<usize> {
    let range = |part: &str| {
        let (from, to) = part.split_once('-').unwrap_or((part, part));
        Some(from.trim().parse().ok()?..=to.trim().parse().ok()?)
    };
    text.trim().split(',').filter_map(range).flatten().collect()
}

fn shown(cores: &[usize]) -> String {
    cores.iter().map(usize::to_string).collect::<Vec<_>>().join(",")
}

#[cfg(test)]
mod tests {
    use super::super::check::State;
    use super::*;

    #[test]
    fn lists_of_cpus() {
        assert_eq!(list("0-2,8\n"), [0, 1, 2, 8]);
        assert_eq!((list("3"), list(""), list("x-y")), (vec![3], vec![], vec![]));
    }

    #[test]
    fn interrupts_and_workers_are_apart() {
        let irqs = [(31, vec![0]), (32, vec![3])];
        let check = interrupts_apart(&irqs, &[0, 1, 2, 3], &[3]);
        let command = "for n in 32; do echo 0,1,2 > /proc/irq/$n/smp_affinity_list; done";
        assert_eq!((check.state, check.command.as_deref()), (State::Warn, Some(command)));
        assert_eq!(interrupts_apart(&irqs[..1], &[0, 3], &[3]).state, State::Ok);
        // Where all CPUs are workers' there is nowhere else to go.
        assert_eq!(interrupts_apart(&irqs, &[0, 3], &[0, 3]).state, State::Ok);
        assert_eq!((near_it(&[0, 1], &[1]).state, near_it(&[0, 1], &[3]).state), (State::Ok, State::Warn));
    }
}
