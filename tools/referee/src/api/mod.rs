//! The HTTP interface: JSON under `/api/v1`, metrics, and the pages of a browser, through a Unix socket and, if asked for,
//! TCP with TLS and tokens.
//!
//! One thread of its own, with a few more for what reads files; niced, and beside the workers' CPUs. It reads what main
//! put on the [`Board`], what lies in the store, and asks the control thread; no worker, judge or writer waits for it.

mod accept;
pub mod assets;
pub mod auth;
mod body;
mod call;
mod captures;
mod demands;
mod download;
mod events;
mod flows;
mod incidents;
mod jobs;
pub mod kinds;
pub mod limits;
mod live;
pub mod packets;
mod problem;
mod routes;
mod rule_files;
mod rules;
mod server;
mod session;
mod settings;
mod spool;
mod system;
#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;
pub mod tls;

use std::path::PathBuf;
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use dataplane::source::Interface;
use tokio::runtime::{Builder, Runtime};
use tokio::sync::watch;

pub use self::server::Prepared;
pub use self::settings::{ApiConfig, DEFAULT_SOCKET};

use self::auth::Auth;
use self::limits::Limits;
use self::spool::Spool;
use crate::board::Board;
use crate::control::Live;
use crate::control::request::Requests;
use crate::error::Failure;
use crate::report::metrics::served::Requests as Served;
use crate::report::proof::Proofs;

/// Threads for what waits for a disk.
const BLOCKING: usize = 4;
/// How long a follower of packets has for the last of them, and how long anybody may go on once all is over.
const LAST_PACKETS: Duration = Duration::from_secs(3);
const LAST_WORD: Duration = Duration::from_millis(200);
const NICE: i32 = 10;

/// What there is to be asked.
pub struct Backend {
    pub board: Arc<Board>,
    /// The folder of the store.
    pub store: Option<PathBuf>,
    /// The control thread and the rules in force, of a run.
    pub requests: Option<Requests>,
    pub rules: Option<Arc<Live>>,
    /// Those that a run captures from.
    pub interfaces: Vec<Interface>,
}

/// What every handler has.
pub struct App {
    pub board: Arc<Board>,
    pub store: Option<PathBuf>,
    pub proofs: Option<Proofs>,
    pub requests: Option<Requests>,
    pub rules: Option<Arc<Live>>,
    pub interfaces: Vec<Interface>,
    pub config: ApiConfig,
    /// Where a browser on the network finds this; none without a TCP listener.
    pub url: Option<String>,
    /// The fingerprint of the certificate there.
    pub certificate: Option<String>,
    pub auth: Auth,
    pub limits: Limits,
    pub spool: Spool,
    /// How long requests took.
    pub served: Arc<Served>,
    /// True once all is over: who follows events is let go.
    pub over: watch::Receiver<bool>,
}

/// The thread, as its maker has it.
pub struct Api {
    over: watch::Sender<bool>,
    thread: JoinHandle<()>,
}

impl Api {
    /// Starts it, with what was prepared before privileges were given up.
    ///
    /// # Errors
    /// Failed: no thread can be made.
    pub fn spawn(prepared: Prepared, backend: Backend) -> Result<Api, Failure> {
        let failed =
            |error: std::io::Error| Failure::failed(format!("the api thread can't be made: {error}"));
        let runtime = Builder::new_current_thread()
            .enable_all()
            .max_blocking_threads(BLOCKING)
            .thread_name("api-job")
            .build()
            .map_err(failed)?;
        let (over, watching) = watch::channel(false);
        let Prepared { config, listeners, url, certificate } = prepared;
        let app = Arc::new(App { certificate, ..App::new(backend, config, url, watching) });
        let body = move || serve(runtime, app, listeners);
        let thread = thread::Builder::new().name("api".to_owned()).spawn(body).map_err(failed)?;
        Ok(Api { over, thread })
    }

    /// Ends it: who follows packets has the last of them; other connections are cut.
    pub fn stop(self) {
        let _ = self.over.send(true);
        let _ = self.thread.join();
    }
}

impl App {
    fn new(backend: Backend, config: ApiConfig, url: Option<String>, over: watch::Receiver<bool>) -> App {
        App {
            served: backend.board.requests(),
            board: backend.board,
            auth: Auth::new(config.tokens.clone()),
            limits: Limits::new(config.requests_per_second),
            spool: Spool::new(config.spool_bytes),
            proofs: backend.store.as_deref().map(Proofs::of),
            store: backend.store,
            requests: backend.requests,
            rules: backend.rules,
            interfaces: backend.interfaces,
            config,
            url,
            certificate: None,
            over,
        }
    }
}

fn serve(runtime: Runtime, app: Arc<App>, listeners: Vec<server::Listener>) {
    // Whoever captures comes first; a system that refuses this serves all the same.
    let _ = rustix::process::setpriority_process(None, NICE);
    let mut over = app.over.clone();
    let (router, limits) = (routes::router(&app), app.limits.clone());
    runtime.block_on(async move {
        for listener in listeners {
            tokio::spawn(server::listen(listener, router.clone()));
        }
        let _ = over.wait_for(|over| *over).await;
        let _ = tokio::time::timeout(LAST_PACKETS, limits.none_live()).await;
    });
    runtime.shutdown_timeout(LAST_WORD);
}
