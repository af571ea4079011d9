//! `[api]` as the rest of the program has it: where to listen, who may ask, how much.
//!
//! Plain values, made by `config`; main thread.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use super::auth::Token;

/// Where it listens unless another place is named.
pub const DEFAULT_SOCKET: &str = "/run/referee/api.sock";
/// Where the certificate is kept that is made at the first start.
pub const DEFAULT_TLS: &str = "/var/lib/referee/tls";

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ApiConfig {
    /// `None`: the usual place. Empty: no Unix socket.
    pub socket: Option<PathBuf>,
    /// A group whose members may use the socket besides its owner.
    pub group: Option<String>,
    /// TCP, with TLS and a token.
    pub listen: Option<SocketAddr>,
    /// Certificate chain and key in PEM; without both, a self-signed one is made.
    pub cert: Option<PathBuf>,
    pub key: Option<PathBuf>,
    /// Folder of the one that is made.
    pub tls: PathBuf,
    /// Names of this box besides its host name, for certificate and `Host` header.
    pub names: Vec<String>,
    pub tokens: Vec<Token>,
    /// Whether the role `read` may see packets.
    pub read_captures: bool,
    /// Disk space for downloads being prepared, bytes.
    pub spool_bytes: u64,
    pub requests_per_second: u32,
}

impl ApiConfig {
    /// The Unix socket; empty for none.
    pub fn socket<'a>(&'a self, usual: &'a Path) -> &'a Path {
        self.socket.as_deref().unwrap_or(usual)
    }
}

impl Default for ApiConfig {
    fn default() -> Self {
        ApiConfig {
            socket: None,
            group: None,
            listen: None,
            cert: None,
            key: None,
            tls: PathBuf::from(DEFAULT_TLS),
            names: Vec::new(),
            tokens: Vec::new(),
            read_captures: true,
            spool_bytes: 4096 << 20,
            requests_per_second: 20,
        }
    }
}
