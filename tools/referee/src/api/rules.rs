//! `rules`: those in force and what each has done, a check of others, reload, and their switches.
//!
//! API thread; the control thread does what there is to do, and is asked with a bound on how many wait.

use std::time::Duration;

use axum::http::StatusCode;
use dataplane::judge::because;
use serde::Deserialize;
use serde_json::{Map, Value, json};
use tokio::sync::oneshot;

use super::App;
use super::auth::Role;
use super::call::{Answer, Call, json};
use super::limits::later;
use super::problem::{Kind, Problem};
use super::routes::{Route, Takes, Verb};
use crate::control::command::{self, Command, Mistake, Reloaded, RuleText, WorkerRules};
use crate::control::request::Request;
use crate::control::switches::Switch;
use crate::rules::check;
use crate::rules::load::Origin;

pub const ROUTES: &[Route] = &[
    Route::get("/api/v1/rules", Role::Read, |call| Box::pin(list(call))),
    Route::get("/api/v1/rules/check", Role::Read, |call| Box::pin(checked(call))).by(Verb::Post, Takes::Json),
    Route::get("/api/v1/rules/reload", Role::Operate, |call| Box::pin(reload(call)))
        .by(Verb::Post, Takes::Nothing),
    Route::get("/api/v1/rules/{name}/shadow", Role::Operate, |call| Box::pin(switch(call, Switch::Shadow)))
        .by(Verb::Put, Takes::Json),
    Route::get("/api/v1/rules/{name}/enabled", Role::Operate, |call| Box::pin(switch(call, Switch::Enabled)))
        .by(Verb::Put, Takes::Json),
];

/// How long an answer of the control thread is waited for: many rules take their time to load.
const PATIENCE: Duration = Duration::from_secs(120);

impl App {
    /// Has the control thread do something.
    pub async fn control(&self, command: Command) -> Result<command::Answer, Problem> {
        self.live()?;
        let Some(requests) = &self.requests else {
            return Err(Problem::new(Kind::NoRun, "there is nobody here who could do that"));
        };
        let (reply, answer) = oneshot::channel();
        let reply = Box::new(move |answer| drop(reply.send(answer)));
        requests
            .ask(Request { command, reply })
            .map_err(|_| later(1.0, "as many requests wait for the run as may"))?;
        match tokio::time::timeout(PATIENCE, answer).await {
            Ok(Ok(command::Answer::Refused { error })) => Err(Problem::new(Kind::Busy, error)),
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(_)) => Err(Problem::new(Kind::NoRun, "the run is ending")),
            Err(_) => Err(Problem::new(Kind::Busy, "it may be done all the same; see how it stands later")),
        }
    }
}

/// The control thread gave an answer to something else.
pub fn unexpected() -> Problem {
    Problem::new(Kind::Internal, "the run gave another answer than was asked for; this is a fault of Referee")
}

#[derive(serde::Serialize)]
struct Listed {
    hash: String,
    generation: u32,
    workers: Vec<WorkerRules>,
    /// Why what is in the files is not in force.
    errors: Vec<Mistake>,
    rules: Vec<Value>,
}

async fn list(call: Call) -> Answer {
    let (rules, status) =
        (call.app.control(Command::Rules {}).await?, call.app.control(Command::Status {}).await?);
    let (command::Answer::Rules(rules), command::Answer::Status(status)) = (rules, status) else {
        return Err(unexpected());
    };
    let set = call.app.rules.as_ref().map(|live| live.rules());
    let shipped = rules::library();
    let told = |state: &command::RuleState| {
        let mut value = json!(state);
        let meta =
            set.as_ref().and_then(|set| set.in_force().find(|(_, meta)| meta.name == state.standing.rule));
        if let (Some((_, meta)), Some(object)) = (meta, value.as_object_mut()) {
            let params: Map<String, Value> =
                meta.params.iter().map(|(name, value)| (name.clone(), because::value(value))).collect();
            let file = shipped.iter().find(|file| file.name == meta.file);
            object.insert("explain".to_owned(), json!(file.and_then(|file| header(&file.text))));
            object.insert("params".to_owned(), params.into());
            object.insert("severity".to_owned(), json!(meta.severity.map(rules::Severity::as_str)));
        }
        value
    };
    let (hash, generation) = (rules.hash, rules.generation);
    let rules = rules.rules.iter().map(told).collect();
    json(&Listed { hash, generation, workers: status.workers, errors: status.errors, rules })
}

/// The first sentence of a rule file: what it finds.
fn header(text: &str) -> Option<&str> {
    let first = text.lines().find(|line| !line.trim().is_empty())?;
    first.trim().strip_prefix("//").map(|words| words.trim_start_matches('/').trim())
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Files {
    files: Vec<RuleText>,
}

/// With a run, in the place of its files; else of the shipped ones.
async fn checked(call: Call) -> Answer {
    let Files { files } = call.json()?;
    if call.app.requests.is_some() {
        return match call.app.control(Command::Check { files }).await? {
            command::Answer::Checked(checked) => json(&checked),
            _ => Err(unexpected()),
        };
    }
    let place = call.app.limits.job().await?;
    let check = move || {
        let _place = place;
        let origin = Origin { path: None, library: true, params: Vec::new() };
        check::texts(&origin, &rules::library(), files)
    };
    let checked = tokio::task::spawn_blocking(check).await.map_err(|_| unexpected())?;
    json(&checked)
}

/// What came of a change, or why there was none.
pub fn changed(answer: command::Answer) -> Answer {
    match answer {
        command::Answer::Reload(Reloaded { errors, generation, hash, .. }) if !errors.is_empty() => {
            let number = crate::term::plural(errors.len() as u64, "mistake");
            Err(Problem::new(
                Kind::RulesRefused,
                format!("{number}; generation {generation} stays in force, hash {hash}"),
            )
            .with("errors", json!(errors)))
        }
        command::Answer::Reload(done) => super::call::json_with(StatusCode::OK, &done),
        _ => Err(unexpected()),
    }
}

async fn reload(call: Call) -> Answer {
    changed(call.app.control(Command::Reload {}).await?)
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct On {
    on: bool,
}

async fn switch(call: Call, switch: Switch) -> Answer {
    let On { on } = call.json()?;
    call.app.live()?;
    let rule = call.path("name").to_owned();
    let known = call
        .app
        .rules
        .as_ref()
        .is_some_and(|live| live.rules().in_force().any(|(_, meta)| meta.name == rule));
    if !known {
        let shown: String = rule.chars().take(100).collect();
        return Err(Problem::new(Kind::NoSuchRule, format!("there is no rule {shown:?}"))
            .help("/api/v1/rules lists them"));
    }
    changed(call.app.control(Command::Switch { rule, switch, on }).await?)
}
