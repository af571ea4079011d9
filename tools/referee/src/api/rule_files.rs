//! `rules/files`: the rule files of the run, one of them, and a change to one: checked with all the others before anything
//! is written, and gone by at once.
//!
//! API thread; the control thread does what there is to do.

use axum::http::StatusCode;
use serde_json::json;

use super::auth::Role;
use super::call::{Answer, Call, json, text};
use super::problem::{Kind, Problem};
use super::routes::{Route, Takes, Verb};
use super::rules::{changed, unexpected};
use crate::control::command::{self, Command, RuleText};
use crate::control::files::{FileRefusal, Why};

const ONE: &str = "/api/v1/rules/files/{name}";

pub const ROUTES: &[Route] = &[
    Route::get("/api/v1/rules/files", Role::Read, |call| Box::pin(list(call))),
    Route::get(ONE, Role::Read, |call| Box::pin(one(call))).giving(&["text/plain"]),
    Route::get(ONE, Role::Operate, |call| Box::pin(put(call))).by(Verb::Put, Takes::Text),
    Route::get(ONE, Role::Operate, |call| Box::pin(delete(call))).by(Verb::Delete, Takes::Nothing),
];

fn refused(refusal: FileRefusal) -> Problem {
    let FileRefusal { why, what, help, errors } = refusal;
    let kind = match why {
        Why::BadName => Kind::BadParameter,
        Why::NoSuchFile => Kind::NoSuchRuleFile,
        Why::NoFolder => Kind::NoRulesFolder,
        Why::Unwritable => Kind::RulesUnwritable,
        Why::TooLarge => Kind::BodyTooLarge,
        Why::Mistakes => Kind::RulesRefused,
    };
    let problem = Problem::new(kind, what).help(help);
    if errors.is_empty() { problem } else { problem.with("errors", json!(errors)) }
}

async fn asked(call: &Call, command: Command) -> Result<command::Answer, Problem> {
    match call.app.control(command).await? {
        command::Answer::FileDenied(refusal) => Err(refused(refusal)),
        answer => Ok(answer),
    }
}

async fn list(call: Call) -> Answer {
    match asked(&call, Command::RuleFiles {}).await? {
        command::Answer::Files(files) => json(&files),
        _ => Err(unexpected()),
    }
}

async fn one(call: Call) -> Answer {
    let name = call.path("name").to_owned();
    match asked(&call, Command::RuleFile { name }).await? {
        command::Answer::File(file) => Ok(text(StatusCode::OK, "text/plain; charset=utf-8", file.text)),
        _ => Err(unexpected()),
    }
}

async fn put(call: Call) -> Answer {
    let name = call.path("name").to_owned();
    let text = String::from_utf8(call.body.to_vec())
        .map_err(|_| Problem::new(Kind::BadBody, "the text is no UTF-8").help("save it as UTF-8"))?;
    gone_by(asked(&call, Command::RuleFilePut(RuleText { name, text })).await?)
}

async fn delete(call: Call) -> Answer {
    let name = call.path("name").to_owned();
    gone_by(asked(&call, Command::RuleFileDelete { name }).await?)
}

/// What the reload after the change came to.
fn gone_by(answer: command::Answer) -> Answer {
    changed(answer).map_err(|problem| problem.help("the file was changed; see to the mistakes and reload"))
}
