//! The page: `/` and what it consists of, `/assets/{name}`.
//!
//! API thread. The place of the web page's files: `ROUTES` is the table that `routes` takes in, and each handler is a
//! `fn(Call) -> Answering` which answers with `call::text(status, content type, body)`.

use axum::http::StatusCode;

use super::auth::Role;
use super::call::{Answer, Call, text};
use super::problem::{Kind, Problem};
use super::routes::Route;

pub const ROUTES: &[Route] = &[
    Route::get("/", Role::Open, |call| Box::pin(index(call))),
    Route::get("/assets/{name}", Role::Open, |call| Box::pin(asset(call))),
];

async fn index(_: Call) -> Answer {
    let page = "<!doctype html><title>Referee</title><p><a href=/api/v1/openapi.json>/api/v1</a>";
    Ok(text(StatusCode::OK, "text/html; charset=utf-8", page))
}

async fn asset(call: Call) -> Answer {
    Err(Problem::new(Kind::NotFound, format!("there is no {:?}", call.path("name"))))
}
