//! Every answer that is none: RFC 9457 objects, each kind with its status, so that a client can tell them apart.
//!
//! API thread. The table below is all there are; docs/api.md lists it.

use axum::body::Body;
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE, HeaderName, HeaderValue};
use axum::http::{Response, StatusCode};
use serde_json::{Map, Value, json};

/// Kind, status, title.
pub const KINDS: [(Kind, &str, u16, &str); 32] = [
    (Kind::BadParameter, "bad-parameter", 400, "a parameter is not understood"),
    (Kind::BadBody, "bad-body", 400, "the body is not understood"),
    (Kind::BadExpression, "bad-expression", 400, "the expression can't be captured by"),
    (Kind::BadHost, "bad-host", 400, "the Host header names none of this box's names"),
    (Kind::Unauthorized, "unauthorized", 401, "a token is needed"),
    (Kind::Forbidden, "forbidden", 403, "this token may not do that"),
    (Kind::NotFound, "not-found", 404, "there is nothing at this path"),
    (Kind::NoSuchIncident, "no-such-incident", 404, "there is no such incident"),
    (Kind::NoSuchFlow, "no-such-flow", 404, "there is no such flow"),
    (Kind::NoSuchRule, "no-such-rule", 404, "there is no such rule"),
    (Kind::NoSuchRuleFile, "no-such-rule-file", 404, "there is no such rule file"),
    (Kind::NoSuchDemand, "no-such-demand", 404, "there is no such capture on demand"),
    (Kind::NothingKept, "nothing-kept", 404, "no packet is kept of this"),
    (Kind::MethodNotAllowed, "method-not-allowed", 405, "this path does not take that method"),
    (Kind::NotAcceptable, "not-acceptable", 406, "what is here is of none of the types asked for"),
    (Kind::BodyTimeout, "body-timeout", 408, "the body took too long to come"),
    (Kind::NoRun, "no-run", 409, "no capture is under way here"),
    (Kind::NoStore, "no-store", 409, "nothing is recorded here"),
    (Kind::StoreUnreadable, "store-unreadable", 409, "the store can't be read"),
    (Kind::NoRulesFolder, "no-rules-folder", 409, "the run has no folder of rules to change"),
    (Kind::RulesUnwritable, "rules-unwritable", 409, "the folder of the rules can't be written to"),
    (Kind::NoRoom, "no-room", 409, "there is no room to prepare this download"),
    (Kind::Busy, "busy", 409, "the run has not answered in time"),
    (Kind::BodyTooLarge, "body-too-large", 413, "the body is larger than what is taken"),
    (Kind::UriTooLong, "uri-too-long", 414, "the address is longer than what is taken"),
    (Kind::UnsupportedMediaType, "unsupported-media-type", 415, "the body's type is not what is taken here"),
    (Kind::BadRange, "bad-range", 416, "the file has no such bytes"),
    (Kind::RulesRefused, "rules-refused", 422, "the rules have mistakes"),
    (Kind::TooMany, "too-many-requests", 429, "too many at once"),
    (Kind::HeadersTooLarge, "headers-too-large", 431, "the header lines are more than what is taken"),
    (Kind::Internal, "internal", 500, "a fault of Referee's own"),
    (Kind::Full, "full", 503, "as many connections are open as may be"),
];

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    BadParameter,
    BadBody,
    BadExpression,
    BadHost,
    Unauthorized,
    Forbidden,
    NotFound,
    NoSuchIncident,
    NoSuchFlow,
    NoSuchRule,
    NoSuchRuleFile,
    NoSuchDemand,
    NothingKept,
    MethodNotAllowed,
    NotAcceptable,
    BodyTimeout,
    NoRun,
    NoStore,
    StoreUnreadable,
    NoRulesFolder,
    RulesUnwritable,
    NoRoom,
    Busy,
    BodyTooLarge,
    UriTooLong,
    UnsupportedMediaType,
    BadRange,
    RulesRefused,
    TooMany,
    HeadersTooLarge,
    Internal,
    Full,
}

impl Kind {
    fn row(self) -> (&'static str, u16, &'static str) {
        let row = KINDS.iter().find(|(kind, ..)| *kind == self);
        row.map_or(("internal", 500, "a fault of Referee's own"), |&(_, name, status, title)| {
            (name, status, title)
        })
    }
}

/// Why there is no answer.
#[derive(Clone, Debug)]
pub struct Problem {
    pub kind: Kind,
    detail: String,
    help: Option<String>,
    /// Members of its own.
    more: Map<String, Value>,
    headers: Vec<(HeaderName, HeaderValue)>,
}

impl Problem {
    pub fn new(kind: Kind, detail: impl Into<String>) -> Problem {
        Problem { kind, detail: detail.into(), help: None, more: Map::new(), headers: Vec::new() }
    }

    pub fn help(self, help: impl Into<String>) -> Problem {
        Problem { help: Some(help.into()), ..self }
    }

    pub fn with(mut self, name: &str, value: Value) -> Problem {
        self.more.insert(name.to_owned(), value);
        self
    }

    pub fn header(mut self, name: HeaderName, value: &str) -> Problem {
        self.headers.extend(HeaderValue::from_str(value).ok().map(|value| (name, value)));
        self
    }

    #[cfg(test)]
    pub fn status(&self) -> u16 {
        self.kind.row().1
    }

    /// As it goes out; `instance` is the path that was asked for.
    pub fn respond(self, instance: &str) -> Response<Body> {
        let (name, status, title) = self.kind.row();
        let mut object = json!({
            "type": format!("/problems/{name}"), "title": title, "status": status, "detail": self.detail,
            "help": self.help, "instance": instance,
        });
        if let Some(members) = object.as_object_mut() {
            members.extend(self.more);
        }
        let mut response = Response::new(Body::from(object.to_string()));
        *response.status_mut() = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
        headers.extend(self.headers);
        response
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_kind_has_its_row() {
        for (kind, name, status, _) in KINDS {
            assert_eq!((kind.row().0, kind.row().1), (name, status));
        }
    }
}
