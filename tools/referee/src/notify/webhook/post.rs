//! One request to a webhook, over HTTP/1.1, with TLS if its address says so: what came back, and whether it is worth trying
//! again. Tasks of the webhooks' thread.
//!
//! Redirects are not followed, so that what was meant for one host never goes to another. Messages name the host alone:
//! the rest of an address is often a secret.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use http_body_util::Full;
use hyper::body::Bytes;
use hyper::header::{CONTENT_TYPE, HOST, HeaderMap, HeaderName, HeaderValue, RETRY_AFTER, USER_AGENT};
use hyper::{Request, StatusCode, Uri};
use hyper_util::rt::TokioIo;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use sha2::{Digest, Sha256};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use crate::config::notify::WebhookConfig;
use crate::error::Failure;

/// Longest file of headers, secret or certificates read, bytes.
const FILE_LIMIT: u64 = 1 << 20;
/// Block of SHA-256, bytes.
const BLOCK: usize = 64;

/// Where and how one webhook is told.
pub struct Target {
    url: Uri,
    host: String,
    port: u16,
    headers: HeaderMap,
    secret: Option<Vec<u8>>,
    tls: Option<(TlsConnector, ServerName<'static>)>,
    timeout: Duration,
}

/// What came of a request.
#[derive(Debug, PartialEq, Eq)]
pub enum Outcome {
    Told,
    /// It may go better later, and when, if the other side said.
    Later(String, Option<Duration>),
    /// It won't.
    Refused(String),
}

impl Target {
    /// Reads what it needs from files.
    ///
    /// # Errors
    /// Usage: a file that can't be read, or isn't what it is to be.
    pub fn new(config: &WebhookConfig) -> Result<Target, Failure> {
        let wrong = |what: String| Failure::usage(format!("notify: {}: {what}", config.name));
        let url = config.url.clone();
        let secure = url.scheme_str() == Some("https");
        let host = url.host().unwrap_or_default().trim_matches(['[', ']']).to_owned();
        let port = url.port_u16().unwrap_or(if secure { 443 } else { 80 });
        let mut headers = HeaderMap::new();
        let authority = url.authority().map_or("", |authority| authority.as_str());
        headers.insert(HOST, HeaderValue::from_str(authority).map_err(|error| wrong(error.to_string()))?);
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        headers.insert(USER_AGENT, HeaderValue::from_static(concat!("referee/", env!("CARGO_PKG_VERSION"))));
        if let Some(path) = &config.header_file {
            let text = String::from_utf8(read(path).map_err(wrong)?).map_err(|_| {
                wrong(format!("{}: headers are text, a line each: Name: value", path.display()))
            })?;
            for line in text.lines().filter(|line| !line.trim().is_empty()) {
                let (name, value) = header(line).ok_or_else(|| {
                    // The line itself may hold a secret.
                    wrong(format!("{}: a line that is no header: write Name: value", path.display()))
                })?;
                headers.insert(name, value);
            }
        }
        let secret = config.secret_file.as_deref().map(read).transpose().map_err(wrong)?;
        let secret = secret.map(|secret| secret.trim_ascii().to_vec());
        let tls = secure.then(|| tls(&host, config.ca_file.as_deref())).transpose().map_err(wrong)?;
        Ok(Target { url, host, port, headers, secret, tls, timeout: config.timeout })
    }

    /// Tells it once. `key` is the same for the same news, so that the other side knows it when it comes twice.
    pub async fn post(&self, body: &Bytes, key: &str) -> Outcome {
        match tokio::time::timeout(self.timeout, self.exchange(body.clone(), key)).await {
            Ok(Ok((status, after))) => judge(&self.host, status, after),
            Ok(Err(error)) => Outcome::Later(format!("{}: {error}", self.host), None),
            Err(_) => {
                Outcome::Later(format!("{}: no answer within {} s", self.host, self.timeout.as_secs()), None)
            }
        }
    }

    async fn exchange(&self, body: Bytes, key: &str) -> Result<(StatusCode, Option<Duration>), String> {
        let request = self.request(body, key)?;
        let socket = TcpStream::connect((self.host.as_str(), self.port));
        let socket = socket.await.map_err(|error| error.to_string())?;
        match &self.tls {
            Some((connector, name)) => {
                let secured = connector.connect(name.clone(), socket).await;
                send(secured.map_err(|error| error.to_string())?, request).await
            }
            None => send(socket, request).await,
        }
    }

