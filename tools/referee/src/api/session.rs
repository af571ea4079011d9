//! `session`: a browser logs in with a token or a one-time code and is known by a cookie from then on.
//!
//! API thread. Secrets come in bodies, never in addresses.

use axum::body::Body;
use axum::http::header::{HeaderValue, SET_COOKIE};
use axum::http::{Response, StatusCode};
use serde::Deserialize;
use serde_json::json;

use super::auth::{CODE, COOKIE_NAME, Grant, Role, SESSION};
use super::call::{Answer, Call, json, json_with, text};
use super::problem::{Kind, Problem};
use super::routes::{Route, Takes, Verb};

pub const ROUTES: &[Route] = &[
    Route::get("/api/v1/session", Role::Open, |call| Box::pin(show(call))),
    Route::get("/api/v1/session", Role::Open, |call| Box::pin(begin(call))).by(Verb::Post, Takes::Json),
    Route::get("/api/v1/session", Role::Open, |call| Box::pin(end(call))).by(Verb::Delete, Takes::Nothing),
    Route::get("/api/v1/session/codes", Role::Local, |call| Box::pin(code(call)))
        .by(Verb::Post, Takes::Nothing),
];

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Login {
    token: Option<String>,
    code: Option<String>,
}

fn role(grant: Option<Grant>) -> serde_json::Value {
    json!({ "role": grant })
}

/// Who is known; null if nobody is.
async fn show(call: Call) -> Answer {
    json(&role(call.who.grant))
}

async fn begin(call: Call) -> Answer {
    let (secret, is_code) = match call.json()? {
        Login { token: Some(token), code: None } => (token, false),
        Login { token: None, code: Some(code) } => (code, true),
        _ => return Err(Problem::new(Kind::BadBody, "give `token` or `code`, one of them")),
    };
    let (session, grant) = call.app.auth.log_in(call.peer, &secret, is_code, &call.app.limits)?;
    let mut response = json_with(StatusCode::OK, &role(Some(grant)))?;
    cookie(&mut response, &session, SESSION.as_secs());
    Ok(response)
}

async fn end(call: Call) -> Answer {
    call.app.auth.log_out(&call.headers);
    let mut response = text(StatusCode::NO_CONTENT, "application/json", Body::empty());
    cookie(&mut response, "", 0);
    Ok(response)
}

fn cookie(response: &mut Response<Body>, value: &str, age: u64) {
    let text = format!("{COOKIE_NAME}={value}; HttpOnly; Secure; SameSite=Strict; Path=/; Max-Age={age}");
    if let Ok(text) = HeaderValue::from_str(&text) {
        response.headers_mut().insert(SET_COOKIE, text);
    }
}

/// A one-time code for a browser, and where that is to go with it.
async fn code(call: Call) -> Answer {
    let Some(code) = call.who.grant.and_then(|grant| call.app.auth.code(grant)) else {
        return Err(Problem::new(Kind::Busy, "the system gives no random numbers"));
    };
    json(&json!({ "code": code, "expires_s": CODE.as_secs(), "url": call.app.url }))
}
