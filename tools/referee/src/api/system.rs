//! The box itself: version, health, books, figures over time, metrics, and the description of this interface.
//!
//! API thread. What main published in the last second; books and metrics are worded here when they are first asked for.

use axum::http::StatusCode;
use serde_json::{Value, json};

use super::App;
use super::auth::Role;
use super::call::{Answer, Call, bad_parameter, json, json_with, text};
use super::problem::{Kind, Problem};
use super::routes::Route;
use crate::board::{Check, Standing};

pub const ROUTES: &[Route] = &[
    Route::get("/api/v1/version", Role::Read, |call| Box::pin(version(call))),
    Route::get("/api/v1/health", Role::Open, |call| Box::pin(health(call))),
    Route::get("/api/v1/books", Role::Read, |call| Box::pin(books(call))),
    Route::get("/api/v1/series", Role::Read, |call| Box::pin(series(call))).with(&["since", "step"]),
    Route::get("/api/v1/openapi.json", Role::Open, |call| Box::pin(description(call))),
    Route::get("/metrics", Role::Read, |call| Box::pin(metrics(call))).giving(&["text/plain"]),
    Route::get("/healthz", Role::Open, |call| Box::pin(healthz(call))),
];

/// The description of this interface, kept by hand and held to the routes by tests.
pub const OPENAPI: &str = include_str!("openapi.json");

async fn version(call: Call) -> Answer {
    let (info, latest) = (call.app.board.info(), call.app.board.latest());
    json(&json!({
        "version": env!("CARGO_PKG_VERSION"), "api": 1, "pid": std::process::id(), "started_ns": info.started_ns,
        "hostname": info.hostname, "live": info.live, "interfaces": latest.interfaces,
        "url": call.app.url, "certificate": call.app.certificate,
    }))
}

/// All that was looked at; without a run, whether there is a store.
fn checks(app: &App) -> Vec<Check> {
    if app.board.info().live {
        return app.board.latest().checks.clone();
    }
    let there = app.store.as_ref().is_some_and(|store| store.join("segments").is_dir());
    let (status, what, help) = match there {
        true => (Standing::Ok, "the store is there; no capture is under way here", None),
        false => {
            (Standing::Failing, "the store is gone", Some("`referee serve --store DIR` names it".to_owned()))
        }
    };
    vec![Check { name: "store", status, what: what.to_owned(), help }]
}

fn worst(checks: &[Check]) -> Standing {
    checks.iter().map(|check| check.status).max().unwrap_or_default()
}

async fn health(call: Call) -> Answer {
    let checks = checks(&call.app);
    let status = worst(&checks);
    match call.who.grant {
        Some(_) => json(&json!({ "status": status, "checks": checks })),
        None => json(&json!({ "status": status })),
    }
}

/// For load balancers and the like, which look at the status alone.
async fn healthz(call: Call) -> Answer {
    let status = worst(&checks(&call.app));
    let code = if status == Standing::Failing { StatusCode::SERVICE_UNAVAILABLE } else { StatusCode::OK };
    json_with(code, &json!({ "status": status }))
}

impl App {
    /// # Errors
    /// There is no run here.
    pub fn live(&self) -> Result<(), Problem> {
        match self.board.info().live {
            true => Ok(()),
            false => Err(Problem::new(Kind::NoRun, "this shows a store, and no capture is under way")
                .help("ask the box where `referee run` is")),
        }
    }
}

async fn books(call: Call) -> Answer {
    call.app.live()?;
    let latest = call.app.board.latest();
    match &*latest.books {
        Value::Null => Err(Problem::new(Kind::Busy, "the first second is not over").help("ask again")),
        books => json(books),
    }
}

async fn series(call: Call) -> Answer {
    call.app.live()?;
    let step = match call.param("step") {
        None | Some("1") => 1,
        Some("10") => 10,
        Some("60") => 60,
        Some(other) => return Err(bad_parameter("step", other, "1, 10 or 60")),
    };
    let since = call.moment("since")?.unwrap_or(0);
    json(&json!({ "step": step, "items": call.app.board.series(since, step) }))
}

async fn metrics(call: Call) -> Answer {
    call.app.live()?;
    let page = call.app.board.latest().metrics.clone();
    Ok(text(StatusCode::OK, "text/plain; version=0.0.4; charset=utf-8", page))
}

async fn description(_: Call) -> Answer {
    Ok(text(StatusCode::OK, "application/json", OPENAPI))
}
