//! `referee status`, `referee rules reload`, `shadow`, `enable` and `list --live`: asks a running Referee and says what
//! it answered.
//!
//! Main thread of a process of its own; knows of the other only what its socket says.

use std::io::{BufRead, BufReader, ErrorKind, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, SystemTime};

use serde::Deserialize as _;
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::command::{Command, Mistake, Reloaded, RuleState, Rules, Status};
use super::demands::{Reason, Refusal};
use super::standing;
use super::switches::{Switch, Switched};
use crate::cli::{RulesListArgs, SocketArgs, SwitchArgs};
use crate::error::{Code, Failure};
use crate::report::cost::Standings;
use crate::report::rules::shadow;
use crate::rules::load;
use crate::term;
use crate::time::When;

/// How long an answer is waited for: many rules take their time to load.
const PATIENCE: Duration = Duration::from_secs(120);

/// What the run that listens at `socket` answers.
///
/// # Errors
/// Failed: nobody answers there, or it can't do that.
pub fn ask(socket: &Path, command: &Command) -> Result<Value, Failure> {
    let failed = |error: std::io::Error| {
        if error.kind() == ErrorKind::PermissionDenied {
            let what = format!("the run at {}: permission denied", socket.display());
            return Failure::new(Code::Privilege, what)
                .help("the user that runs it, and root, may ask it: sudo referee …");
        }
        Failure::failed(format!("nobody answers at {}: {error}", socket.display()))
            .help("is `referee run` under way? Name the socket it was started with: --socket PATH")
    };
    let mut stream = UnixStream::connect(socket).map_err(failed)?;
    stream.set_read_timeout(Some(PATIENCE)).map_err(failed)?;
    let mut line = serde_json::to_string(command).map_err(Failure::failed)?;
    line.push('\n');
    stream.write_all(line.as_bytes()).map_err(failed)?;
    let mut answer = String::new();
    BufReader::new(stream).read_line(&mut answer).map_err(failed)?;
    let answer: Value = serde_json::from_str(&answer)
        .map_err(|_| Failure::failed(format!("{} gives no answer of Referee's", socket.display())))?;
    if let Ok(refusal) = Refusal::deserialize(&answer) {
        let code = match refusal.reason {
            Reason::Expression | Reason::Limit => Code::Usage,
            Reason::NoStore | Reason::Busy | Reason::Unknown => Code::Failed,
        };
        return Err(Failure::new(code, refusal.error).help(refusal.help));
    }
    match answer.get("error").and_then(Value::as_str) {
        Some(error) => Err(Failure::failed(error)),
        None => Ok(answer),
    }
}

/// What an answer says.
///
/// # Errors
/// Failed: it is that of another version.
pub fn of<T: DeserializeOwned>(answer: &Value) -> Result<T, Failure> {
    T::deserialize(answer).map_err(|error| {
        Failure::failed(format!("the answer is that of another version of Referee: {error}"))
    })
}

/// Has the rules loaded.
///
/// # Errors
/// Usage: the rules are refused. Failed: nobody answers, or not every worker goes by them yet.
pub fn reload(args: &SocketArgs) -> Result<(), Failure> {
    have_done(args, &Command::Reload {}, refused)
}

/// Turns a rule's switch.
///
/// # Errors
/// Usage: there is no such rule. Failed: nobody answers, or not every worker goes by it yet.
pub fn switch(args: &SwitchArgs, switch: Switch) -> Result<(), Failure> {
    let (rule, on) = (args.rule.clone(), args.state == "on");
    have_done(&args.run, &Command::Switch { rule, switch, on }, |errors| {
        let whole = errors.iter().map(|Mistake { message, help, .. }| match help {
            Some(help) => format!("{message}\n  help: {help}"),
            None => message.clone(),
        });
        Failure::usage(whole.collect::<Vec<_>>().join("\n"))
    })
}

fn have_done(
    args: &SocketArgs,
    command: &Command,
    refusal: fn(Vec<Mistake>) -> Failure,
) -> Result<(), Failure> {
    let answer = ask(&args.socket, command)?;
    let done: Reloaded = of(&answer)?;
    if args.json {
        term::show(|out| writeln!(out, "{answer}"))?;
    }
    if !done.errors.is_empty() {
        let stays = format!("generation {} stays in force, hash {}", done.generation, done.hash);
        return Err(refusal(done.errors).help(stays));
    }
    if !args.json {
        term::show(|out| writeln!(out, "{}", words(&done)))?;
    }
    match done.live {
        true => Ok(()),
        false => Err(Failure::failed("not every worker goes by it yet").help("ask again: referee status")),
    }
}

fn refused(errors: Vec<Mistake>) -> Failure {
    let errors: Vec<_> = errors.into_iter().map(Into::into).collect();
    load::refusal(&errors)
}

