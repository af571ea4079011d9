//! Which path is whose: one table a file, from which the router is made; and what is done for every request before its
//! handler and after: who asks, how often, with what parameters and body, and what goes out when something is wrong.
//!
//! API thread.

use std::panic::AssertUnwindSafe;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::{FromRequestParts, Query, RawPathParams};
use axum::http::header::{ALLOW, CONTENT_LENGTH, CONTENT_TYPE, HOST, HeaderName, HeaderValue};
use axum::http::request::Parts;
use axum::http::{HeaderMap, Method, Request, Response, Uri};
use axum::routing::{MethodFilter, MethodRouter, on};
use http_body_util::{BodyExt, LengthLimitError, Limited};

use super::App;
use super::accept;
use super::auth::{Peer, Role, Who};
use super::call::{Answer, Answering, Call, bad_parameter};
use super::limits;
use super::problem::{Kind, Problem};
use crate::report::metrics::served::OTHER;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verb {
    Get,
    Post,
    Put,
    Delete,
}

impl Verb {
    pub const fn name(self) -> &'static str {
        match self {
            Verb::Get => "GET",
            Verb::Post => "POST",
            Verb::Put => "PUT",
            Verb::Delete => "DELETE",
        }
    }

    const fn filter(self) -> MethodFilter {
        match self {
            Verb::Get => MethodFilter::GET,
            Verb::Post => MethodFilter::POST,
            Verb::Put => MethodFilter::PUT,
            Verb::Delete => MethodFilter::DELETE,
        }
    }
}

/// The body a route takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Takes {
    Nothing,
    Json,
    Text,
}

impl Takes {
    const fn kind(self) -> Option<&'static str> {
        match self {
            Takes::Nothing => None,
            Takes::Json => Some("application/json"),
            Takes::Text => Some("text/plain"),
        }
    }
}

const JSON: &[&str] = &["application/json"];

/// One route.
pub struct Route {
    pub verb: Verb,
    pub path: &'static str,
    pub role: Role,
    /// Names of the parameters after the `?`.
    pub params: &'static [&'static str],
    pub takes: Takes,
    /// Types of what it answers with; none: those of many files.
    pub gives: &'static [&'static str],
    pub handler: fn(Call) -> Answering,
}

impl Route {
    pub const fn get(path: &'static str, role: Role, handler: fn(Call) -> Answering) -> Route {
        Route { verb: Verb::Get, path, role, params: &[], takes: Takes::Nothing, gives: JSON, handler }
    }

    pub const fn with(self, params: &'static [&'static str]) -> Route {
        Route { params, ..self }
    }

    /// Something else than JSON.
    pub const fn giving(self, gives: &'static [&'static str]) -> Route {
        Route { gives, ..self }
    }

    /// Another verb than GET.
    pub const fn by(self, verb: Verb, takes: Takes) -> Route {
        Route { verb, takes, ..self }
    }
}

/// Every route there is.
pub fn all() -> impl Iterator<Item = &'static Route> {
    let tables: [&'static [Route]; 13] = [
        super::system::ROUTES,
        super::incidents::ROUTES,
        super::captures::ROUTES,
        super::demands::ROUTES,
        super::live::ROUTES,
        super::events::ROUTES,
        super::flows::ROUTES,
        super::kinds::ROUTES,
        super::rules::ROUTES,
        super::rule_files::ROUTES,
        super::session::ROUTES,
        super::packets::ROUTES,
        super::assets::ROUTES,
    ];
    tables.into_iter().flatten()
}

pub fn router(app: &Arc<App>) -> Router {
    let mut paths: Vec<&'static str> = all().map(|route| route.path).collect();
    paths.sort_unstable();
    paths.dedup();
    let mut router = Router::new();
    for path in paths {
        let here: Vec<_> = all().filter(|route| route.path == path).collect();
        let mut verbs: Vec<_> = here.iter().map(|route| route.verb.name()).collect();
        if verbs.contains(&"GET") {
            verbs.push("HEAD");
        }
        let allowed = verbs.join(", ");
        let counted = Arc::clone(app);
        let refuse = move |request: Request<Body>| {
            let problem =
                Problem::new(Kind::MethodNotAllowed, format!("{} can't be done here", request.method()))
                    .help(format!("this path takes {allowed}"))
                    .header(ALLOW, &allowed);
            std::future::ready(refused(&counted, path, problem, &request))
        };
        let mut methods = MethodRouter::new();
        for route in here {
            let app = Arc::clone(app);
            methods = methods.merge(on(route.verb.filter(), move |request| take(app, route, request)));
        }
        router = router.route(path, methods.fallback(refuse));
    }
    let counted = Arc::clone(app);
    router.fallback(move |request: Request<Body>| {
        let problem =
            Problem::new(Kind::NotFound, "no such path").help("/api/v1/openapi.json lists those there are");
        std::future::ready(refused(&counted, OTHER, problem, &request))
    })
}

