//! The certificate that TCP clients see: the operator's own, or one made at the first start and kept.
//!
//! Main thread, before privileges are given up.

use std::fs;
use std::io::Write;
use std::net::SocketAddr;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::Path;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use rcgen::{CertificateParams, DnType, KeyPair};
use rustls::ServerConfig;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::settings::ApiConfig;
use crate::error::Failure;

/// How long a certificate made here holds, years, and how long before its end another is made, s.
const YEARS: i32 = 10;
const EARLY_S: u64 = 30 * 86_400;

/// Whom clients see.
#[derive(Debug)]
pub struct Identity {
    pub server: ServerConfig,
    /// SHA-256 of the certificate, as clients pin it.
    pub fingerprint: String,
}

/// Beside a certificate that was made here.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Made {
    names: Vec<String>,
    /// It holds until then, s since the epoch.
    until_s: u64,
}

impl Identity {
    /// The one of the settings, else that of an earlier start, else a new one.
    ///
    /// # Errors
    /// Usage: certificate or key can't be read, or don't fit; the folder can't be written to.
    pub fn of(config: &ApiConfig, listen: SocketAddr, hostname: &str) -> Result<Identity, Failure> {
        let (cert, key) = match (&config.cert, &config.key) {
            (Some(cert), Some(key)) => (cert.clone(), key.clone()),
            (None, None) => {
                let (cert, key) = (config.tls.join("cert.pem"), config.tls.join("key.pem"));
                let names = names(config, listen, hostname);
                if !holds(&config.tls, &names) || !cert.exists() || !key.exists() {
                    make(&config.tls, names)?;
                }
                (cert, key)
            }
            _ => return Err(Failure::usage("[api] cert and key belong together").help("name both, or none")),
        };
        read(&cert, &key)
    }
}

/// What the certificate is for.
fn names(config: &ApiConfig, listen: SocketAddr, hostname: &str) -> Vec<String> {
    let usual = ["localhost", "127.0.0.1", "::1", hostname].map(str::to_owned);
    let listened = (!listen.ip().is_unspecified()).then(|| listen.ip().to_string());
    let mut names: Vec<String> =
        usual.into_iter().chain(listened).chain(config.names.iter().cloned()).collect();
    names.retain(|name| !name.is_empty());
    names.sort();
    names.dedup();
    names
}

fn now_s() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

/// There is one for these names that holds for some time yet.
fn holds(folder: &Path, names: &[String]) -> bool {
    let made =
        fs::read(folder.join("made.json")).ok().and_then(|text| serde_json::from_slice::<Made>(&text).ok());
    made.is_some_and(|made| made.names == names && made.until_s > now_s() + EARLY_S)
}

fn make(folder: &Path, names: Vec<String>) -> Result<(), Failure> {
    let failed = |what: &dyn std::fmt::Display| {
        Failure::usage(format!("no certificate can be made in {}: {what}", folder.display()))
            .help("name a folder that this user may write to: [api] tls; or a certificate of your own: [api] cert, key")
    };
    let today = crate::time::utc(now_s() * 1_000_000_000);
    let part = |range: std::ops::Range<usize>| today.get(range).and_then(|digits| digits.parse::<i32>().ok());
    let year = part(0..4).unwrap_or(1970);
    // The 28th is in every month.
    let (month, day) = (part(5..7).unwrap_or(1), part(8..10).unwrap_or(1).min(28));
    let date =
        |year: i32| rcgen::date_time_ymd(year, month.try_into().unwrap_or(1), day.try_into().unwrap_or(1));
    let mut params = CertificateParams::new(names.clone()).map_err(|error| failed(&error))?;
    params.distinguished_name.push(DnType::CommonName, "Referee");
    (params.not_before, params.not_after) = (date(year - 1), date(year + YEARS));
    let key = KeyPair::generate().map_err(|error| failed(&error))?;
    let cert = params.self_signed(&key).map_err(|error| failed(&error))?;
    let until_s = now_s() + (YEARS as u64 * 365 - 31) * 86_400;
    let made = serde_json::to_string(&Made { names, until_s }).unwrap_or_default();
    let write = || {
        fs::DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
        // In this order: what is cut short in between is made anew at the next start.
        let _ = fs::remove_file(folder.join("made.json"));
        put(&folder.join("key.pem"), &key.serialize_pem())?;
        put(&folder.join("cert.pem"), &cert.pem())?;
        put(&folder.join("made.json"), &made)
    };
    write().map_err(|error| failed(&error))
}

