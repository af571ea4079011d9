//! Networks for tests that need a real interface: namespaces and veth pairs of their own, gone when they are
//! dropped, also by a panic. Nothing here touches the host's own interfaces.
//!
//! A test begins with `if !need_root("its name") { return; }`. Names hold the process's id and a number, so
//! that parallel tests never meet; what a killed run left behind is removed by the next.

use std::fs;
use std::io::ErrorKind;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::Path;
use std::process::{self, Command};
use std::sync::Once;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread::{self, JoinHandle};

use rustix::net::{AddressFamily, SocketType, netdevice, socket};
use rustix::thread::{CapabilitySet, LinkNameSpaceType, capabilities, move_into_link_name_space};

const NAMESPACES: &str = "/run/netns";
const PREFIX: &str = "referee-test-";

/// True if this process may make namespaces and interfaces and load programs. Says on standard error what is
/// missing if not: then the test has nothing to try and passes.
#[allow(clippy::print_stderr, reason = "a test that skips says why")]
pub fn need_root(test: &str) -> bool {
    let missing = missing_privilege();
    if let Some(missing) = &missing {
        eprintln!("skipped: {test}: {missing}");
    }
    missing.is_none()
}

fn missing_privilege() -> Option<String> {
    let wanted = [
        (CapabilitySet::SYS_ADMIN, "CAP_SYS_ADMIN"),
        (CapabilitySet::NET_ADMIN, "CAP_NET_ADMIN"),
        (CapabilitySet::NET_RAW, "CAP_NET_RAW"),
        (CapabilitySet::BPF, "CAP_BPF"),
    ];
    let have = match capabilities(None) {
        Ok(sets) => sets.effective,
        Err(error) => return Some(format!("capabilities can't be read: {error}")),
    };
    let lacking: Vec<&str> =
        wanted.iter().filter(|(one, _)| !have.contains(*one)).map(|(_, name)| *name).collect();
    if !lacking.is_empty() {
        return Some(format!("needs root; this process lacks {}", lacking.join(", ")));
    }
    // Root of a user namespace has all capabilities and may load nothing.
    let map = fs::read_to_string("/proc/self/uid_map").unwrap_or_default();
    let host = map.split_whitespace().eq(["0", "0", "4294967295"]);
    (!host).then(|| "needs the host's root, and this is a user namespace".to_owned())
}

/// A network namespace, with loopback up and IPv6 off, so that no frame in it comes from the kernel itself.
#[derive(Debug)]
pub struct Namespace {
    name: String,
    pairs: AtomicU32,
    handle: OwnedFd,
}

impl Namespace {
    /// A namespace that nobody else has.
    pub fn new() -> Namespace {
        static LEFTOVERS: Once = Once::new();
        static COUNT: AtomicU32 = AtomicU32::new(0);
        LEFTOVERS.call_once(remove_leftovers);
        let name = format!("{PREFIX}{}-{}", process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        succeed(Command::new("ip").args(["netns", "add", &name]));
        let opened = fs::File::open(Path::new(NAMESPACES).join(&name));
        let Ok(file) = opened else {
            remove(&name);
            panic!("namespace {name} can't be opened: {opened:?}");
        };
        let namespace = Namespace { name, pairs: AtomicU32::new(0), handle: file.into() };
        namespace.ip(&["link", "set", "lo", "up"]);
        namespace.run(|| {
            for scope in ["all", "default"] {
                // A kernel without IPv6 has no such file, and nothing to turn off.
                let _ = fs::write(format!("/proc/sys/net/ipv6/conf/{scope}/disable_ipv6"), "1");
            }
        });
        namespace
    }

    pub fn name(&self) -> &str {
        &self.name
    }

    /// Runs `work` in a thread inside the namespace and waits for it; its panic becomes the caller's. Sockets
    /// opened and programs attached there stay there, wherever they are used afterwards. `/proc/net` and
    /// `/sys` keep showing the host; `/proc/thread-self/net` shows the namespace.
    pub fn run<R: Send>(&self, work: impl FnOnce() -> R + Send) -> R {
        let done = thread::scope(|scope| scope.spawn(|| self.enter(work)).join());
        done.unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    }

    /// Starts a thread inside the namespace.
    pub fn spawn<R: Send + 'static>(&self, work: impl FnOnce() -> R + Send + 'static) -> JoinHandle<R> {
        let handle = self.handle.try_clone().expect("a file can be duplicated");
        thread::spawn(move || {
            enter(&handle);
            work()
        })
    }

    fn enter<R>(&self, work: impl FnOnce() -> R) -> R {
        enter(&self.handle);
        work()
    }

    /// A program to be run inside the namespace; `/sys` keeps showing the host. Not by `ip netns exec`, which also
    /// changes mounts and can't where the root is none (in a chroot).
    pub fn command(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        inside(&self.name, program)
    }

    /// `ip` with these arguments inside the namespace; what it printed.
    pub fn ip(&self, arguments: &[&str]) -> String {
        succeed(self.command("ip").args(arguments))
    }

    /// The number of an interface in it.
    pub fn index(&self, interface: &str) -> u32 {
        let any = self.run(|| socket(AddressFamily::INET, SocketType::DGRAM, None));
        let any = any.expect("a socket can be opened");
        netdevice::name_to_index(any.as_fd(), interface)
            .unwrap_or_else(|error| panic!("{interface} in {}: {error}", self.name))
    }
}

