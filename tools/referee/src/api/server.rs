//! Where clients come in: a Unix socket and a TCP port, the limits on connections, the time each may take.
//!
//! Made on main before privileges are given up; then API thread, a task a connection. Whoever comes in is a [`Peer`] for
//! `routes`.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::http::Response;
use axum::http::header::RETRY_AFTER;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::{Service, service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use rustls::ServerConfig;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_rustls::TlsAcceptor;

use super::auth::Peer;
use super::body::Patient;
use super::problem::{Kind, Problem};
use super::routes::finish;
use super::settings::{ApiConfig, DEFAULT_SOCKET};
use super::{limits, tls};
use crate::control::socket;
use crate::error::Failure;
use crate::term;

/// Largest header section of a request, and its lines, that is read; `routes` refuses less, in words.
const BUFFER: usize = 64 << 10;
const HEADERS: usize = 400;
/// After a failed accept, such as for want of descriptors.
const PAUSE: Duration = Duration::from_millis(100);

/// One place that is listened at.
pub enum Listener {
    Unix(UnixListener, SocketFile),
    Tcp(TcpListener, Arc<ServerConfig>),
}

/// A socket's file, which goes with it, unless somebody else has put another there.
pub struct SocketFile {
    path: PathBuf,
    identity: Option<(u64, u64)>,
}

impl SocketFile {
    fn new(path: &Path) -> SocketFile {
        SocketFile { path: path.to_path_buf(), identity: identity(path) }
    }
}

fn identity(path: &Path) -> Option<(u64, u64)> {
    std::fs::symlink_metadata(path).ok().map(|meta| (meta.dev(), meta.ino()))
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        if self.identity.is_some() && identity(&self.path) == self.identity {
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

/// What has to be made before privileges are given up.
pub struct Prepared {
    pub(super) config: ApiConfig,
    pub(super) listeners: Vec<Listener>,
    pub(super) url: Option<String>,
    /// The fingerprint of the certificate there.
    pub(super) certificate: Option<String>,
}

impl Prepared {
    /// Binds what the settings name, and says where. `usual` is the Unix socket without settings; that it can't be made is
    /// said, and no failure. `None` if there is nothing to listen at.
    ///
    /// # Errors
    /// Usage: a place that was asked for, a certificate or a group that can't be had; TCP without a token.
    pub fn new(config: &ApiConfig, usual: &Path, hostname: &str) -> Result<Option<Prepared>, Failure> {
        let mut listeners = Vec::new();
        let asked = config.socket.as_deref();
        let socket = config.socket(usual);
        if !socket.as_os_str().is_empty() {
            match bind(socket, config.group.as_deref()) {
                Ok(listener) => {
                    listeners.push(Listener::Unix(listener, SocketFile::new(socket)));
                    if asked.is_some() {
                        term::note(&format!("api: {}", socket.display()));
                    }
                }
                Err(error) if asked.is_none() => {
                    let place = socket.display();
                    term::note(&format!(
                        "{place}: {error}; the API can't be reached there ([api] socket names another place)"
                    ));
                }
                Err(error) => {
                    let what = format!("[api] socket {}: {error}", socket.display());
                    return Err(Failure::usage(what)
                        .help("name a path that can be made, and that no other run listens at"));
                }
            }
        }
        let (mut url, mut certificate) = (None, None);
        if let Some(addr) = config.listen {
            let (listener, bound, fingerprint) = secure(config, addr, hostname)?;
            certificate = Some(fingerprint);
            let host = if bound.ip().is_unspecified() { hostname.to_owned() } else { host(bound) };
            url = Some(format!("https://{host}:{}", bound.port()));
            listeners.push(listener);
        }
        let prepared = Prepared { config: config.clone(), listeners, url, certificate };
        Ok((!prepared.listeners.is_empty()).then_some(prepared))
    }
}

fn host(addr: SocketAddr) -> String {
    match addr {
        SocketAddr::V4(addr) => addr.ip().to_string(),
        SocketAddr::V6(addr) => format!("[{}]", addr.ip()),
    }
}

fn secure(
    config: &ApiConfig,
    addr: SocketAddr,
    hostname: &str,
) -> Result<(Listener, SocketAddr, String), Failure> {
    if config.tokens.is_empty() {
        return Err(Failure::usage(
            "[api] listen: TCP is served to those with a token only, and there is none",
        )
        .help(
            "`referee token NAME --role read` makes one, and the lines of [[api.token]] for the settings",
        ));
    }
    let identity = tls::Identity::of(config, addr, hostname)?;
    let listener = TcpListener::bind(addr);
    let bound = listener.and_then(|listener| listener.local_addr().map(|bound| (listener, bound)));
    let (listener, bound) = bound.map_err(|error| {
        Failure::usage(format!("[api] listen {addr}: {error}"))
            .help("name an address of this host and a free port")
    })?;
    term::note(&format!(
        "api: https://{}:{}, certificate {}",
        host(bound),
        bound.port(),
        identity.fingerprint
    ));
    Ok((Listener::Tcp(listener, Arc::new(identity.server)), bound, identity.fingerprint))
}

/// The Unix socket: for its owner and its group.
fn bind(path: &Path, group: Option<&str>) -> Result<UnixListener, String> {
    let said = |error: io::Error| error.to_string();
    if path == Path::new(DEFAULT_SOCKET)
        && let Some(folder) = path.parent().filter(|folder| !folder.exists())
    {
        std::fs::DirBuilder::new().mode(0o755).create(folder).map_err(said)?;
    }
    // Narrow, until the group is that which is meant.
    let listener = socket::listen(path).map_err(said)?;
    if let Some(group) = group {
        let gid = group_id(group).ok_or_else(|| format!("there is no group {group}"))?;
        std::os::unix::fs::chown(path, None, Some(gid)).map_err(said)?;
    }
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o660)).map_err(said)?;
    Ok(listener)
}

/// By number or by its name in /etc/group.
fn group_id(group: &str) -> Option<u32> {
    let listed = |line: &str| {
        let mut fields = line.split(':');
        (fields.next() == Some(group)).then(|| fields.nth(1)?.parse().ok()).flatten()
    };
    group.parse().ok().or_else(|| std::fs::read_to_string("/etc/group").ok()?.lines().find_map(listed))
}

/// Takes clients in until the runtime ends.
pub async fn listen(listener: Listener, router: Router) {
    let door = Door::new();
    let listened = match listener {
        Listener::Unix(listener, _file) => unix(listener, router, &door).await,
        Listener::Tcp(listener, tls) => tcp(listener, TlsAcceptor::from(tls), router, &door).await,
    };
    if let Err(error) = listened {
        term::note(&format!("the API can't listen any more: {error}"));
    }
}

/// How many are in, and how many stand in the door to be told that there is no place.
struct Door {
    places: Arc<Semaphore>,
    refusals: Arc<Semaphore>,
}

/// A place, and whether it is one of those within.
struct Place {
    _permit: OwnedSemaphorePermit,
    inside: bool,
}

impl Door {
    fn new() -> Door {
        let [places, refusals] =
            [limits::CONNECTIONS, limits::REFUSALS].map(|many| Arc::new(Semaphore::new(many)));
        Door { places, refusals }
    }

    /// `None`: so many come that there is no time to answer each.
    fn enter(&self) -> Option<Place> {
        let take = |from: &Arc<Semaphore>| Arc::clone(from).try_acquire_owned().ok();
        let inside = take(&self.places).map(|permit| Place { _permit: permit, inside: true });
        inside.or_else(|| take(&self.refusals).map(|permit| Place { _permit: permit, inside: false }))
    }
}

/// What finds no place is told so, and when to come again.
fn full() -> Response<Body> {
    let problem = Problem::new(Kind::Full, format!("{} connections are open", limits::CONNECTIONS))
        .help("close some, or come again")
        .header(RETRY_AFTER, "1");
    finish(problem.respond("/"))
}

async fn refuse<S: AsyncRead + AsyncWrite + Unpin + Send + 'static>(stream: S) {
    let service = service_fn(|_| std::future::ready(Ok::<_, std::convert::Infallible>(full())));
    let connection = http1::Builder::new()
        .keep_alive(false)
        .max_buf_size(BUFFER)
        .serve_connection(TokioIo::new(stream), service);
    let _ = tokio::time::timeout(limits::REFUSAL_TIME, connection).await;
}

