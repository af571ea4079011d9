//! `referee rules test`: rules on captured packets before they go live, and the cases beside them.
//!
//! Main thread. The replay is `backtest`'s, the cases are `cases`'s; here they are put together, compared with what was
//! expected, and told.

use std::io::{self, Write};
use std::path::PathBuf;
use std::time::SystemTime;

use comfy_table::CellAlignment;
use dataplane::judge::because;
use dataplane::record::Query;
use rules::clause::seen as seen_by;
use rules::{RuleSet, Stopped, Watched};
use serde_json::{Value, json};

use super::backtest::{self, Backtest, OfRule};
use super::cases::{self, Outcome};
use super::load;
use crate::cli::TestArgs;
use crate::config::{Config, Placed};
use crate::error::Failure;
use crate::report;
use crate::report::finished::Finished;
use crate::report::ledger::Ledger;
use crate::term::{self, Paint, count, plural, wrap};
use crate::time::{When, utc};

/// RULE=N: that rule is to make so many incidents.
#[derive(Debug, PartialEq, Eq)]
struct Expectation {
    rule: String,
    incidents: u64,
}

/// What is asked for, from the command line.
struct Question {
    rules: PathBuf,
    captures: Vec<PathBuf>,
    expectations: Vec<Expectation>,
    cases: bool,
    /// Of what a store keeps.
    time: Query,
}

/// Tries rules out.
///
/// # Errors
/// Usage: rules, settings, cases or the question. Not a capture: an input. Failed: a case or an expectation.
pub fn test(args: &TestArgs) -> Result<(), Failure> {
    let config = Config::load(args.config.as_deref())?;
    let question = question(args)?;
    let gathered = load::gather(std::slice::from_ref(&question.rules));
    let params = load::params(&config, &args.set);
    let fresh = |more: &[Placed]| {
        gathered.load(&[&params[..], more].concat()).map_err(|errors| load::refusal(&errors))
    };
    let rules = fresh(&[])?;
    for Expectation { rule, .. } in &question.expectations {
        if !rules.rules().iter().any(|meta| meta.name == *rule) {
            let what = format!("--expect: there is no rule `{rule}` in {}", question.rules.display());
            return Err(Failure::usage(what).help("`referee rules check` lists them"));
        }
    }
    let outcomes = match question.cases {
        true => cases::run(&gathered.files, rules, &fresh, &config)?,
        false => Vec::new(),
    };
    let tested = match question.captures.as_slice() {
        [] => None,
        captures => Some(backtest::run(fresh(&[])?, captures, &question.time, &config)?),
    };
    let missed = tested.as_ref().map_or_else(Vec::new, |(tested, finished)| {
        let broken = finished.bodies.failures.iter().map(|failure| {
            format!(
                "the body of {} is to work, and failed {}: {}",
                failure.rule,
                plural(failure.count, "time"),
                failure.message
            )
        });
        missed(&question.expectations, tested).into_iter().chain(broken).collect()
    });
    match args.json {
        true => term::show(|out| tell_json(out, &outcomes, tested.as_ref(), &missed))?,
        false => term::show(|out| tell(out, &question, &outcomes, tested.as_ref()))?,
    }
    if let Some((tested, finished)) = &tested {
        report::notes(finished, &tested.rules);
    }
    failed(&outcomes, missed)
}

fn question(args: &TestArgs) -> Result<Question, Failure> {
    let mut expectations = Vec::new();
    let mut paths = Vec::new();
    let mut cases = false;
    for given in &args.expect {
        match given.is_empty() {
            true => cases = true,
            false => expectations.push(expectation(given).ok_or_else(|| {
                Failure::usage(format!("--expect={given} is not understood"))
                    .help("write --expect for the cases beside the rules, --expect=RULE=N for N incidents of a rule")
            })?),
        }
    }
    for path in &args.paths {
        // `--expect RULE=N` with a blank: it is no file.
        let typed = path.to_str().and_then(expectation).filter(|_| cases && !path.exists());
        match typed {
            Some(expected) => expectations.push(expected),
            None => paths.push(path.clone()),
        }
    }
    let only_numbers = expectations.len() >= args.expect.len() && !expectations.is_empty();
    let Some((rules, captures)) = paths.split_first() else {
        return Err(Failure::usage("no rules are named").help("referee rules test PATH [FILE]..."));
    };
    if captures.is_empty() && !expectations.is_empty() {
        return Err(
            Failure::usage("--expect=RULE=N needs captures to count incidents in").help("name a FILE")
        );
    }
    let cases = captures.is_empty() || cases && !only_numbers;
    let of_store = captures.iter().any(|path| path.is_dir());
    if args.since.or(args.until).is_some() && !of_store {
        let what = "--since and --until are about the packets of a store";
        return Err(Failure::usage(what).help("name the store's folder; captures are taken whole"));
    }
    let now = SystemTime::now();
    let at = |when: Option<When>| when.map(|when| when.resolve(now));
    let time = Query { since: at(args.since), until: at(args.until), ..Query::default() };
    Ok(Question { time, rules: rules.clone(), captures: captures.to_vec(), expectations, cases })
}

