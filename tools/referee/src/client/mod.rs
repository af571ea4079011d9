//! Asks a box through its HTTP API: over the Unix socket of this host, or over TLS with a token.
//!
//! The caller's thread, which waits: each request has a connection and a small runtime of its own, and nothing stays
//! behind. Bodies are read as they come, however long they are. Knows no command; what is asked for is the caller's.

mod body;
mod reach;
mod tls;

use std::io::{ErrorKind, Read};
use std::time::Duration;

use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::client::conn::http1;
use hyper::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, HOST, HeaderValue, USER_AGENT};
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use serde::de::DeserializeOwned;
use serde_json::Value;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};
use tokio::runtime::Builder;
use tokio::time::timeout;

use crate::access;
use crate::error::{Code, Failure};
use body::Body;
use reach::Place;
pub use reach::ReachArgs;

/// How long it takes at most until there is a connection, and until an answer begins: a job of the API may take 120 s.
const PATIENCE: (Duration, Duration) = (Duration::from_secs(10), Duration::from_secs(130));
/// Longest answer that is not a capture, bytes.
const ANSWER: u64 = 64 << 20;
/// Longest description of an error, bytes.
const PROBLEM: u64 = 64 << 10;

/// Where to ask, and as whom.
#[derive(Clone, Debug)]
pub struct Client {
    place: Place,
    patience: (Duration, Duration),
}

/// What came back: the request was taken, and this is what it brings.
pub struct Answer {
    pub body: Box<dyn Read + Send>,
}

impl Client {
    /// # Errors
    /// Usage: the address, the token's file or the fingerprint is none.
    pub fn reach(args: &ReachArgs) -> Result<Client, Failure> {
        Ok(Client { place: Place::of(args)?, patience: PATIENCE })
    }

    /// Waits no longer than this until there is a connection, and again until an answer begins.
    pub fn hurried(self, patience: Duration) -> Client {
        Client { patience: (patience, patience), ..self }
    }

    /// Asks for a path with its query, such as `/api/v1/version`.
    ///
    /// # Errors
    /// Failed: nobody answers, or what the box says is wrong. Usage: it is the question that is wrong.
    pub fn get(&self, path: &str) -> Result<Answer, Failure> {
        self.ask("GET", path, None)
    }

    /// # Errors
    /// As [`Client::get`]; failed: the answer is no JSON of this shape.
    pub fn json<T: DeserializeOwned>(&self, path: &str) -> Result<T, Failure> {
        let text = read(self.get(path)?.body, ANSWER)?;
        serde_json::from_slice(&text)
            .map_err(|error| self.failed(format!("answers {path} in another way: {error}")))
    }

    /// Has the box do something; null if it has nothing to say to that.
    ///
    /// # Errors
    /// As [`Client::json`].
    pub fn send(&self, method: &str, path: &str, json: &Value) -> Result<Value, Failure> {
        let text = read(self.ask(method, path, Some(json))?.body, ANSWER)?;
        match text.is_empty() {
            true => Ok(Value::Null),
            false => serde_json::from_slice(&text)
                .map_err(|error| self.failed(format!("answers {path} in another way: {error}"))),
        }
    }

    fn ask(&self, method: &str, path: &str, json: Option<&Value>) -> Result<Answer, Failure> {
        let request = self.request(method, path, json)?;
        let runtime = Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(|error| Failure::failed(format!("nobody can be asked: {error}")))?;
        let response = runtime.block_on(self.exchange(request))?;
        let status = response.status().as_u16();
        let body = Body::new(runtime, response.into_body());
        match status {
            200..=299 => Ok(Answer { body: Box::new(body) }),
            _ => Err(self.problem(status, body)),
        }
    }

    fn request(
        &self,
        method: &str,
        path: &str,
        json: Option<&Value>,
    ) -> Result<Request<Full<Bytes>>, Failure> {
        let body = json.map(Value::to_string).unwrap_or_default();
        let mut request = Request::builder()
            .method(method)
            .uri(path)
            .header(HOST, self.place.host())
            .header(USER_AGENT, concat!("referee/", env!("CARGO_PKG_VERSION")))
            .header(ACCEPT, "*/*");
        if json.is_some() {
            request = request.header(CONTENT_TYPE, "application/json");
        }
        if let Some(token) = self.place.token() {
            let mut value = HeaderValue::try_from(format!("Bearer {token}"))
                .map_err(|_| Failure::usage("the token holds what no token does").help("write it anew"))?;
            value.set_sensitive(true);
            request = request.header(AUTHORIZATION, value);
        }
        request
            .body(Full::new(Bytes::from(body)))
            .map_err(|error| Failure::usage(format!("{path} can't be asked for: {error}")))
    }