    fn request(&self, body: Bytes, key: &str) -> Result<Request<Full<Bytes>>, String> {
        let path = self.url.path_and_query().map_or("/", |path| path.as_str());
        let mut request = Request::post(path);
        if let Some(headers) = request.headers_mut() {
            headers.clone_from(&self.headers);
        }
        request = request.header("Idempotency-Key", key);
        if let Some(secret) = &self.secret {
            request = request.header("X-Referee-Signature", format!("sha256={}", hmac(secret, &body)));
        }
        request.body(Full::new(body)).map_err(|error| error.to_string())
    }
}

fn read(path: &Path) -> Result<Vec<u8>, String> {
    let failed = |error: std::io::Error| format!("{}: {error}", path.display());
    let size = std::fs::metadata(path).map_err(failed)?.len();
    match size <= FILE_LIMIT {
        true => std::fs::read(path).map_err(failed),
        false => Err(format!("{}: it has more than 1 MiB, so it is something else", path.display())),
    }
}

fn header(line: &str) -> Option<(HeaderName, HeaderValue)> {
    let (name, value) = line.split_once(':')?;
    let mut value = HeaderValue::from_str(value.trim()).ok()?;
    value.set_sensitive(true);
    Some((name.trim().parse().ok()?, value))
}

/// Trusts whom the system trusts, and those named.
fn tls(host: &str, more: Option<&Path>) -> Result<(TlsConnector, ServerName<'static>), String> {
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    if let Some(path) = more {
        let pem = read(path)?;
        let certificates: Vec<_> = CertificateDer::pem_slice_iter(&pem).filter_map(Result::ok).collect();
        if roots.add_parsable_certificates(certificates).0 == 0 {
            return Err(format!("{}: there is no certificate in it (PEM)", path.display()));
        }
    }
    if roots.is_empty() {
        return Err("this system trusts no certificates: install ca-certificates, or set ca_file".to_owned());
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    let config =
        config.map_err(|error| error.to_string())?.with_root_certificates(roots).with_no_client_auth();
    let name = ServerName::try_from(host.to_owned()).map_err(|error| error.to_string())?;
    Ok((TlsConnector::from(Arc::new(config)), name))
}

async fn send<S: AsyncRead + AsyncWrite + Send + Unpin + 'static>(
    socket: S,
    request: Request<Full<Bytes>>,
) -> Result<(StatusCode, Option<Duration>), String> {
    let shaken = hyper::client::conn::http1::handshake(TokioIo::new(socket)).await;
    let (mut sender, connection) = shaken.map_err(|error| error.to_string())?;
    let driver = tokio::spawn(connection);
    let answer = sender.send_request(request).await;
    // What the answer says beyond its head is nobody's business here.
    driver.abort();
    let answer = answer.map_err(|error| error.to_string())?;
    Ok((answer.status(), retry_after(answer.headers())))
}

/// In seconds; a date there is not read, and the usual wait taken.
fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    headers.get(RETRY_AFTER)?.to_str().ok()?.trim().parse().ok().map(Duration::from_secs)
}

fn judge(host: &str, status: StatusCode, after: Option<Duration>) -> Outcome {
    let said = format!("{host} says {status}");
    match status.as_u16() {
        200..=299 => Outcome::Told,
        408 | 425 | 429 | 500..=599 => Outcome::Later(said, after),
        300..=399 => Outcome::Refused(format!("{said}; redirects are not followed")),
        _ => Outcome::Refused(said),
    }
}

/// HMAC-SHA-256 (RFC 2104), in hex.
fn hmac(secret: &[u8], body: &[u8]) -> String {
    let mut key = [0; BLOCK];
    match key.get_mut(..secret.len()) {
        Some(front) => front.copy_from_slice(secret),
        None => {
            let short = Sha256::digest(secret);
            key.iter_mut().zip(short).for_each(|(byte, hashed)| *byte = hashed);
        }
    }
    let inner = Sha256::new().chain_update(key.map(|byte| byte ^ 0x36)).chain_update(body).finalize();
    let outer = Sha256::new().chain_update(key.map(|byte| byte ^ 0x5c)).chain_update(inner).finalize();
    outer.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signatures_are_those_of_rfc_4231() {
        let vectors: [(&[u8], &[u8], &str); 3] = [
            (&[0x0b; 20], b"Hi There", "b0344c61d8db38535ca8afceaf0bf12b881dc200c9833da726e9376c2e32cff7"),
            (
                b"Jefe",
                b"what do ya want for nothing?",
                "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843",
            ),
            (
                &[0xaa; 131],
                b"Test Using Larger Than Block-Size Key - Hash Key First",
                "60e431591ee0b67f0d8a26aacbf5b77f8e0bc6213728c5140546040f0ee37f54",
            ),
        ];
        for (secret, body, expected) in vectors {
            assert_eq!(hmac(secret, body), expected);
        }
    }

    #[test]
    fn what_is_worth_another_try() {
        let after = Some(Duration::from_secs(7));
        let of = |status: u16| judge("h", StatusCode::from_u16(status).unwrap(), after);
        assert_eq!((of(200), of(204)), (Outcome::Told, Outcome::Told));
        assert_eq!(of(429), Outcome::Later("h says 429 Too Many Requests".to_owned(), after));
        assert!([408, 500, 502, 503, 504].into_iter().all(|status| matches!(of(status), Outcome::Later(..))));
        assert!(
            [301, 400, 401, 404, 410].into_iter().all(|status| matches!(of(status), Outcome::Refused(_)))
        );
    }

    #[test]
    fn waiting_times_are_seconds() {
        let of = |value: &str| {
            retry_after(&[(RETRY_AFTER, HeaderValue::from_str(value).unwrap())].into_iter().collect())
        };
        assert_eq!(of("120"), Some(Duration::from_secs(120)));
        assert_eq!(
            (of("Fri, 31 Dec 1999 23:59:59 GMT"), of("-1"), retry_after(&HeaderMap::new())),
            (None, None, None)
        );
    }

    #[test]
    fn a_header_is_a_name_and_a_value() {
        let (name, value) = header("Authorization: Bearer a:b ").unwrap();
        assert_eq!((name.as_str(), value.to_str().unwrap()), ("authorization", "Bearer a:b"));
        assert!(["Authorization", "a b: c", "x: \u{7}"].into_iter().all(|line| header(line).is_none()));
    }
}
