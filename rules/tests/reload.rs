//! A set loaded after another: numbers and counters go with the names, texts with the sets.

#![allow(clippy::unwrap_used, clippy::panic, reason = "test code: a panic is a failed test")]

use std::sync::Arc;

use rules::facts::FlowFacts;
use rules::{Bodies, BodyLimits, Event, Hits, Override, RuleSet, Snapshot, SourceFile};

/// A rule for each name, in a file of its own, matching ports above `low`.
fn files(names: &[&str], low: u16) -> Vec<SourceFile> {
    let text = |name: &str| {
        format!(
            "param low = {low};\nrule \"{name}\" on rst when flow.dport > low then {{ incident(\"info\", `{low}`); }}"
        )
    };
    names.iter().map(|name| SourceFile { name: format!("{name}.rhai"), text: text(name) }).collect()
}

fn after(previous: &RuleSet, files: &[SourceFile]) -> RuleSet {
    RuleSet::load_after(Some(previous), files, &[]).unwrap()
}

/// Names of the rules that match a RST to this port.
fn matching(set: &RuleSet, port: u16) -> Vec<&str> {
    let (mut hits, facts) = (Hits::new(), FlowFacts { dport: port, ..FlowFacts::default() });
    set.match_flow(Event::Rst, &facts, &mut hits);
    let mut names: Vec<_> =
        hits.as_slice().iter().map(|rule| set.rules()[usize::from(*rule)].name.as_str()).collect();
    names.sort_unstable();
    names
}

#[test]
fn a_name_keeps_its_number_whatever_comes_and_goes() {
    let first = RuleSet::load(&files(&["a", "b", "c"], 1), &[]).unwrap();
    let second = after(&first, &files(&["c", "0new", "a"], 1));
    let third = after(&second, &files(&["b"], 1));
    assert_eq!([1, 2, 3], [&first, &second, &third].map(RuleSet::generation));
    for (set, names) in [(&first, &["a", "b", "c"][..]), (&second, &["0new", "a", "c"]), (&third, &["b"])] {
        assert_eq!(matching(set, 9), names);
        let mut in_force: Vec<_> = set.in_force().map(|(_, meta)| meta.name.as_str()).collect();
        in_force.sort_unstable();
        assert_eq!(in_force, names);
    }
    for (name, number) in [("a", 0), ("b", 1), ("c", 2), ("0new", 3)] {
        assert_eq!(third.number(name), Some(number));
        assert_eq!(third.rules()[usize::from(number)].name, name, "a name outlives its rule");
    }
    assert_eq!(second.number("b"), Some(1));
    assert_eq!(first.number("0new"), None);
    assert!(!second.rules()[1].in_force && second.rules()[1].comment(Event::Rst).contains("b (rst)"));
}

#[test]
fn a_set_loaded_after_another_is_the_one_that_would_have_been_loaded_first() {
    let first = RuleSet::load(&files(&["a", "b"], 1), &[]).unwrap();
    let (fresh, second) = (RuleSet::load(&files(&["b"], 5), &[]).unwrap(), after(&first, &files(&["b"], 5)));
    assert_eq!(fresh.hash(), second.hash());
    assert_eq!(fresh.flow_events(), second.flow_events());
    assert!(after(&second, &[]).flow_events().is_empty());
    assert_eq!((matching(&second, 5), matching(&second, 6)), (vec![], vec!["b"]));
}

#[test]
fn a_rule_that_is_gone_cannot_be_run_and_one_that_stayed_runs_as_its_set_has_it() {
    let first = Arc::new(RuleSet::load(&files(&["a", "b"], 1), &[]).unwrap());
    let second = Arc::new(after(&first, &files(&["b"], 5)));
    let mut bodies = Bodies::new(Arc::clone(&first), BodyLimits::default());
    let facts = FlowFacts::default();
    let mut says = |set: &Arc<RuleSet>, rule| {
        bodies.follow(set);
        let verdict = bodies.run(rule, &Snapshot::Flow(&facts, Event::Rst)).ok()?;
        Some((verdict.incident.unwrap().1, verdict.rules_hash))
    };
    assert_eq!(says(&first, 1), Some(("1".to_owned(), first.shared_hash())));
    assert_eq!(says(&second, 1), Some(("5".to_owned(), second.shared_hash())));
    assert_eq!((says(&second, 0), says(&first, 0).is_some()), (None, true));
}

#[test]
fn counts_go_on_under_the_name() {
    let rule = |body: &str| {
        let text = format!("rule \"r\" on rst when 100 / flow.dport > 1 then {{ {body} }}");
        vec![SourceFile { name: "r.rhai".to_owned(), text }]
    };
    let first = RuleSet::load(&rule(""), &[]).unwrap();
    matching(&first, 0);
    let gone = after(&first, &files(&["a"], 1));
    let second = after(&gone, &rule("incident(\"info\", `x`);"));
    matching(&second, 0);
    assert_eq!([first.guard_faults(0), gone.guard_faults(0), second.guard_faults(0)], [2; 3]);
    second.counters(0).unwrap().count_match();
    assert_eq!(first.counters(0).unwrap().matched(), 1);
}

#[test]
fn another_text_parameter_or_helper_makes_another_rule_of_the_same_name() {
    let text =
        "param low = 1;\nfn twice(x) { x * 2 }\nrule \"r\" on rst when flow.dport > twice(low) then { }";
    let load = |text: &str, value: &str| {
        let set = Override { rule: "r".into(), param: "low".into(), value: value.into() };
        let set = RuleSet::load(&[SourceFile { name: "r.rhai".into(), text: text.into() }], &[set]).unwrap();
        set.rules()[0].fingerprint
    };
    let same = load(text, "1");
    assert_eq!(same, load(&format!("// a remark\n\n{text}\nrule \"other\" on rst then {{ }}"), "1"));
    let changed = [text.replace("x * 2", "x * 3"), text.replace("> twice", ">= twice")];
    assert!(changed.iter().all(|text| load(text, "1") != same) && load(text, "2") != same);
}