fn expectation(text: &str) -> Option<Expectation> {
    let (rule, number) = text.split_once('=')?;
    let named = !rule.is_empty() && rule.bytes().all(|b| b.is_ascii_alphanumeric() || b"_-".contains(&b));
    let incidents = number.parse().ok()?;
    named.then(|| Expectation { rule: rule.to_owned(), incidents })
}

/// Expectations that were not met, in words.
fn missed(expectations: &[Expectation], tested: &Backtest) -> Vec<String> {
    let made = |rule: &str| {
        let at = tested.rules.rules().iter().position(|meta| meta.name == rule);
        at.and_then(|at| tested.of.get(at)).map_or(0, |of| of.incidents)
    };
    let wrong = expectations.iter().filter(|expected| made(&expected.rule) != expected.incidents);
    wrong
        .map(|Expectation { rule, incidents }| {
            format!("{rule} made {}, not {}", plural(made(rule), "incident"), count(*incidents))
        })
        .collect()
}

fn failed(outcomes: &[Outcome], missed: Vec<String>) -> Result<(), Failure> {
    let wrong = outcomes.iter().filter(|outcome| outcome.why.is_some());
    let wrong = wrong.map(|o| format!("{}: {}: {}", o.place, o.name, o.why.as_deref().unwrap_or_default()));
    let all: Vec<String> = wrong.chain(missed).collect();
    match all.is_empty() {
        true => Ok(()),
        false => {
            let number = plural(all.len() as u64, "expectation");
            Err(Failure::failed(format!("{number} not met\n{}", all.join("\n"))))
        }
    }
}

/// What the body of a rule last failed with, and how often.
fn body_errors<'f>(finished: &'f Finished, rule: &str) -> (u64, Option<&'f str>) {
    let failure = finished.bodies.failures.iter().find(|failure| failure.rule == rule);
    failure.map_or((0, None), |failure| (failure.count, Some(failure.message.as_str())))
}

fn watched(rules: &RuleSet, rule: usize) -> Watched {
    let rule = u16::try_from(rule).unwrap_or(u16::MAX);
    rules.watch().map(|watch| watch.of(rule)).unwrap_or_default()
}

fn guard_ns(seen: &Watched) -> Option<u64> {
    (seen.timed > 0).then_some((seen.guard_ps + 500) / 1000)
}

fn body_us(seen: &Watched) -> Option<u64> {
    Some(seen.body_ns.checked_div(seen.runs)?.div_ceil(1000))
}

/// For a flow rule what was told to the judge; for others, ticks in which it held.
fn matched(of: &OfRule, seen: &Watched) -> u64 {
    of.hits.max(if of.flows.is_empty() { seen.matched } else { 0 })
}

fn tell(
    out: &mut dyn Write,
    question: &Question,
    outcomes: &[Outcome],
    tested: Option<&(Backtest, Finished)>,
) -> io::Result<()> {
    let paint = Paint::for_stdout();
    if question.cases {
        told_cases(out, outcomes, paint)?;
    }
    let Some((tested, finished)) = tested else { return Ok(()) };
    told_rules(out, tested, finished)?;
    told_silent(out, tested)?;
    for (meta, of) in tested.rules.rules().iter().zip(&tested.of) {
        if of.samples.is_empty() {
            continue;
        }
        let (shown, flows) = (of.samples.len() as u64, of.flows.len() as u64);
        let many = match flows {
            0 => plural(of.incidents, "incident"),
            flows if flows > shown => format!("{} of {}", count(shown), plural(flows, "flow")),
            flows => plural(flows, "flow"),
        };
        writeln!(out, "\n{}, {many}", paint.bold(&meta.name))?;
        for sample in &of.samples {
            writeln!(out, "  {}  {}", utc(sample.at_ns), sample.who)?;
            let mut table = term::table();
            for (operand, saw) in &sample.because {
                table.add_row([operand, saw]);
            }
            term::lines(&table).try_for_each(|line| writeln!(out, "      {line}"))?;
        }
        if let Some(says) = &of.says {
            write!(out, "{}", wrap("  says: ", says))?;
        }
    }
    let (packets, flows) = (finished.worker.received, finished.worker.flows_created);
    writeln!(
        out,
        "\n{} of {}, rule set {}",
        plural(packets, "packet"),
        plural(flows, "flow"),
        tested.rules.hash()
    )
}

