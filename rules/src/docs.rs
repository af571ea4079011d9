//! docs/rules.md, written from the tables the language itself runs on, so that it cannot drift.
//!
//! Called by a test (which compares it with the file) and by whoever wants the page; no other thread.

use std::fmt::Write;

use crate::cases::Expect;
use crate::cookbook::cookbook;
use crate::event::Event;
use crate::facts::table::{Fact, Subject};
use crate::facts::{FlowFacts, HostFacts, LinkFacts, ServiceFacts};
use crate::language::RuleFile;
use crate::language::builtin;
pub use crate::language::builtin::Builtin;
use crate::language::syntax::Parser;
use crate::library::library;

const INTRODUCTION: &str = r#"# Rules

<!-- Generated from the rules crate. Regenerate: REGENERATE=1 cargo test -p rules docs -->

A rule file holds parameters, constants, helper functions and rules. `referee rules check PATH` says what is wrong in
it, with file, line and column.

```rhai
param idle_ms = 10_000;

fn seconds(ms) { ms / 1000 }

rule "quiet_then_reset" on rst
when flow.established && !flow.fin_seen && flow.idle_before_ms >= idle_ms
then {
    incident("warning", `reset after ${seconds(flow.idle_before_ms)} s of silence`);
    advise("set TCP keepalives");
    evidence("idle_ms", flow.idle_before_ms);
    capture(flow);
}
```

* `param name = VALUE;` is a number, `true`, `false` or a text. `--set RULE.PARAM=VALUE`, or `[rules.RULE]`
  in referee.toml, replaces the value by one of the same type; RULE is the name of a rule, or of a rule
  file without its extension. A param belongs to its file and is seen everywhere in it.
* `const NAME = VALUE;` is likewise seen everywhere in its file, and cannot be set from outside. A param or another
  constant can be computed from it.
* `rule "name" on EVENT[, EVENT] [severity "s"] [shadow] [sample N] [when CONDITION] then { BODY }`. The name is the
  incident's kind, and unique over all files.
* `severity "warning"` is the severity of `incident(text)` where the body names none.
* `shadow`: the rule only looks on. Its body runs, and what it would have opened and recorded is counted and told at the
  end, in the ledger (`rules.shadow`) and as metrics, as is what it counts with `count(name)`; nothing else of it is told,
  held or recorded.
* `sample N`: it takes one flow in N, always the same ones. Not on `tick`.
* `[rules.NAME]` and `--set` take `shadow` and `enabled` besides the params: `shadow = true` lets a rule only look on,
  `enabled = false` leaves it out.
* `fn name(a, b) { … }` helps bodies, and conditions too if it is a single expression. A condition evaluates an
  argument where the function reads it, and not at all if it doesn't.
* `//` and `/* */` are comments.

## Conditions

A condition runs for every such event, as native code. It can use facts, params, numbers, `+ - * / %`,
`== != < <= > >=`, `&& || !`, parentheses, and `in`:

| form | meaning |
|---|---|
| `flow.dport in [80, 443]` | one of |
| `flow.dport in 8000..9000`, `8000..=9000` | from, to before; from, to; of floats in conditions only |
| `flow.src in "10.0.0.0/8"`, `flow.src in ["10.0.0.0/8", "2001:db8::/32"]` | in a network |
| `flow.src == "10.0.0.1"` | an address |
| `flow.src !in "10.0.0.0/8"` | not in a network |
| `flow.sni == "example.com"`, `flow.dns_name in ["a.example", "b.example"]` | a name |
| `flow.sni.starts_with("www.")`, `.ends_with(".example.com")`, `.contains("shop")`, `"shop" in flow.sni` | a part of a name |

* `&&` and `||` stop at the first operand that decides.
* A fact that the capture cannot give is *unknown*. A condition that reaches an unknown fact does not match,
  whatever is around it: `!flow.by_orig` does not match either when the sender is unknown. In a body an
  unknown fact is `()`: ask `flow.ttl == ()`.