/// The rules of a run, and what each has done.
///
/// # Errors
/// Failed: nobody answers.
pub fn rules(args: &RulesListArgs) -> Result<(), Failure> {
    let answer = ask(&args.socket, &Command::Rules {})?;
    if args.json {
        return term::show(|out| writeln!(out, "{answer}"));
    }
    let Rules { hash, generation, rules } = of(&answer)?;
    term::show(|out| {
        writeln!(out, "generation {generation}, hash {hash}")?;
        write!(out, "{}", Standings(rules.iter().map(|rule| rule.standing.clone()).collect()))?;
        rules.iter().flat_map(more).try_for_each(|what| writeln!(out, "{what}"))
    })
}

/// What there is to say of a rule beside its numbers.
fn more(rule: &RuleState) -> impl Iterator<Item = String> {
    let RuleState { standing, off_because, shadow_counts, .. } = rule;
    let name = &standing.rule;
    let off = off_because.as_ref().map(|cause| format!("rule {name} was switched off, because {cause}"));
    off.into_iter().chain(shadow_counts.as_ref().map(|counts| shadow(name, counts)))
}

/// What became of a reload that was not refused.
pub fn words(done: &Reloaded) -> String {
    let workers = term::plural(done.workers.len() as u64, "worker");
    let rules = term::plural(done.rules as u64, "rule");
    let mut text =
        format!("generation {} is live on {workers}: {rules}, hash {}", done.generation, done.hash);
    let kinds = [("new", &done.added), ("changed", &done.changed), ("removed", &done.removed)];
    for (what, names) in kinds.into_iter().filter(|(_, names)| !names.is_empty()) {
        let shown: Vec<&str> = names.iter().take(10).map(String::as_str).collect();
        let more = names.len().saturating_sub(shown.len());
        let more = if more > 0 { format!(" and {more} more") } else { String::new() };
        text += &format!("; {what}: {}{more}", shown.join(", "));
    }
    if kinds.iter().all(|(_, names)| names.is_empty()) {
        text += "; no rule has changed";
    }
    text
}

/// How a run stands.
///
/// # Errors
/// Failed: nobody answers.
pub fn status(args: &SocketArgs) -> Result<(), Failure> {
    let mut answer = ask(&args.socket, &Command::Status {})?;
    let status: Status = of(&answer)?;
    let run = standing::ask(&args.socket);
    if args.json {
        answer["run"] = run.as_ref().map_or(Value::Null, standing::Standing::json);
        return term::show(|out| writeln!(out, "{answer}"));
    }
    term::show(|out| {
        writeln!(out, "referee {}, process {}", status.version, status.pid)?;
        match &run {
            Ok(run) => run.words(now_ns()).iter().try_for_each(|line| writeln!(out, "{line}"))?,
            Err(failure) => writeln!(out, "how it captures is not known: {}", failure.message)?,
        }
        let rules = term::plural(status.rules as u64, "rule");
        writeln!(out, "rules: generation {}, {rules}, hash {}", status.generation, status.hash)?;
        let from = match (&status.path, status.library) {
            (Some(path), true) => format!("{path} and the shipped ones"),
            (Some(path), false) => path.clone(),
            (None, _) => "the shipped ones".to_owned(),
        };
        let kept = if status.last_good { ", as an earlier run had them" } else { "" };
        writeln!(out, "from: {from}{kept}")?;
        status.switched.iter().try_for_each(|one| writeln!(out, "switched by hand: {}", switched(one)))?;
        writeln!(out, "reloads: {}, refused: {}", status.reloads, status.refused_reloads)?;
        for worker in &status.workers {
            let (number, generation) = (worker.worker, worker.generation);
            writeln!(out, "worker {number}: generation {generation}, hash {}", worker.hash)?;
        }
        match status.errors.is_empty() {
            true => Ok(()),
            false => writeln!(out, "the files are not what is in force: {}", refused(status.errors)),
        }
    })
}

fn now_ns() -> u64 {
    When::Ago(0).resolve(SystemTime::now())
}

fn switched(one: &Switched) -> String {
    let waits = if one.waits { " once there is such a rule again" } else { "" };
    format!("{} {}{waits}", one.rule, one.switch.words(one.on))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reload_in_words() {
        let names = |names: &[&str]| names.iter().map(|&name| name.to_owned()).collect();
        let mut done = Reloaded {
            hash: "ab12".into(),
            generation: 3,
            rules: 41,
            added: names(&["a", "b"]),
            removed: names(&["c"]),
            ..Reloaded::default()
        };
        assert_eq!(
            words(&done),
            "generation 3 is live on 0 workers: 41 rules, hash ab12; new: a, b; removed: c"
        );
        done.changed = (0..12).map(|n| n.to_string()).collect();
        assert!(
            words(&done).contains("changed: 0, 1, 2, 3, 4, 5, 6, 7, 8, 9 and 2 more"),
            "{}",
            words(&done)
        );
        let still = Reloaded { added: Vec::new(), removed: Vec::new(), changed: Vec::new(), ..done };
        assert!(words(&still).ends_with("; no rule has changed"));
    }
}