    /// One connection, one request; the head of its answer.
    async fn exchange(&self, request: Request<Full<Bytes>>) -> Result<Response<Incoming>, Failure> {
        let late = |_| self.unreachable("it does not answer");
        let connect = async {
            match &self.place {
                Place::Socket(path) => {
                    let stream = UnixStream::connect(path).await.map_err(|error| match error.kind() {
                        ErrorKind::PermissionDenied => access::denied(&self.place, path),
                        _ => self.unreachable(error),
                    })?;
                    self.begin(stream).await
                }
                Place::Remote { name, port, tls, .. } => {
                    let address = (name.to_str().into_owned(), *port);
                    let stream =
                        TcpStream::connect(address).await.map_err(|error| self.unreachable(error))?;
                    let stream =
                        tls.connect(name.clone(), stream).await.map_err(|error| self.untrusted(&error))?;
                    self.begin(stream).await
                }
            }
        };
        let mut sender = timeout(self.patience.0, connect).await.map_err(late)??;
        let answer = timeout(self.patience.1, sender.send_request(request)).await.map_err(late)?;
        answer.map_err(|error| self.failed(format!("ended the conversation: {error}")))
    }

    async fn begin<S>(&self, stream: S) -> Result<http1::SendRequest<Full<Bytes>>, Failure>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let talk = http1::handshake(TokioIo::new(stream)).await;
        let (sender, connection) = talk.map_err(|error| self.unreachable(error))?;
        // It is driven whenever somebody waits for the answer or reads it; its errors reach them.
        tokio::spawn(async move { drop(connection.await) });
        Ok(sender)
    }

    fn failed(&self, what: impl std::fmt::Display) -> Failure {
        Failure::failed(format!("{} {what}", self.place))
    }

    fn unreachable(&self, why: impl std::fmt::Display) -> Failure {
        let help = match &self.place {
            Place::Socket(_) => {
                "is one running, with its API on (systemctl status referee)? --socket or --url names another; the socket \
                 is for root, the user who runs it, and its group"
            }
            Place::Remote { .. } => {
                "is it running, with [api] listen set, and does a firewall let this host through?"
            }
        };
        Failure::failed(format!("{} can't be reached: {why}", self.place)).help(help)
    }

    fn untrusted(&self, error: &std::io::Error) -> Failure {
        let failure = Failure::failed(format!("{} is not trusted: {error}", self.place));
        failure.help("a run says its fingerprint when it begins (journalctl -u referee -g certificate): give --fingerprint")
    }

    /// What an answer that is no success says.
    fn problem(&self, status: u16, body: Body) -> Failure {
        let text = read(Box::new(body), PROBLEM).unwrap_or_default();
        let problem: Value = serde_json::from_slice(&text).unwrap_or_default();
        let field = |name: &str| problem.get(name).and_then(Value::as_str).map(str::to_owned);
        let code = if matches!(status, 400 | 401 | 403 | 404 | 405 | 413..=415 | 422) {
            Code::Usage
        } else {
            Code::Failed
        };
        let what =
            field("detail").or(field("title")).unwrap_or_else(|| format!("it answers with status {status}"));
        Failure { code, message: format!("{}: {what}", self.place), help: field("help") }
    }
}

/// Text as it stands in an address.
pub fn encoded(text: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte);
    text.bytes().fold(String::new(), |mut said, byte| {
        match plain(byte) {
            true => said.push(byte.into()),
            false => said.push_str(&format!("%{byte:02X}")),
        }
        said
    })
}

/// Reads an answer to its end.
fn read(body: Box<dyn Read + Send>, limit: u64) -> Result<Vec<u8>, Failure> {
    let mut text = Vec::new();
    body.take(limit)
        .read_to_end(&mut text)
        .map_err(|error| Failure::failed(format!("the answer broke off: {error}")))?;
    Ok(text)
}

#[cfg(test)]
mod tests;