impl Default for Namespace {
    fn default() -> Self {
        Namespace::new()
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        remove(&self.name);
    }
}

fn enter(namespace: &OwnedFd) {
    move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Network))
        .unwrap_or_else(|error| panic!("namespace {} can't be entered: {error}", namespace.as_raw_fd()));
}

fn inside(namespace: &str, program: impl AsRef<std::ffi::OsStr>) -> Command {
    let mut command = Command::new("nsenter");
    command.arg(format!("--net={NAMESPACES}/{namespace}")).arg(program);
    command
}

/// Deletes a namespace; that it is gone already is no reason to fail.
fn remove(name: &str) {
    let _ = Command::new("ip").args(["netns", "delete", name]).output();
}

/// Deletes the namespaces of test processes that are no more.
fn remove_leftovers() {
    let Ok(entries) = fs::read_dir(NAMESPACES) else { return };
    for entry in entries.flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let process = name.strip_prefix(PREFIX).and_then(|rest| rest.split('-').next()?.parse::<u32>().ok());
        if process.is_some_and(|id| !Path::new("/proc").join(id.to_string()).exists()) {
            remove(&name);
        }
    }
}

/// Runs a command that has to succeed; gives what it printed.
fn succeed(command: &mut Command) -> String {
    let output = command.output().unwrap_or_else(|error| match error.kind() {
        ErrorKind::NotFound => panic!("{command:?}: {error}; it is in Debian's package iproute2"),
        _ => panic!("{command:?}: {error}"),
    });
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}: {}: {errors}", output.status);
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// What a pair of interfaces is like.
#[derive(Clone, Copy, Debug)]
pub struct Shape {
    /// Receive and send queues of each end.
    pub queues: u32,
    pub mtu: u32,
}

impl Default for Shape {
    fn default() -> Self {
        Shape { queues: 1, mtu: 1500 }
    }
}

/// One end of a pair.
#[derive(Clone, Debug)]
pub struct End {
    pub name: String,
    pub index: u32,
}

/// Two interfaces joined by a wire, both up: what is sent into one arrives at the other.
#[derive(Debug)]
pub struct VethPair {
    pub wire: End,
    pub tap: End,
    namespace: String,
}

impl VethPair {
    /// Both ends in one namespace: `wireN` and `tapN`.
    pub fn new(namespace: &Namespace, shape: Shape) -> VethPair {
        VethPair::between(namespace, namespace, shape)
    }

    /// `wireN` in the first namespace, `tapN` in the second.
    pub fn between(here: &Namespace, there: &Namespace, shape: Shape) -> VethPair {
        // Each namespace may have pairs with others already.
        let number = here.pairs.load(Ordering::Relaxed).max(there.pairs.load(Ordering::Relaxed));
        here.pairs.store(number + 1, Ordering::Relaxed);
        there.pairs.store(number + 1, Ordering::Relaxed);
        let (wire, tap) = (format!("wire{number}"), format!("tap{number}"));
        let (queues, mtu) = (shape.queues.to_string(), shape.mtu.to_string());
        let sizes = ["mtu", &mtu, "numrxqueues", &queues, "numtxqueues", &queues];
        let mut add = vec!["link", "add", &wire];
        add.extend(sizes);
        add.extend(["type", "veth", "peer", "name", &tap, "netns", &there.name]);
        add.extend(sizes);
        here.ip(&add);
        let made = |namespace: &Namespace, name: &str| {
            namespace.ip(&["link", "set", name, "up"]);
            End { name: name.to_owned(), index: namespace.index(name) }
        };
        let (wire, tap) = (made(here, &wire), made(there, &tap));
        VethPair { wire, tap, namespace: here.name.clone() }
    }
}

impl Drop for VethPair {
    fn drop(&mut self) {
        // Fails if the namespace went first, and took the pair with it.
        let _ = inside(&self.namespace, "ip").args(["link", "delete", &self.wire.name]).output();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_network_is_gone_when_it_is_dropped_also_by_a_panic() {
        if !need_root("live networks") {
            return;
        }
        let name = thread::spawn(|| {
            let (here, there) = (Namespace::new(), Namespace::new());
            let pair = VethPair::between(&here, &there, Shape { queues: 2, mtu: 9000 });
            assert_eq!((pair.wire.name.as_str(), pair.tap.name.as_str()), ("wire0", "tap0"));
            assert_eq!(there.index("tap0"), pair.tap.index);
            assert!(there.ip(&["link", "show", "tap0"]).contains(" mtu 9000 "));
            let seen = here.run(|| fs::read_to_string("/proc/thread-self/net/dev").unwrap());
            assert!(seen.contains("wire0") && !seen.contains("tap0"), "{seen}");
            let addresses = here.ip(&["-6", "-o", "address"]);
            assert_eq!(addresses, "", "IPv6 is off");
            std::panic::panic_any(here.name().to_owned());
        });
        let name = *name.join().unwrap_err().downcast::<String>().unwrap();
        assert!(!Path::new(NAMESPACES).join(name).exists());
    }

    #[test]
    fn a_panic_inside_is_a_panic_outside() {
        if !need_root("live networks") {
            return;
        }
        let namespace = Namespace::new();
        let panic = thread::scope(|scope| scope.spawn(|| namespace.run(|| panic!("inside"))).join());
        assert_eq!(*panic.unwrap_err().downcast::<&str>().unwrap(), "inside");
        assert_eq!(namespace.spawn(|| 7).join().unwrap(), 7);
    }
}
