//! `captures/demands`: packets that an expression names, out of the run's history and from now on.
//!
//! API thread; the control thread begins and ends them.

use axum::http::StatusCode;
use axum::http::header::{HeaderValue, LOCATION};
use serde::Deserialize;
use serde_json::{Value, json};

use super::auth::Role;
use super::call::{Answer, Call, json, json_with};
use super::limits::later;
use super::problem::{Kind, Problem};
use super::routes::{Route, Takes, Verb};
use super::rules::unexpected;
use crate::control::command::{self, Command};
use crate::control::demands::{DemandState, Reason, Refusal, Wish};

const ALL: &str = "/api/v1/captures/demands";

pub const ROUTES: &[Route] = &[
    Route::get(ALL, Role::Read, |call| Box::pin(list(call))),
    Route::get(ALL, Role::Operate, |call| Box::pin(begin(call))).by(Verb::Post, Takes::Json),
    Route::get("/api/v1/captures/demands/{id}", Role::Read, |call| Box::pin(show(call))),
    Route::get("/api/v1/captures/demands/{id}", Role::Operate, |call| Box::pin(end(call)))
        .by(Verb::Delete, Takes::Nothing),
];

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Asked {
    expression: String,
    last_s: Option<f64>,
    for_s: Option<f64>,
    packets: Option<u64>,
    bytes: Option<u64>,
}

/// Seconds as ns; what is longer than can be counted is refused as too long later.
fn ns(name: &str, seconds: Option<f64>) -> Result<Option<u64>, Problem> {
    match seconds {
        Some(seconds) if seconds < 0.0 => {
            Err(Problem::new(Kind::BadBody, format!("`{name}` is {seconds}")).help("give seconds, 0 or more"))
        }
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "saturates")]
        seconds => Ok(seconds.map(|seconds| (seconds * 1e9) as u64)),
    }
}

pub fn refused(Refusal { reason, error, help }: Refusal) -> Problem {
    match reason {
        Reason::NoStore => Problem::new(Kind::NoStore, error).help(help),
        Reason::Busy => later(5.0, &error),
        Reason::Limit | Reason::Expression => Problem::new(Kind::BadExpression, error).help(help),
        Reason::Unknown => Problem::new(Kind::NoSuchDemand, error).help(help),
    }
}

/// With where its packets are to be had.
fn told(state: &DemandState) -> Value {
    let mut value = json!(state);
    value["capture"] = format!("/api/v1/captures/download?flow={}", state.id).into();
    value
}

async fn about(call: &Call, command: Command) -> Result<DemandState, Problem> {
    match call.app.control(command).await? {
        command::Answer::Demand(state) => Ok(state),
        command::Answer::Denied(refusal) => Err(refused(refusal)),
        _ => Err(unexpected()),
    }
}

/// How one stands.
pub async fn standing(call: &Call, id: &str) -> Result<DemandState, Problem> {
    about(call, Command::DemandGet { id: id.to_owned() }).await
}

async fn begin(call: Call) -> Answer {
    let asked: Asked = call.json()?;
    let wish = Wish {
        last_ns: ns("last_s", asked.last_s)?,
        for_ns: ns("for_s", asked.for_s)?,
        expression: asked.expression,
        packets: asked.packets,
        bytes: asked.bytes,
    };
    let state = about(&call, Command::Demand(wish)).await?;
    let mut response = json_with(StatusCode::CREATED, &told(&state))?;
    if let Ok(place) = HeaderValue::from_str(&format!("{ALL}/{}", state.id)) {
        response.headers_mut().insert(LOCATION, place);
    }
    Ok(response)
}

async fn list(call: Call) -> Answer {
    match call.app.control(Command::Demands {}).await? {
        command::Answer::Demands { demands } => {
            let items: Vec<Value> = demands.iter().map(told).collect();
            json(&json!({ "items": items, "next": null }))
        }
        _ => Err(unexpected()),
    }
}

async fn show(call: Call) -> Answer {
    json(&told(&standing(&call, call.path("id")).await?))
}

async fn end(call: Call) -> Answer {
    let id = call.path("id").to_owned();
    json(&told(&about(&call, Command::DemandEnd { id }).await?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seconds_have_their_limits() {
        assert_eq!(ns("last_s", Some(0.5)).unwrap(), Some(500_000_000));
        assert_eq!(ns("last_s", Some(1e300)).unwrap(), Some(u64::MAX));
        assert_eq!(ns("last_s", None).unwrap(), None);
        assert_eq!(ns("last_s", Some(-1.0)).unwrap_err().status(), 400);
    }

    #[test]
    fn refusals_have_their_names() {
        let status = |reason| refused(Refusal { reason, error: String::new(), help: String::new() }).status();
        let reasons = [Reason::NoStore, Reason::Busy, Reason::Limit, Reason::Expression, Reason::Unknown];
        assert_eq!(reasons.map(status), [409, 429, 400, 400, 404]);
    }
}
