//! A client, a router that misbehaves and a server, each a namespace with the kernel's own TCP, and a mirror port:
//!
//! ```text
//!   client 10.20.0.10 ---[wire0] router [wire1]--- server 10.50.1.10, .20 and .21 behind 1400 bytes, 10.50.2.0/24
//!                                  [wire2]
//!                                     |
//!                                    tap2     who listens here hears what passes wire0, in both directions
//! ```
//!
//! What comes in at wire0 is copied before the router judges it, what goes out after: so a SYN that the router loses
//! is heard once, and a reset that it makes as well.

use std::io::{self, Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4, TcpListener, TcpStream};
use std::process::{Command, Stdio};
use std::time::Duration;

use rustix::net::{AddressFamily, SocketType, bind, connect, socket, sockopt};
use tests::live::{Namespace, Shape, VethPair};

/// For what the other end's kernel has to do.
const PATIENCE: Duration = Duration::from_secs(30);

pub const SERVER: Ipv4Addr = Ipv4Addr::new(10, 50, 1, 10);

pub struct Network {
    pub client: Namespace,
    pub router: Namespace,
    pub server: Namespace,
    pub tap: Namespace,
    _wires: [VethPair; 3],
}

impl Network {
    /// Makes it, with these rules of nftables in the router and the client.
    ///
    /// # Errors
    /// In words, what this machine lacks for it.
    pub fn new(router_rules: &str, client_rules: &str) -> Result<Network, String> {
        for (tool, package) in [("nft", "nftables"), ("ethtool", "ethtool")] {
            if Command::new(tool).arg("--version").output().is_err() {
                return Err(format!("{tool} is not there; it is in Debian's package {package}"));
            }
        }
        let [client, router, server, tap] = [(); 4].map(|()| Namespace::new());
        let wires = [&client, &server, &tap].map(|end| VethPair::between(&router, end, Shape::default()));
        let network = Network { client, router, server, tap, _wires: wires };
        network.wirelike()?;
        network.addresses();
        nft(&network.router, MIRROR)?;
        nft(&network.router, router_rules)?;
        nft(&network.client, client_rules)?;
        Ok(network)
    }

    /// Data is cut into packets, with finished checksums, as on a wire.
    fn wirelike(&self) -> Result<(), String> {
        let ends = [
            (&self.router, "wire0"),
            (&self.router, "wire1"),
            (&self.router, "wire2"),
            (&self.client, "tap0"),
            (&self.server, "tap1"),
        ];
        for (space, end) in ends {
            let mut command = space.command("ethtool");
            done(command.args(["-K", end, "tx", "off"]), "")?;
        }
        Ok(())
    }

    fn addresses(&self) {
        let [client, router, server] = [&self.client, &self.router, &self.server];
        for last in [10, 66, 67, 68, 69] {
            client.ip(&["address", "add", &format!("10.20.0.{last}/24"), "dev", "tap0"]);
        }
        client.ip(&["route", "add", "default", "via", "10.20.0.1", "src", "10.20.0.10"]);
        router.ip(&["address", "add", "10.20.0.1/24", "dev", "wire0"]);
        router.ip(&["address", "add", "10.50.1.1/24", "dev", "wire1"]);
        router.ip(&["route", "add", "10.50.2.0/24", "via", "10.50.1.10"]);
        for last in [10, 20, 21] {
            server.ip(&["address", "add", &format!("10.50.1.{last}/24"), "dev", "tap1"]);
        }
        for narrow in ["10.50.1.20", "10.50.1.21"] {
            router.ip(&["route", "add", narrow, "dev", "wire1", "mtu", "1400"]);
        }
        server.ip(&["route", "add", "local", "10.50.2.0/24", "dev", "lo"]);
        server.ip(&["route", "add", "default", "via", "10.50.1.1"]);
        setting(router, "ip_forward", "1");
        for end in [client, server] {
            setting(end, "tcp_ecn", "1");
        }
        // Another than the router's own, so that who sent a reset can be told.
        setting(server, "ip_default_ttl", "128");
    }

    pub fn listen(&self, at: SocketAddrV4) -> TcpListener {
        self.server.run(|| TcpListener::bind(at).unwrap())
    }

    /// A connection's two ends.
    pub fn connected(&self, to: SocketAddrV4) -> (TcpStream, TcpStream) {
        let listener = self.listen(to);
        let client = self.connect(to, PATIENCE).unwrap();
        (client, patient(listener.accept().unwrap().0))
    }

    pub fn connect(&self, to: SocketAddrV4, patience: Duration) -> io::Result<TcpStream> {
        self.client.run(|| TcpStream::connect_timeout(&SocketAddr::V4(to), patience)).map(patient)
    }

    /// From an address and port of the client's; port 0 for any.
    pub fn connect_from(&self, from: SocketAddrV4, to: SocketAddrV4) -> io::Result<TcpStream> {
        self.client.run(|| {
            let end = socket(AddressFamily::INET, SocketType::STREAM, None)?;
            sockopt::set_socket_reuseaddr(&end, true)?;
            bind(&end, &from)?;
            connect(&end, &to)?;
            Ok(patient(TcpStream::from(end)))
        })
    }
}

fn patient(stream: TcpStream) -> TcpStream {
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.set_write_timeout(Some(PATIENCE)).unwrap();
    stream
}

/// So many bytes one way and as many back.
pub fn exchange(here: &mut TcpStream, there: &mut TcpStream, bytes: usize) {
    let mut data = vec![b'x'; bytes];
    here.write_all(&data).unwrap();
    there.read_exact(&mut data).unwrap();
    there.write_all(&data).unwrap();
    here.read_exact(&mut data).unwrap();
}

fn setting(space: &Namespace, name: &str, value: &str) {
    space.run(|| std::fs::write(format!("/proc/sys/net/ipv4/{name}"), value)).unwrap();
}

/// What sysctl would do, below `net.netfilter`.
pub fn conntrack(space: &Namespace, name: &str, value: &str) -> Result<(), String> {
    let path = format!("/proc/sys/net/netfilter/nf_conntrack_{name}");
    space.run(|| std::fs::write(&path, value)).map_err(|error| format!("{path}: {error}"))
}

fn nft(space: &Namespace, rules: &str) -> Result<(), String> {
    done(space.command("nft").args(["-f", "-"]), rules)
}

fn done(command: &mut Command, input: &str) -> Result<(), String> {
    let started = command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped()).spawn();
    let mut child = started.map_err(|error| format!("{command:?}: {error}"))?;
    child.stdin.take().unwrap().write_all(input.as_bytes()).map_err(|error| error.to_string())?;
    let output = child.wait_with_output().map_err(|error| error.to_string())?;
    match output.status.success() {
        true => Ok(()),
        false => Err(format!("{command:?}: {}", String::from_utf8_lossy(&output.stderr))),
    }
}

const MIRROR: &str = "table netdev mirror {
    chain from_client { type filter hook ingress device wire0 priority 0; dup to wire2; }
    chain to_client { type filter hook egress device wire0 priority 0; dup to wire2; }
}";