/// There is no such route.
fn refused(app: &App, path: &'static str, problem: Problem, request: &Request<Body>) -> Response<Body> {
    let response = finish(problem.respond(request.uri().path()));
    app.served.count(OTHER, path, response.status().as_u16(), Duration::ZERO);
    response
}

/// One request, from its first header line to an answer.
async fn take(app: Arc<App>, route: &'static Route, request: Request<Body>) -> Response<Body> {
    let began = Instant::now();
    let (parts, body) = request.into_parts();
    let path = parts.uri.path().to_owned();
    let served = Arc::clone(&app.served);
    let done = Caught(Box::pin(answer(app, route, parts, body))).await;
    let fault = "the answer failed; this is a fault of Referee, please report it";
    let answer = done.unwrap_or_else(|()| Err(Problem::new(Kind::Internal, fault)));
    let response = finish(answer.unwrap_or_else(|problem| problem.respond(&path)));
    let status = response.status().as_u16();
    served.count(route.verb.name(), route.path, status, began.elapsed());
    response
}

async fn answer(app: Arc<App>, route: &'static Route, mut parts: Parts, body: Body) -> Answer {
    let peer = parts.extensions.get::<Peer>().copied().unwrap_or(Peer::Tcp([0, 0, 0, 0].into()));
    if parts.uri.path_and_query().is_some_and(|whole| whole.as_str().len() > limits::URI) {
        return Err(Problem::new(Kind::UriTooLong, format!("at most {} bytes are taken", limits::URI)));
    }
    small(&parts.headers)?;
    known_host(&app, peer, &parts.headers)?;
    let who = app.auth.who(peer, &parts.headers, &app.limits)?;
    app.limits.request(&who.key)?;
    who.may(route.role, app.config.read_captures)?;
    own_page(&who, route.verb, &parts.headers)?;
    accept::any_of(route.gives, &parts.headers)?;
    let path = RawPathParams::from_request_parts(&mut parts, &()).await;
    let path = path.map_err(|_| Problem::new(Kind::NotFound, "the path is no UTF-8"))?;
    let path = path.iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
    let params = params(&parts.uri, route.params)?;
    let body = match route.takes.kind() {
        None => Bytes::new(),
        Some(kind) => read(&parts.headers, body, kind).await?,
    };
    let head = parts.method == Method::HEAD;
    (route.handler)(Call { app, who, peer, headers: parts.headers, head, path, params, body }).await
}

/// The server reads a few more than are taken, for an answer to be given.
fn small(headers: &HeaderMap) -> Result<(), Problem> {
    let bytes: usize = headers.iter().map(|(name, value)| name.as_str().len() + value.len() + 4).sum();
    match headers.len() > limits::HEADERS || bytes > limits::HEADER_BYTES {
        false => Ok(()),
        true => {
            let (lines, kib) = (limits::HEADERS, limits::HEADER_BYTES >> 10);
            let what = format!("at most {lines} lines and {kib} KiB are taken");
            Err(Problem::new(Kind::HeadersTooLarge, what)
                .help("a browser may have too many cookies for this host"))
        }
    }
}

