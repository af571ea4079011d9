//! Which box is meant: what can be said of it on a command line, checked.
//!
//! Main thread. Reads the token's file; asks nobody.

use std::fmt::{self, Display};
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use clap::Args;
use hyper::Uri;
use rustls::pki_types::ServerName;
use tokio_rustls::TlsConnector;

use super::tls;
use crate::error::Failure;

/// Where a run listens if nothing else is said.
const DEFAULT_SOCKET: &str = "/run/referee/api.sock";
/// Longest token, with the end of its line.
const TOKEN: u64 = 4096;

/// Which box to ask: this one, unless --url names another.
#[derive(Args, Clone, Debug, Default)]
pub struct ReachArgs {
    /// The API's socket of a run on this host [default: /run/referee/api.sock]
    #[arg(long, value_name = "PATH", conflicts_with = "url")]
    pub socket: Option<PathBuf>,
    /// Another box, such as https://box:8443
    #[arg(long, value_name = "URL", requires = "token_file")]
    pub url: Option<String>,
    /// The file that holds the token for it
    #[arg(long, value_name = "FILE", requires = "url")]
    pub token_file: Option<PathBuf>,
    /// SHA-256 of its certificate, if nobody vouches for that: it is said when a run begins
    #[arg(long, value_name = "HEX", requires = "url")]
    pub fingerprint: Option<String>,
}

/// The same, ready to connect to.
#[derive(Clone)]
pub enum Place {
    Socket(PathBuf),
    Remote { url: String, name: ServerName<'static>, port: u16, tls: TlsConnector, token: Option<String> },
}

impl Place {
    pub fn of(args: &ReachArgs) -> Result<Place, Failure> {
        let Some(url) = &args.url else {
            let socket = args.socket.clone().unwrap_or_else(|| DEFAULT_SOCKET.into());
            return Ok(Place::Socket(socket));
        };
        let (host, port) = host_and_port(url)?;
        let name = ServerName::try_from(host.clone())
            .map_err(|_| Failure::usage(format!("{url}: {host} is no name or address of a host")))?;
        let pinned = args.fingerprint.as_deref().map(tls::fingerprint).transpose()?;
        let token = args.token_file.as_deref().map(token).transpose()?;
        Ok(Place::Remote { url: url.clone(), name, port, tls: tls::connector(pinned)?, token })
    }

    /// As the request names it.
    pub fn host(&self) -> String {
        match self {
            Place::Socket(_) => "localhost".to_owned(),
            Place::Remote { url, .. } => {
                url.parse::<Uri>().ok().and_then(|uri| Some(uri.authority()?.to_string())).unwrap_or_default()
            }
        }
    }

    pub fn token(&self) -> Option<&str> {
        match self {
            Place::Socket(_) => None,
            Place::Remote { token, .. } => token.as_deref(),
        }
    }
}

impl Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Place::Socket(path) => write!(f, "the run at {}", path.display()),
            Place::Remote { url, .. } => write!(f, "the box at {url}"),
        }
    }
}

impl fmt::Debug for Place {
    /// Without its token.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

fn host_and_port(url: &str) -> Result<(String, u16), Failure> {
    let refused = |why: &str| Failure::usage(format!("{url}: {why}")).help("write it like https://box:8443");
    let uri: Uri = url.parse().map_err(|_| refused("this is no URL"))?;
    if uri.scheme_str() != Some("https") {
        return Err(refused("a token is sent by https only"));
    }
    if !uri.path().trim_end_matches('/').is_empty() || uri.query().is_some() {
        return Err(refused("only the box is named, no page of it"));
    }
    if uri.authority().is_some_and(|authority| authority.as_str().contains('@')) {
        return Err(refused("no user is named: the token says who asks"));
    }
    let host = uri.host().filter(|host| !host.is_empty()).ok_or_else(|| refused("it names no host"))?;
    let host = host.trim_start_matches('[').trim_end_matches(']');
    Ok((host.to_owned(), uri.port_u16().unwrap_or(443)))
}

/// A token is one line that only its owner, and perhaps the group, can read.
fn token(path: &Path) -> Result<String, Failure> {
    let refused = |why: &str| Failure::usage(format!("the token's file {}: {why}", path.display()));
    let known = fs::metadata(path).map_err(|error| refused(&error.to_string()))?;
    if known.permissions().mode() & 0o004 != 0 {
        return Err(refused("everybody can read it").help(format!("chmod 600 {}", path.display())));
    }
    if known.len() > TOKEN {
        return Err(refused("it is too long for a token"));
    }
    let text = fs::read_to_string(path).map_err(|error| refused(&error.to_string()))?;
    match text.trim() {
        "" => Err(refused("it is empty").help("`referee token NAME --role read` on the box makes one")),
        line if line.lines().count() > 1 => Err(refused("it has more than one line")),
        line => Ok(line.to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_box_is_named_by_its_url() {
        let named = |url: &str| host_and_port(url).map_err(|failure| failure.message);
        assert_eq!(named("https://box:8443"), Ok(("box".into(), 8443)));
        assert_eq!(named("https://10.0.0.1/"), Ok(("10.0.0.1".into(), 443)));
        assert_eq!(named("https://[2001:db8::1]:8443"), Ok(("2001:db8::1".into(), 8443)));
        for wrong in [
            "box",
            "http://box",
            "https://",
            "https://box/api",
            "https://me:secret@box",
            "https://box?a=b",
            "",
        ] {
            assert!(named(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_token_that_everybody_can_read_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("token");
        let write = |text: &str, mode: u32| {
            fs::write(&path, text).unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
            token(&path).map_err(|failure| failure.message)
        };
        assert_eq!(write("abc\n", 0o600), Ok("abc".into()));
        assert!(write("abc\n", 0o644).unwrap_err().ends_with("everybody can read it"));
        assert!(write(" \n", 0o600).unwrap_err().ends_with("it is empty"));
        assert!(write("a\nb\n", 0o640).unwrap_err().ends_with("more than one line"));
        assert!(token(Path::new("/nonexistent")).is_err());
    }

    #[test]
    fn a_token_is_never_shown() {
        let args = ReachArgs { url: Some("https://box".into()), ..ReachArgs::default() };
        let Place::Remote { url, name, port, tls, .. } = Place::of(&args).unwrap() else {
            panic!("not remote")
        };
        let place = Place::Remote { url, name, port, tls, token: Some("secret".into()) };
        assert_eq!(format!("{place:?} {place}"), "the box at https://box the box at https://box");
    }
}
