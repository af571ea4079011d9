//! `referee serve`: a store shown through the HTTP interface, without capturing anything.
//!
//! Main thread, which only waits for a signal; the api thread does the work and writes nothing but its downloads.

use std::io::Write as _;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use clap::Args;

use crate::access;
use crate::api::{self, Api, Backend};
use crate::board::{Board, BoxInfo};
use crate::captures::store_folder;
use crate::config::{Config, DEFAULT_PATH};
use crate::error::Failure;
use crate::live::owner;
use crate::live::signals::Signals;

const LOOK: Duration = Duration::from_millis(100);

#[derive(Args)]
pub struct ServeArgs {
    /// The store; without it, the one that referee.toml names
    #[arg(long, value_name = "DIR")]
    pub store: Option<PathBuf>,
    /// Settings ([api], and the store); without it those in /etc/referee/referee.toml, if it is there
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// The Unix socket to listen at
    #[arg(long, value_name = "PATH")]
    pub socket: Option<PathBuf>,
    /// Address and port for TCP, with TLS and the tokens of the settings; port 0 takes a free one
    #[arg(long, value_name = "ADDR:PORT")]
    pub listen: Option<SocketAddr>,
}

/// Serves until a signal comes.
///
/// # Errors
/// Usage: settings, or a place that can't be listened at. Failed: no store.
pub fn run(args: &ServeArgs) -> Result<(), Failure> {
    let installed = Path::new(DEFAULT_PATH);
    let settings = args.config.as_deref().or_else(|| installed.exists().then_some(installed));
    let mut config = Config::load(settings)?.api;
    config.socket = args.socket.clone().or(config.socket);
    config.listen = args.listen.or(config.listen);
    let store = store_folder(args.store.as_deref(), args.config.as_deref())?;
    access::store(&store)?;
    let info = info(false);
    let socket = config.socket(Path::new(api::DEFAULT_SOCKET));
    // A certificate that is made lies in the store.
    owner::settle_for(Some(&store), &[socket])?;
    let prepared = api::Prepared::new(&config, Path::new(api::DEFAULT_SOCKET), &info.hostname)?;
    let Some(prepared) = prepared else {
        return Err(Failure::usage("there is no place to listen at")
            .help("name one: --socket PATH, --listen ADDR:PORT"));
    };
    let signals = Signals::listen()?;
    let api = Api::spawn(
        prepared,
        Backend {
            board: Board::new(info),
            store: Some(store),
            requests: None,
            rules: None,
            interfaces: Vec::new(),
        },
    )?;
    ready();
    while !signals.came() {
        thread::sleep(LOOK);
    }
    api.stop();
    Ok(())
}

/// From here on it answers.
fn ready() {
    let _ = writeln!(std::io::stderr().lock(), "ready");
}

/// What there is to say of this host and process.
pub fn info(live: bool) -> BoxInfo {
    let hostname = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_nanos());
    BoxInfo { hostname: hostname.trim().to_owned(), started_ns: u64::try_from(now).unwrap_or(u64::MAX), live }
}