/// For this user's eyes only.
fn put(path: &Path, text: &str) -> std::io::Result<()> {
    let beside = path.with_extension("new");
    let _ = fs::remove_file(&beside);
    let mut file = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&beside)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()?;
    fs::rename(&beside, path)
}

fn read(cert: &Path, key: &Path) -> Result<Identity, Failure> {
    let unread = |path: &Path, error: &dyn std::fmt::Display| {
        Failure::usage(format!("{}: {error}", path.display())).help("[api] cert and key name PEM files")
    };
    let chain: Result<Vec<CertificateDer<'static>>, _> =
        CertificateDer::pem_file_iter(cert).and_then(Iterator::collect);
    let chain = chain.map_err(|error| unread(cert, &error))?;
    let Some(first) = chain.first() else { return Err(unread(cert, &"there is no certificate in it")) };
    let fingerprint = fingerprint(first);
    let secret = PrivateKeyDer::from_pem_file(key).map_err(|error| unread(key, &error))?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let server = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .and_then(|builder| builder.with_no_client_auth().with_single_cert(chain, secret));
    let mut server = server.map_err(|error| unread(cert, &error))?;
    server.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(Identity { server, fingerprint })
}

/// "SHA256:ab12…", 64 hexadecimal digits.
pub fn fingerprint(cert: &CertificateDer<'_>) -> String {
    format!("SHA256:{}", super::auth::hex(&Sha256::digest(cert.as_ref())))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn a_certificate_is_made_once_for_its_names() {
        let folder = tempfile::tempdir().unwrap();
        let mut config = ApiConfig { tls: folder.path().join("tls"), ..ApiConfig::default() };
        let listen = "192.0.2.1:8443".parse().unwrap();
        let first = Identity::of(&config, listen, "box").unwrap().fingerprint;
        assert_eq!(first.len(), "SHA256:".len() + 64);
        for name in ["key.pem", "cert.pem"] {
            let mode = fs::metadata(config.tls.join(name)).unwrap().permissions().mode();
            assert_eq!(mode & 0o777, 0o600, "{name}");
        }
        assert_eq!(Identity::of(&config, listen, "box").unwrap().fingerprint, first);
        config.names.push("referee.example".to_owned());
        let second = Identity::of(&config, listen, "box").unwrap().fingerprint;
        assert_ne!(second, first);
        // Near its end.
        let made = config.tls.join("made.json");
        let mut was: Made = serde_json::from_slice(&fs::read(&made).unwrap()).unwrap();
        was.until_s = now_s() + EARLY_S - 5;
        fs::write(&made, serde_json::to_string(&was).unwrap()).unwrap();
        assert_ne!(Identity::of(&config, listen, "box").unwrap().fingerprint, second);
    }

    #[test]
    fn the_operators_own_is_taken_and_what_does_not_fit_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let (one, other) = (folder.path().join("one"), folder.path().join("other"));
        make(&one, vec!["one".to_owned()]).unwrap();
        make(&other, vec!["other".to_owned()]).unwrap();
        let listen = "127.0.0.1:1".parse().unwrap();
        let config = |cert: &Path, key: Option<&Path>| ApiConfig {
            cert: Some(cert.join("cert.pem")),
            key: key.map(|key| key.join("key.pem")),
            ..ApiConfig::default()
        };
        assert!(Identity::of(&config(&one, Some(&one)), listen, "box").is_ok());
        assert!(Identity::of(&config(&one, Some(&other)), listen, "box").is_err());
        assert!(Identity::of(&config(&one, None), listen, "box").is_err());
        let none = folder.path().join("none");
        assert!(Identity::of(&config(&none, Some(&one)), listen, "box").is_err());
    }
}