* Values of different types cannot be compared (a number with a bool, for example): the file is refused,
  as the comparison would never hold. Integers and floats mix.
* Names are compared as they are written in incidents, and without regard to the case of ASCII letters, as DNS does; in
  bodies texts differ by case. Names of more than 61 characters are cut: what the rest would decide is unknown.
* Integers have 64 bits. An overflow or a division by zero means no match, and is counted for the rule.
  In a body a float divided by zero is infinite, and no comparison with that holds: ask for the divisor first.

## Bodies

A body is a [Rhai](https://rhai.rs/book) script; it runs apart from the packets' way, on a snapshot of the
facts, with limits on operations, depth, sizes and, on a live capture, time. It reaches no file, network,
clock or randomness.

* Lists and maps have at most 256 elements, with those of lists in them, texts 8,192 bytes. What handles many elements or
  a long text costs more than one operation.
* `state["name"]` is what the rule remembers from one run to the next: numbers, bools and texts, up to 64 names and 8 KiB.
  A name not set reads as `()`, and setting `()` takes it out. It belongs to the rule's name.
* A run that fails or is stopped leaves nothing behind: no verdict, no capture, `state` and counters as they were.
* A rule whose body fails 20 times in a row (`failures_before_off`), is stopped by its limits 3 times in a row, or fails
  in more than half of its last 64 runs is switched off, alone: it matches nothing any more until another text or other
  params of its file are loaded. On a live capture so is the costliest of them where failing bodies take more than 200 ms
  in a second. An incident `rule_switched_off` says so at once.
"#;

/// The page.
pub fn markdown() -> String {
    let mut page = INTRODUCTION.to_owned();
    functions(&mut page, "It decides with", builtin::VERDICT);
    functions(&mut page, "writes numbers and ends for people with", builtin::WORDS);
    functions(
        &mut page,
        "and computes with Rhai's operators, `let`, `if`, `switch`, `for`, `while` and",
        builtin::PLAIN,
    );
    events(&mut page);
    page.push_str("\n## Facts\n");
    facts::<FlowFacts>(&mut page, "of a flow, in rules on any event but `tick`");
    facts::<HostFacts>(&mut page, "of a host, in rules on `tick`; a window is 1, 10 or 60 seconds");
    facts::<ServiceFacts>(&mut page, "of a service, in rules on `tick`; a window is 1, 10 or 60 seconds");
    facts::<LinkFacts>(&mut page, "of all traffic, in rules on `tick`; a window is 1, 10 or 60 seconds");
    cases(&mut page);
    recipes(&mut page);
    shipped(&mut page);
    page
}

/// The functions a body can call.
pub fn body_functions() -> impl Iterator<Item = &'static Builtin> {
    builtin::VERDICT.iter().chain(builtin::WORDS).chain(builtin::PLAIN)
}

/// Writing to a `String` cannot fail.
macro_rules! line {
    ($page:expr, $($text:tt)*) => { let _ = writeln!($page, $($text)*); };
}

fn functions(page: &mut String, heading: &str, builtins: &[Builtin]) {
    line!(page, "\n{heading}\n\n| call | meaning |\n|---|---|");
    for builtin in builtins {
        let calls: Vec<String> = builtin.usage.split("), ").map(complete_call).collect();
        line!(page, "| {} | {} |", calls.join(", "), builtin.doc);
    }
}

/// Splitting at `), ` took the parenthesis away.
fn complete_call(call: &str) -> String {
    match call.ends_with(')') {
        true => format!("`{call}`"),
        false => format!("`{call})`"),
    }
}

fn events(page: &mut String) {
    line!(page, "\n## Events\n\n| event | when |\n|---|---|");
    for event in Event::ALL {
        line!(page, "| `{}` | {} |", event.name(), event_doc(event));
    }
}