fn told_cases(out: &mut dyn Write, outcomes: &[Outcome], paint: Paint) -> io::Result<()> {
    let wrong = outcomes.iter().filter(|outcome| outcome.why.is_some()).count();
    for outcome in outcomes.iter().filter(|outcome| outcome.why.is_some()) {
        let why = outcome.why.as_deref().unwrap_or_default();
        writeln!(out, "{} {} {}: {}", paint.red("failed"), outcome.place, outcome.rule, outcome.name)?;
        write!(out, "{}", wrap("  ", why))?;
    }
    let all = plural(outcomes.len() as u64, "case");
    match (outcomes.len(), wrong) {
        (0, _) => writeln!(out, "no cases: they stand in NAME.cases.toml beside NAME.rhai"),
        (_, 0) => writeln!(out, "{all}, {}", paint.green("all as expected")),
        (_, wrong) => writeln!(out, "{all}, {}", paint.red(format!("{wrong} not as expected"))),
    }
}

fn told_rules(out: &mut dyn Write, tested: &Backtest, finished: &Finished) -> io::Result<()> {
    let mut table = term::table();
    let head = ["rule", "asked", "matched", "flows", "incidents", "would capture", "errors", "guard", "body"];
    table.set_header(head);
    for (at, (meta, of)) in tested.rules.rules().iter().zip(&tested.of).enumerate() {
        let seen = watched(&tested.rules, at);
        let (errors, _) = body_errors(finished, &meta.name);
        let captures = match of.watched {
            0 => count(of.kept.len() as u64),
            more => format!("{}, next {}", count(of.kept.len() as u64), count(more)),
        };
        table.add_row([
            meta.name.clone(),
            count(seen.asked),
            count(matched(of, &seen)),
            count(of.flows.len() as u64),
            count(of.incidents),
            captures,
            count(errors + seen.faults),
            guard_ns(&seen).map_or_else(String::new, |ns| format!("{ns} ns")),
            body_us(&seen).map_or_else(String::new, |us| format!("{us} µs")),
        ]);
    }
    for column in table.column_iter_mut().skip(1) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    term::lines(&table).try_for_each(|line| writeln!(out, "{line}"))
}

/// Where the conditions stopped that never held.
fn told_silent(out: &mut dyn Write, tested: &Backtest) -> io::Result<()> {
    for (at, (meta, of)) in tested.rules.rules().iter().zip(&tested.of).enumerate() {
        let seen = watched(&tested.rules, at);
        if seen.asked == 0 || matched(of, &seen) > 0 {
            continue;
        }
        writeln!(out, "\n{} held on none of {}; it stopped at", meta.name, count(seen.asked))?;
        let mut table = term::table();
        for Stopped { because, times, unknown } in stopped(&tested.rules, at) {
            let unknown = if unknown > 0 { format!(", {} unknown", count(unknown)) } else { String::new() };
            let saw = format!("for example {}", seen_by(&because));
            table.add_row([because.clause.to_string(), format!("{}{unknown}", plural(times, "time")), saw]);
        }
        term::lines(&table).try_for_each(|line| writeln!(out, "      {line}"))?;
    }
    Ok(())
}

fn stopped(rules: &RuleSet, rule: usize) -> Vec<Stopped> {
    let rule = u16::try_from(rule).unwrap_or(u16::MAX);
    rules.watch().map(|watch| watch.stopped(rule)).unwrap_or_default()
}