async fn unix(listener: UnixListener, router: Router, door: &Door) -> io::Result<()> {
    listener.set_nonblocking(true)?;
    let listener = tokio::net::UnixListener::from_std(listener)?;
    loop {
        let Ok((stream, _)) = listener.accept().await else {
            tokio::time::sleep(PAUSE).await;
            continue;
        };
        // Who finds no place even in the door is let go at once: it knows better than by waiting.
        let Some(place) = door.enter() else { continue };
        let uid = stream.peer_cred().map_or(u32::MAX, |cred| cred.uid());
        let router = router.clone();
        tokio::spawn(async move {
            match place.inside {
                true => serve(stream, Peer::Unix { uid }, router).await,
                false => refuse(stream).await,
            }
            drop(place);
        });
    }
}

async fn tcp(listener: TcpListener, tls: TlsAcceptor, router: Router, door: &Door) -> io::Result<()> {
    listener.set_nonblocking(true)?;
    let listener = tokio::net::TcpListener::from_std(listener)?;
    loop {
        let Ok((stream, from)) = listener.accept().await else {
            tokio::time::sleep(PAUSE).await;
            continue;
        };
        let Some(place) = door.enter() else { continue };
        let (tls, router) = (tls.clone(), router.clone());
        tokio::spawn(async move {
            let _ = stream.set_nodelay(true);
            // One that says nothing, or no TLS, holds up nobody else.
            let patience = if place.inside { limits::HEADER_TIME } else { limits::REFUSAL_TIME };
            if let Ok(Ok(stream)) = tokio::time::timeout(patience, tls.accept(stream)).await {
                match place.inside {
                    true => serve(stream, Peer::Tcp(from.ip()), router).await,
                    false => refuse(stream).await,
                }
            }
            drop(place);
        });
    }
}