/// When an event is raised.
pub fn event_doc(event: Event) -> &'static str {
    match event {
        Event::Syn => "A SYN without ACK was seen, first or repeated.",
        Event::SynAck => "A SYN-ACK was seen, first or repeated.",
        Event::SynTimeout => {
            "A SYN is still without SYN-ACK and RST; raised 1, 2, 3 … seconds after the first SYN."
        }
        Event::Established => "The handshake was completed by the client's ACK.",
        Event::Rst => "A segment with the RST flag was seen.",
        Event::Retransmission => "A segment repeated sequence space already sent.",
        Event::ZeroWindow => "A segment advertised a zero receive window.",
        Event::WindowFull => "A segment filled the receiver's window to its edge (tcp.analysis.window_full).",
        Event::SackGarbled => "A selective acknowledgement names bytes outside the sequence space.",
        Event::CongestionEcho => "A segment other than a SYN had the ECN echo flag (RFC 3168).",
        Event::Keepalive => "A TCP keepalive probe was seen.",
        Event::IcmpTooBig => {
            "ICMP \"fragmentation needed\" (3/4) or ICMPv6 \"packet too big\" (2) quoted this flow."
        }
        Event::DnsAnswer => "A DNS question got its answer.",
        Event::DnsTimeout => {
            "A DNS question is without answer; raised 1, 2, 3 … 10 seconds after it was first asked."
        }
        Event::DnsRetry => "A DNS question without answer was asked again by the same client.",
        Event::TlsTimeout => {
            "A TLS ClientHello is without answer; raised 1, 2, 3 … 10 seconds after it, and when an alert or a FIN came."
        }
        Event::TlsHello => "A TLS ClientHello was seen.",
        Event::HttpError => "An HTTP/1 answer in clear text has a status of 500 to 599.",
        Event::FirstByte => "The first byte of an answer came a second or more after its request.",
        Event::IcmpUnreachable => "ICMP \"destination unreachable\" or \"time exceeded\" quoted this flow.",
        Event::AfterRst => {
            "A packet followed from a side in whose name a RST was seen; raised for the 1st, 2nd, 4th, 8th … and for the one \
             that shows the RST not to be that side's."
        }
        Event::Stalled => {
            "One side sends and nothing at all comes back, or its window is closed; raised 5, 10, 20, 40 s after \
             that began, every 40 s from then on as long as there are attempts, and when it ends after 5 s or more."
        }
        Event::Disproved => {
            "What a rule has said of this flow may be wrong after all: a segment that was stuck has arrived, the receiver \
             says that a repeat was needless (RFC 2883), or the alleged sender of a RST goes on after it. Only rules that \
             matched on the flow before are asked."
        }
        Event::ChallengeAck => {
            "A SYN was answered by an ACK that does not acknowledge it: of an old connection (RFC 5961 §4.2)."
        }
        Event::Idle => {
            "An established connection is silent; raised 10, 20, 40 … seconds after its last packet."
        }
        Event::Close => "The flow ended: closed by both sides, reset, timed out, or the input ended.",
        Event::Tick => {
            "100 ms of packet time passed. The rule is about each host, or each service, as its facts say. Health (`syns`, \
             `established`, `closed`) is told at the end of a second, all else at once; if a rule reads one of these \
             over a single second, that one too."
        }
    }
}

fn facts<S: Subject>(page: &mut String, what: &str) {
    line!(page, "\n### `{}`: {what}\n\n| fact | type | unit | meaning |\n|---|---|---|---|", S::ROOT);
    for fact in S::facts() {
        line!(page, "| `{}` | {} | {} | {} |", written(fact), fact.type_name(), fact.unit, fact.doc);
    }
}

fn written<S>(fact: &Fact<S>) -> String {
    match fact.is_windowed() {
        true => format!("{}(window)", fact.path),
        false => fact.path.to_owned(),
    }
}

const CASES: &str = r#"
## Trying a rule

`referee rules test RULES FILE...` says what the rules would have done on captures, or on the packets a store has kept:
for each rule how often it was asked and matched, flows, incidents, captures, what it costs, and some flows with what
the condition saw. `referee rules explain INCIDENT` says the same of an incident.

A rule's cases stand beside it, `NAME.cases.toml` beside `NAME.rhai`; `referee rules test RULES` runs them.