fn tell_json(
    out: &mut dyn Write,
    outcomes: &[Outcome],
    tested: Option<&(Backtest, Finished)>,
    missed: &[String],
) -> io::Result<()> {
    for outcome in outcomes {
        let (passed, why) = (outcome.why.is_none(), &outcome.why);
        let (case, rule, place) = (&outcome.name, &outcome.rule, &outcome.place);
        writeln!(out, "{}", json!({"case": case, "rule": rule, "at": place, "passed": passed, "why": why}))?;
    }
    for (at, of) in tested.iter().flat_map(|(tested, _)| tested.of.iter().enumerate()) {
        let Some((tested, finished)) = tested else { break };
        writeln!(out, "{}", rule_json(tested, finished, at, of))?;
    }
    let wrong = outcomes.iter().filter(|outcome| outcome.why.is_some()).count();
    let mut summary = json!({
        "cases": {"run": outcomes.len(), "failed": wrong},
        "missed": missed,
    });
    if let (Some((tested, finished)), Some(summary)) = (tested, summary.as_object_mut()) {
        summary.insert("rules".to_owned(), json!(tested.of.len()));
        summary.insert("hash".to_owned(), json!(tested.rules.hash()));
        summary.insert("packets".to_owned(), json!(finished.worker.received));
        summary.insert("flows".to_owned(), json!(finished.worker.flows_created));
        summary.insert("seconds".to_owned(), json!(finished.seconds));
        let complete = Ledger::of(finished, &tested.rules).input_complete;
        summary.insert("input_complete".to_owned(), json!(complete));
    }
    writeln!(out, "{}", json!({"summary": summary}))
}

fn stopped_json(stopped: &Stopped) -> Value {
    let example = because::to_json(std::slice::from_ref(&stopped.because)).pop();
    let mut of = example.unwrap_or_default();
    of["times"] = json!(stopped.times);
    of["unknown"] = json!(stopped.unknown);
    of
}

fn rule_json(tested: &Backtest, finished: &Finished, at: usize, of: &OfRule) -> Value {
    let Some(meta) = tested.rules.rules().get(at) else { return Value::Null };
    let seen = watched(&tested.rules, at);
    let (errors, error) = body_errors(finished, &meta.name);
    json!({
        "rule": meta.name, "file": meta.file, "line": meta.line, "scope": meta.scope.as_str(),
        "events": meta.events.iter().map(rules::Event::name).collect::<Vec<_>>(),
        "asked": seen.asked, "matched": matched(of, &seen), "unknown": seen.unknown, "faults": seen.faults,
        "flows": of.flows.len(), "incidents": of.incidents, "withdrawn": of.withdrawn,
        "would_capture": of.kept.len(), "would_watch": of.watched,
        "errors": errors, "error": error,
        "guard_ns": guard_ns(&seen), "body_us": body_us(&seen),
        "stopped_at": stopped(&tested.rules, at).iter().map(stopped_json).collect::<Vec<_>>(),
        "samples": of.samples.iter().map(|sample| &sample.json).collect::<Vec<_>>(), "says": of.says,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(expect: &[&str], paths: &[&str]) -> Result<Question, Failure> {
        question(&TestArgs {
            paths: paths.iter().map(PathBuf::from).collect(),
            expect: expect.iter().map(|&text| text.to_owned()).collect(),
            since: None,
            until: None,
            config: None,
            set: Vec::new(),
            json: false,
        })
    }

    #[test]
    fn expectations_are_taken_with_a_sign_or_a_blank() {
        let one = [Expectation { rule: "a-b".into(), incidents: 3 }];
        let with_sign = asked(&["a-b=3"], &["rules", "x.pcap"]).ok().unwrap();
        assert_eq!((with_sign.expectations.as_slice(), with_sign.cases), (&one[..], false));
        let with_blank = asked(&[""], &["a-b=3", "rules", "x.pcap"]).ok().unwrap();
        assert_eq!((with_blank.expectations.as_slice(), with_blank.cases), (&one[..], false));
        assert_eq!((with_blank.rules, with_blank.captures.len()), (PathBuf::from("rules"), 1));
        let both = asked(&["", "a-b=3"], &["rules", "x.pcap"]).ok().unwrap();
        assert!(both.cases && both.expectations == one);
        assert!(asked(&[], &["rules"]).ok().unwrap().cases);
        assert!(!asked(&[], &["rules", "x.pcap"]).ok().unwrap().cases);
        assert!(asked(&["a=b=c"], &["rules", "x.pcap"]).is_err() && asked(&["a=1"], &["rules"]).is_err());
    }
}
