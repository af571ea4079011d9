//! One request as a handler sees it: who asks, checked parameters, the body; and the shapes of answers.
//!
//! API thread. What is wrong with a request is said here, in one way for all routes.

use std::fmt::Display;
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::time::SystemTime;

use axum::body::{Body, Bytes};
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE, HeaderValue};
use axum::http::{HeaderMap, Response, StatusCode};
use dataplane::source::Nanos;
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::App;
use super::auth::{Peer, Who};
use super::problem::{Kind, Problem};
use crate::time::When;

pub type Answer = Result<Response<Body>, Problem>;
pub type Answering = Pin<Box<dyn Future<Output = Answer> + Send>>;

/// Most items of one answer, and how many without a limit.
pub const ITEMS: usize = 500;
const USUAL: usize = 100;

pub struct Call {
    pub app: Arc<App>,
    pub who: Who,
    pub peer: Peer,
    pub headers: HeaderMap,
    /// Only the headers of the answer are wanted.
    pub head: bool,
    pub path: Vec<(String, String)>,
    pub params: Vec<(String, String)>,
    pub body: Bytes,
}

impl Call {
    /// What stands in the path for `{name}`.
    pub fn path(&self, name: &str) -> &str {
        let found = self.path.iter().find(|(key, _)| key == name);
        found.map_or("", |(_, value)| value)
    }

    pub fn param(&self, name: &str) -> Option<&str> {
        self.params.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }

    /// A parameter's value if it is given; `expects` says what it can be.
    pub fn parsed<T>(
        &self,
        name: &str,
        expects: &str,
        parse: impl Fn(&str) -> Option<T>,
    ) -> Result<Option<T>, Problem> {
        let Some(text) = self.param(name) else { return Ok(None) };
        parse(text).map(Some).ok_or_else(|| bad_parameter(name, text, expects))
    }

    pub fn number<T: TryFrom<u64>>(&self, name: &str, low: u64, high: u64) -> Result<Option<T>, Problem> {
        let expects = format!("a number from {low} to {high}");
        let parse = |text: &str| {
            let number = text.parse().ok().filter(|number| (low..=high).contains(number))?;
            T::try_from(number).ok()
        };
        self.parsed(name, &expects, parse)
    }

    pub fn limit(&self) -> Result<usize, Problem> {
        Ok(self.number("limit", 1, ITEMS as u64)?.unwrap_or(USUAL))
    }

    pub fn host(&self) -> Result<Option<IpAddr>, Problem> {
        self.parsed("host", "an IP address", |text| text.parse().ok())
    }

    /// A moment: ns since the epoch, RFC 3339, or how long ago.
    pub fn moment(&self, name: &str) -> Result<Option<Nanos>, Problem> {
        let parse = |text: &str| match text.parse() {
            Ok(ns) => Some(ns),
            Err(_) => When::parse(text).ok().map(|when| when.resolve(SystemTime::now())),
        };
        self.parsed(name, "ns since the epoch, a time like 2025-10-09T08:53:20Z, or how long ago: 15m", parse)
    }

    /// `since` and `until`, in this order.
    pub fn between(&self) -> Result<(Option<Nanos>, Option<Nanos>), Problem> {
        let (since, until) = (self.moment("since")?, self.moment("until")?);
        match (since, until) {
            (Some(since), Some(until)) if since > until => {
                let what = format!("`since` {since} is after `until` {until}");
                Err(Problem::new(Kind::BadParameter, what).help("exchange them"))
            }
            both => Ok(both),
        }
    }

    pub fn flow_id(&self, name: &str) -> Result<Option<u64>, Problem> {
        self.parsed(name, "16 hexadecimal digits", flow_id)
    }

    /// The body as what it should be.
    pub fn json<T: DeserializeOwned>(&self) -> Result<T, Problem> {
        serde_json::from_slice(&self.body).map_err(|error| {
            let what = format!("the body is not the JSON object that is taken here: {error}");
            Problem::new(Kind::BadBody, what).help("/api/v1/openapi.json has its members")
        })
    }
}

pub fn flow_id(text: &str) -> Option<u64> {
    let digits = text.len() == 16 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
    u64::from_str_radix(text, 16).ok().filter(|_| digits)
}

pub fn bad_parameter(name: &str, text: &str, expects: impl Display) -> Problem {
    let shown: String = text.chars().take(100).collect();
    Problem::new(Kind::BadParameter, format!("`{name}` is {shown:?}")).help(format!("give {expects}"))
}

pub fn text(status: StatusCode, kind: &'static str, body: impl Into<Body>) -> Response<Body> {
    let mut response = Response::new(body.into());
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

/// A JSON answer.
pub fn json(value: &impl Serialize) -> Answer {
    json_with(StatusCode::OK, value)
}

pub fn json_with(status: StatusCode, value: &impl Serialize) -> Answer {
    let body = serde_json::to_string(value)
        .map_err(|error| Problem::new(Kind::Internal, format!("the answer can't be written: {error}")))?;
    Ok(text(status, "application/json", body))
}