async fn serve<S: AsyncRead + AsyncWrite + Unpin + Send + 'static>(stream: S, peer: Peer, router: Router) {
    let stream = TokioIo::new(Patient::new(stream, limits::READER_TIME));
    let inner = TowerToHyperService::new(router);
    let service = service_fn(move |mut request: hyper::Request<Incoming>| {
        request.extensions_mut().insert(peer);
        inner.call(request.map(Body::new))
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(limits::HEADER_TIME)
        .max_buf_size(BUFFER)
        .max_header_size(BUFFER)
        .max_headers(HEADERS)
        .serve_connection(stream, service);
    // How a client leaves is its business.
    let _ = connection.await;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_finds_no_place_is_told_and_one_who_comes_later_is_let_in() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let door = Door::new();
            let mut inside: Vec<_> = (0..limits::CONNECTIONS).map(|_| door.enter().unwrap()).collect();
            assert!(inside.iter().all(|place| place.inside));
            let waiting: Vec<_> = (0..limits::REFUSALS).map(|_| door.enter().unwrap()).collect();
            assert!(waiting.iter().all(|place| !place.inside) && door.enter().is_none());
            inside.pop();
            assert!(door.enter().unwrap().inside);
        });
    }

    #[test]
    fn the_answer_at_the_door_is_a_problem_of_its_own() {
        use tokio::io::{AsyncReadExt, AsyncWriteExt};
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let text = runtime.block_on(async {
            let (mut client, server) = tokio::io::duplex(64 << 10);
            client.write_all(b"GET /api/v1/incidents HTTP/1.1\r\nhost: box\r\n\r\n").await.unwrap();
            let served = tokio::spawn(refuse(server));
            let mut text = String::new();
            client.read_to_string(&mut text).await.unwrap();
            served.await.unwrap();
            text
        });
        assert!(text.starts_with("HTTP/1.1 503 Service Unavailable\r\n"), "{text}");
        for part in ["application/problem+json", "retry-after: 1\r\n", "connection: close", "/problems/full"]
        {
            assert!(text.contains(part), "{part}: {text}");
        }
    }
}