```toml
[[case]]
name = "a reset after five minutes of silence"
event = "rst"                   # one of the rule's; without it, its first
rule = "quiet_then_reset"       # not needed where the file has one rule
facts.flow = { established = true, idle_before_ms = 300_000 }
expect = "incident"
severity = "warning"            # these three only where they matter
says = "300 s"
captures = true

[[case]]
name = "with another parameter"
set = { idle_ms = 400_000 }
facts.flow = { established = true, idle_before_ms = 300_000 }
expect = "no_match"

[[case]]
name = "in a capture beside this file"
pcap = "reset.pcap"
incidents = 1                   # and, or instead, flows = 3 that match
```

* Facts go by the names rules use: `facts.flow = { dport = 443, orig = { mss = 1460 } }`, or
  `facts = { "flow.dport" = 443, "host.rsts(10)" = 60 }`. Of the others those that can be unknown are, and the rest are
  0 or false. A fact that follows from others (`flow.rtt_us`) can't be given: give those.
* On `rst` and `disproved`, `flow.rst` and `flow.disproved` are true.

| expect | meaning |
|---|---|
"#;

const fn outcome(expect: Expect) -> &'static str {
    match expect {
        Expect::Incident => "The condition holds, and the body names an incident.",
        Expect::Quiet => "The condition holds, and the body names none.",
        Expect::Match => "The condition holds, whatever the body says.",
        Expect::NoMatch => "The condition does not hold.",
        Expect::Unknown => "The condition reaches a fact that is not known.",
        Expect::Fault => "The condition overflows or divides by zero.",
    }
}

fn cases(page: &mut String) {
    page.push_str(CASES);
    for expect in Expect::ALL {
        line!(page, "| `{}` | {} |", expect.name(), outcome(expect));
    }
}

/// The cookbook, whole: it is there to be copied.
fn recipes(page: &mut String) {
    line!(
        page,
        "\n## Cookbook\n\nRules to take, set and change; [rules/cookbook](../rules/cookbook) has them with their cases."
    );
    for source in cookbook() {
        let name = source.name.trim_end_matches(".rhai");
        line!(page, "\n### {name}\n\n```rhai\n{}\n```", source.text.trim_end());
    }
}

fn shipped(page: &mut String) {
    line!(page, "\n## Shipped rules\n\nUsed when `--rules` names no directory.");
    let parser = Parser::new();
    for source in library() {
        let file = RuleFile::parse(&parser, &source);
        for rule in &file.rules {
            let events: Vec<String> = rule.events.iter().map(|event| format!("`{}`", event.text)).collect();
            line!(page, "\n### `{}` on {}\n", rule.name.text, events.join(", "));
        }
        page.push_str("```text\n");
        for comment in source.text.lines().map_while(|line| line.strip_prefix("//")) {
            line!(page, "{}", comment.strip_prefix(' ').unwrap_or(comment));
        }
        page.push_str("```\n");
        let settable = |name: &&String| !file.constants.contains(*name);
        if file.params.keys().any(|name| settable(&name)) {
            line!(page, "\n| param | default |\n|---|---|");
        }
        for (name, value) in file.params.iter().filter(|(name, _)| settable(name)) {
            line!(page, "| `{}.{name}` | {value} |", file.stem);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn docs_page_is_up_to_date() {
        let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/rules.md");
        let page = markdown();
        if std::env::var_os("REGENERATE").is_some() {
            std::fs::write(&path, &page).unwrap();
        }
        let on_disk = std::fs::read_to_string(&path).unwrap_or_default();
        assert!(
            on_disk == page,
            "docs/rules.md is out of date; regenerate it: REGENERATE=1 cargo test -p rules docs"
        );
    }

    #[test]
    fn the_example_in_the_introduction_loads() {
        let example =
            INTRODUCTION.split("```rhai\n").nth(1).and_then(|rest| rest.split("```").next()).unwrap();
        let source = crate::SourceFile { name: "example.rhai".to_owned(), text: example.to_owned() };
        crate::RuleSet::load(&[source], &[]).unwrap();
    }
}