/// The name a browser was led here by: one that anybody could have given this address is refused (DNS rebinding).
fn known_host(app: &App, peer: Peer, headers: &HeaderMap) -> Result<(), Problem> {
    let Peer::Tcp(_) = peer else { return Ok(()) };
    let given = headers.get(HOST).and_then(|host| host.to_str().ok()).unwrap_or("");
    let name = match given.strip_prefix('[') {
        Some(rest) => rest.split(']').next().unwrap_or(""),
        None => given.rsplit_once(':').map_or(given, |(name, _)| name),
    };
    let mine = |known: &str| known.eq_ignore_ascii_case(name);
    let known = name.parse::<std::net::IpAddr>().is_ok()
        || mine("localhost")
        || mine(&app.board.info().hostname)
        || app.config.names.iter().any(|known| mine(known));
    match known {
        true => Ok(()),
        false => Err(Problem::new(Kind::BadHost, "this name is not known here")
            .help("use the host's name or address, or add the name to [api] names")),
    }
}

/// What a browser sends along by itself may change something only from this box's own page.
fn own_page(who: &Who, verb: Verb, headers: &HeaderMap) -> Result<(), Problem> {
    let site = headers.get("sec-fetch-site").and_then(|site| site.to_str().ok());
    let own = match site {
        Some(site) => ["same-origin", "none"].contains(&site),
        None => !who.by_cookie,
    };
    match verb == Verb::Get || own {
        true => Ok(()),
        false => Err(Problem::new(Kind::Forbidden, "this comes from a page that is not this box's own")
            .help("send a token instead of a cookie")),
    }
}

fn params(uri: &Uri, known: &[&str]) -> Result<Vec<(String, String)>, Problem> {
    let Query(pairs) = Query::<Vec<(String, String)>>::try_from_uri(uri).map_err(|_| {
        Problem::new(Kind::BadParameter, "what follows the ? can't be read")
            .help("write name=value&name=value")
    })?;
    for (number, (name, value)) in pairs.iter().enumerate() {
        if !known.contains(&name.as_str()) {
            let help = if known.is_empty() {
                "none are taken here".to_owned()
            } else {
                format!("there are {}", known.join(", "))
            };
            let shown: String = name.chars().take(100).collect();
            return Err(
                Problem::new(Kind::BadParameter, format!("there is no parameter {shown:?}")).help(help)
            );
        }
        if pairs[..number].iter().any(|(other, _)| other == name) {
            return Err(bad_parameter(name, value, "it once"));
        }
    }
    Ok(pairs)
}

/// A body of the type that is taken.
async fn read(headers: &HeaderMap, body: Body, taken: &str) -> Result<Bytes, Problem> {
    let kind = headers.get(CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or("");
    let kind = kind.split(';').next().unwrap_or("").trim();
    if !kind.eq_ignore_ascii_case(taken) {
        let what = format!("the body is {kind:?}", kind = kind.chars().take(100).collect::<String>());
        return Err(Problem::new(Kind::UnsupportedMediaType, what).help(format!("Content-Type: {taken}")));
    }
    let large = || Problem::new(Kind::BodyTooLarge, format!("at most {} bytes are taken", limits::BODY));
    let told = headers.get(CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse::<u64>().ok());
    if told.is_some_and(|length| length > limits::BODY as u64) {
        return Err(large());
    }
    match tokio::time::timeout(limits::BODY_TIME, Limited::new(body, limits::BODY).collect()).await {
        Ok(Ok(whole)) => Ok(whole.to_bytes()),
        Ok(Err(error)) if error.is::<LengthLimitError>() => Err(large()),
        Ok(Err(error)) => Err(Problem::new(Kind::BadBody, format!("the body ends early: {error}"))),
        Err(_) => {
            let within = limits::BODY_TIME.as_secs();
            Err(Problem::new(Kind::BodyTimeout, format!("it was not there within {within} s")))
        }
    }
}

/// What goes with every answer.
pub fn finish(mut response: Response<Body>) -> Response<Body> {
    let always = [
        ("x-content-type-options", "nosniff"),
        ("referrer-policy", "no-referrer"),
        ("x-frame-options", "DENY"),
    ];
    for (name, value) in always {
        response.headers_mut().insert(HeaderName::from_static(name), HeaderValue::from_static(value));
    }
    response
}

/// A future whose panic is an answer too.
struct Caught<F>(Pin<Box<F>>);

impl<F: Future> Future for Caught<F> {
    type Output = Result<F::Output, ()>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let polled = std::panic::catch_unwind(AssertUnwindSafe(|| self.0.as_mut().poll(cx)));
        polled.map_or(Poll::Ready(Err(())), |poll| poll.map(Ok))
    }
}
