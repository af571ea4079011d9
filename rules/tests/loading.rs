//! What the loader refuses, where it says the mistake is, and what it says to do.

#![allow(clippy::unwrap_used, clippy::panic, reason = "test code: a panic is a failed test")]

use rules::{LoadError, Override, RuleSet, SourceFile};

fn file(name: &str, text: &str) -> SourceFile {
    SourceFile { name: name.to_owned(), text: text.to_owned() }
}

fn errors_of(files: &[SourceFile], overrides: &[Override]) -> Vec<LoadError> {
    RuleSet::load(files, overrides).err().unwrap_or_default()
}

fn errors(text: &str) -> Vec<LoadError> {
    errors_of(&[file("t.rhai", text)], &[])
}

/// The only error of a file, as (line, column, message).
#[track_caller]
fn only(text: &str) -> (usize, usize, String) {
    let found = errors(text);
    assert_eq!(found.len(), 1, "{text}\n{found:#?}");
    (found[0].line, found[0].column, found[0].message.clone())
}

#[track_caller]
fn refused(text: &str, line: usize, column: usize, message: &str) {
    let found = only(text);
    assert_eq!((found.0, found.1), (line, column), "{text}\n{}", found.2);
    assert!(found.2.contains(message), "{text}\n{}", found.2);
}

/// A rule with the given condition, which begins in column 6 of line 2.
fn guard(condition: &str) -> String {
    format!("rule \"x\" on rst\nwhen {condition} then {{ }}")
}

/// A rule with the given body, which begins in column 3 of line 2.
fn body(body: &str) -> String {
    format!("rule \"x\" on rst then {{\n  {body}\n}}")
}

#[test]
fn types_are_checked_where_they_meet() {
    refused(&guard("flow.established > 3"), 2, 23, "cannot compare a bool with an integer");
    refused(&guard("flow.orig.packets == true"), 2, 24, "cannot compare an integer with a bool");
    refused(&guard("flow.dport == \"80\""), 2, 17, "cannot compare an integer with text");
    refused(&guard("flow.established > flow.fin_seen"), 2, 23, "cannot compare a bool with a bool");
    refused(&guard("flow.src + 1 == 2"), 2, 15, "`+` cannot combine an address with an integer");
    refused(&guard("flow.dport"), 2, 6, "a rule's condition must be a bool, not an integer");
    refused(&guard("flow.established && flow.dport"), 2, 26, "an operand of `&&` must be a bool");
    refused(&guard("!flow.dport"), 2, 6, "`!` cannot be applied to an integer");
    refused(&guard("flow.src == \"10.0.0.0/8\""), 2, 15, "is a network, not an address");
    refused(&guard("flow.src in \"10.0.0.1/8\""), 2, 18, "beyond its prefix length");
    refused(&guard("flow.dport in \"80\""), 2, 17, "`in` cannot look for an integer here");
    refused(&guard("flow.established in [1, 2]"), 2, 23, "`in` cannot look for a bool");
}

#[test]
fn every_mistake_of_a_condition_is_reported() {
    let found = errors(&guard("flow.established > 3 && flow.nothing && 1 + true == 2"));
    let columns: Vec<usize> = found.iter().map(|error| error.column).collect();
    assert_eq!(columns, [23, 30, 48], "{found:#?}");
}

#[test]
fn what_conditions_cannot_hold_is_refused_with_help() {
    refused(&guard("if flow.established { true } else { false }"), 2, 6, "`if`, `switch` or a block");
    refused(&guard("flow.ttl ?? 3 > 2"), 2, 6, "`??`");
    refused(&guard("flow.dport & 1 == 1"), 2, 17, "`&` cannot be used");
    refused(&guard("flow.dport ** 2 == 1"), 2, 17, "`**` cannot be used");
    refused(&guard("flow.src.to_string() == \"x\""), 2, 6, "there is no fact `flow.src.to_string`");
    refused(&guard("incident(\"info\", \"x\")"), 2, 6, "`incident` cannot be called in a condition");
    refused(&guard("flow == 1"), 2, 6, "`flow` alone");
    refused(&guard("[1] == 1"), 2, 6, "a list cannot be used");
    refused(&guard("(rule \"y\" on rst then { })"), 2, 7, "a rule inside a condition");
    for error in errors(&guard("flow.ttl ?? 3 > 2")) {
        assert!(error.help.is_some_and(|help| help.contains("unknown")));
    }
}

#[test]
fn unknown_names_are_answered_with_the_nearest() {
    let near = |text: &str| errors(text)[0].help.clone().unwrap();
    assert_eq!(near(&guard("flow.establishd")), "did you mean `flow.established`?");
    assert_eq!(near(&guard("flow.orig.mms > 3")), "did you mean `flow.orig.mss`?");
    assert_eq!(near("param idle = 3;\nrule \"x\" on rst when idel > 2 then { }"), "did you mean `idle`?");
    assert_eq!(near("rule \"x\" on retransmision then { }"), "did you mean `retransmission`?");
    assert_eq!(near(&body("incidnet(\"info\", \"x\");")), "did you mean `incident`?");
    refused("rule \"x\" on retransmision then { }", 1, 13, "there is no event");
    refused(&body("let a = flow.orig.packet;"), 2, 21, "there is no fact `flow.orig.packet`");
    refused(&body("incident(\"info\", `${flw.src}`);"), 2, 23, "`flw` is not known here");
}

#[test]
fn bodies_are_read_before_they_run() {
    refused(&body("let a = 1; a = b;"), 2, 18, "`b` is not known");
    refused("param p = 1;\nrule \"x\" on rst then { p = 2; }", 2, 24, "`p` cannot be assigned to");
    refused(&body("rule \"y\" on rst then { }"), 2, 3, "only stand at the top");
    refused("fn f() {\n  rule \"y\" on rst then { }\n}", 2, 3, "only stand at the top");
    refused("fn f(a) { a }\nrule \"x\" on rst then { f(1, 2); }", 2, 24, "takes 1 argument(s), not 2");
    refused("fn f() { nothing }", 1, 10, "`nothing` is not known");
    assert!(errors(&body("let a = 1; for i in 0..3 { a += i; } while a > 0 { a -= 1; }")).is_empty());
}

#[test]
fn what_reaches_outside_is_refused() {
    for (script, column) in [
        ("sleep(1);", 3),
        ("eval(\"1\");", 3),
        ("print(1);", 3),
        ("debug(1);", 3),
        ("timestamp();", 3),
        ("import \"x\" as y;", 3),
        ("Fn(\"capture\");", 3),
        ("open_file(\"x\");", 3),
        ("rand();", 3),
        ("exit();", 3),
    ] {
        let found = errors(&body(script));
        assert!(!found.is_empty(), "{script}");
        assert_eq!((found[0].line, found[0].column), (2, column), "{script} {found:?}");
    }
    assert!(!errors(&body("let f = |x| x + 1;")).is_empty());
    assert!(!errors(&body("let f = capture; f.call(flow);")).is_empty());
}

#[test]
fn the_top_of_a_file_holds_params_constants_rules_and_functions() {
    assert!(errors("const A = 3; const B = 2 * A; param c = A + B; const D = \"x\";").is_empty());
    refused("const A = 3; const A = 4;", 1, 20, "declared twice");
    refused("const A = flow.dport;", 1, 11, "a parameter's value must be a constant");
    refused("param a = 3;\nconst B = a;", 2, 11, "`a` is not known here");
    refused("const A;", 1, 1, "this constant is not well-formed");
    refused("const = 3;", 1, 7, "");
    refused("const A = 3", 1, 1, "this constant is not well-formed");
    refused(&body("const A = 3; param b = 4;").replace("  const", "const"), 2, 14, "");
    assert!(errors(&body("const A = 3; evidence(\"a\", A);").replace("  const", "const")).is_empty());
    refused("let a = 3;", 1, 1, "`let` cannot stand");
    refused("incident(\"info\", \"x\");", 1, 1, "`incident` cannot stand");
    refused("rule \"x\" on rst then { }\n[0];", 2, 1, "only `param`, `const`, `rule` and `fn`");
    refused("param a = 99999999999999999999;", 1, 11, "does not fit a 64-bit integer");
    refused("param a = flow.dport;", 1, 11, "a parameter's value must be a constant");
    refused("param a = 1 / 0;", 1, 11, "a parameter's value must be a constant");
    refused("param a = 1;\nparam a = 2;", 2, 7, "declared twice");
    refused("param flow = 1;", 1, 7, "the name of the facts");
    refused("fn capture(x) { x }", 1, 1, "is a function of the language");
    assert!(errors("param a = 5 * 60 * 1_000; param b = -1.5; param c = true; param d = \"x\"").len() == 1);
    assert!(errors("param a = 5 * 60 * 1_000; param b = -1.5; param c = true; param d = \"x\";").is_empty());
    assert!(errors("").is_empty());
    assert!(errors("\u{feff}// only a comment").is_empty());
}

#[test]
fn the_form_of_a_rule() {
    refused("rule x on rst then { }", 1, 6, "stand in double quotes");
    refused("rule \"x\" on rst severity warning then { }", 1, 26, "stand in double quotes");
    refused("rule \"x\" on rst when flow.dport = 80 then { }", 1, 33, "compared with `==`, not `=`");
    refused("rule \"x\" when true then { }", 1, 10, "expected `on`");
    refused("rule \"x\" on rst { }", 1, 17, "expected `when` or `then`");
    refused("rule \"x\" on rst when true { }", 1, 27, "expected `then`");
    refused("rule \"x\" on rst then incident(1)", 1, 22, "expected `{` after `then`");
    refused("rule \"x.y\" on rst then { }", 1, 6, "cannot be a rule's name");
    refused("rule \"\" on rst then { }", 1, 6, "cannot be a rule's name");
    refused("rule \"x\" on rst, rst then { }", 1, 18, "named twice");
    refused("rule \"x\" on rst then {\n  if true {\n}", 3, 2, "'}'");
}

#[test]
fn the_scope_must_fit_the_event() {
    refused(
        "rule \"x\" on rst when host.rsts(1) > 3 then { }",
        1,
        22,
        "`host`, `service` and `link` have no facts here",
    );
    refused("rule \"x\" on rst then { capture(link); }", 1, 32, "all traffic cannot be captured");
    let wrong = errors("rule \"x\" on tick when link.rsts(1) > 1 then { link.capture(); }");
    assert!(wrong[0].message.contains("all traffic cannot be captured"), "{wrong:#?}");
    refused("rule \"x\" on tick when link.rsts(1) > 1 then { capture(link); }", 1, 55, "cannot be captured");
    refused("rule \"x\" on tick when host.rsts(1) > 1 then { capture(service); }", 1, 55, "both `host` and");
    refused(
        "rule \"x\" on rst then { capture(host); let a = host.rsts(1); }",
        1,
        47,
        "`host`, `service` and `link`",
    );
    let holds = |text: &str| RuleSet::load(&[file("t.rhai", text)], &[]).unwrap().rules()[0].holds;
    assert!(holds("rule \"x\" on rst then { capture(flow); capture(host); }"));
    assert!(holds("fn keep(x) { capture(x); }\nrule \"x\" on rst then { keep(flow); }"));
    assert!(!holds("rule \"x\" on rst then { capture(host); capture(service, #{packets: 3}); }"));
    assert!(holds("rule \"x\" on tick then { capture(host); }"));
    refused("rule \"x\" on tick when flow.established then { }", 1, 23, "`flow` has no facts here");
    refused("rule \"x\" on tick then { }", 1, 6, "must name a fact of `host`, `service` or `link`");
    refused("rule \"x\" on rst when link.syns(1) > 3 then { }", 1, 22, "`host`, `service` and `link`");
    refused("rule \"x\" on tick when link.syns(1) > host.syns(1) then { }", 1, 23, "both `host` and `link`");
    refused("rule \"x\" on tick, rst when host.rsts(1) > 3 then { }", 1, 6, "cannot be combined");
    refused(
        "rule \"x\" on tick when host.rsts(1) > 3 then { advise(`${service.port}`); }",
        1,
        57,
        "both `host` and",
    );
    refused("rule \"x\" on tick when host.rsts(2) > 3 then { }", 1, 33, "no counts are kept over 2 s");
    refused("rule \"x\" on tick when host.rsts > 3 then { }", 1, 23, "needs a window");
    refused("rule \"x\" on tick when host.addr(1) == 3 then { }", 1, 28, "is not a function");
    // A helper function speaks for the rule that calls it.
    refused(
        "fn f() { host.rsts(1) }\nrule \"x\" on rst then { f(); }",
        1,
        10,
        "`host`, `service` and `link`",
    );
}

#[test]
fn all_errors_of_all_files_are_reported_in_order() {
    let a = "rule \"a\" on rst when flow.nope then { }\nrule \"b\" on rst { }\nrule \"c\" on rst then { nope(); }";
    let b = "param x = ;\nrule \"a\" on rst then { }";
    let found = errors_of(&[file("b.rhai", b), file("a.rhai", a)], &[]);
    let places: Vec<_> = found.iter().map(|e| (e.file.as_str(), e.line)).collect();
    assert_eq!(places, [("a.rhai", 1), ("a.rhai", 2), ("a.rhai", 3), ("b.rhai", 1), ("b.rhai", 2)]);
    assert!(found[4].message.contains("already a rule \"a\""), "{}", found[4].message);
    assert!(found[4].help.as_ref().unwrap().contains("a.rhai:1"));
    assert!(
        found[4].to_string().starts_with("b.rhai:2:6: there is already a rule \"a\" at a.rhai:1\n  help: ")
    );
}

#[test]
fn helper_functions_in_conditions() {
    let rule = |function: &str| format!("{function}\nrule \"x\" on rst when f(flow.dport) then {{ }}");
    assert!(errors(&rule("fn f(p) { p == 80 || p == 443 }")).is_empty());
    refused(&rule("fn f(p) { let q = p; q == 80 }"), 2, 22, "`f` cannot be called in a condition");
    refused(&rule("fn f(p) { f(p) }"), 1, 11, "calls itself");
    refused(&rule("fn f(p) { p + 1 }"), 2, 22, "must be a bool, not an integer");
    let doubling: String =
        (1..16).map(|i| format!("fn f{i}(x) {{ f{}(x) + f{}(x) }}\n", i - 1, i - 1)).collect();
    let bomb = format!("fn f0(x) {{ x }}\n{doubling}rule \"x\" on rst when f15(1) == 3 then {{ }}");
    assert!(errors(&bomb)[0].message.contains("too large"));
}

#[test]
fn overrides_are_checked() {
    let source = [file(
        "dir/storm.rhai",
        "param per_second = 50; param net = \"10.0.0.0/8\";\nrule \"rst_storm\" on rst when flow.src in net then { }",
    )];
    let set = |rule: &str, param: &str, value: &str| {
        let set = Override { rule: rule.to_owned(), param: param.to_owned(), value: value.to_owned() };
        errors_of(&source, &[set]).into_iter().map(|e| e.to_string()).collect::<String>()
    };
    assert_eq!(set("rst_storm", "per_second", "1_000"), "");
    assert_eq!(set("storm", "net", "192.168.0.0/16"), "");
    let wrong = set("rst_strom", "per_second", "1");
    assert!(
        wrong.starts_with(
            "--set: there is no rule or rule file `rst_strom`\n  help: did you mean `rst_storm`?"
        ),
        "{wrong}"
    );
    assert!(set("storm", "per_secnd", "1").contains("did you mean `storm.per_second`?"));
    assert!(set("storm", "per_second", "fast").contains("is an integer; `fast` is not"));
    // A value of the right type can still be wrong where it is used; that is told at its use.
    assert!(set("storm", "net", "10.0.0.0/99").contains("prefix length"));
}

#[test]
fn the_hash_follows_contents_and_params_not_the_order_of_listing() {
    let a = file("a.rhai", "param x = 1; rule \"a\" on rst when flow.dport == x then { }");
    let b = file("b.rhai", "rule \"b\" on rst then { }");
    let hash = |files: &[SourceFile], overrides: &[Override]| {
        RuleSet::load(files, overrides).unwrap().hash().to_owned()
    };
    let plain = hash(&[a.clone(), b.clone()], &[]);
    assert_eq!(plain.len(), 64);
    assert_eq!(plain, hash(&[b.clone(), a.clone()], &[]));
    let set = |value: &str| Override { rule: "a".to_owned(), param: "x".to_owned(), value: value.to_owned() };
    assert_eq!(plain, hash(&[a.clone(), b.clone()], &[set("1")]));
    assert_ne!(plain, hash(&[a.clone(), b.clone()], &[set("2")]));
    assert_ne!(plain, hash(&[a], &[]));
}

#[test]
fn hostile_files_give_errors_not_crashes() {
    let deep = format!("rule \"x\" on rst when {}true{} then {{ }}", "(".repeat(5_000), ")".repeat(5_000));
    assert!(!errors(&deep).is_empty());
    let nots = format!("rule \"x\" on rst when {}true then {{ }}", "!".repeat(5_000));
    assert!(!errors(&nots).is_empty());
    let blocks = format!("rule \"x\" on rst then {}{}", "{".repeat(4_000), "}".repeat(4_000));
    assert!(!errors(&blocks).is_empty());
    assert!(errors(&"\n".repeat(20_000))[0].message.contains("lines"));
    assert!(errors(&" ".repeat(2 << 20))[0].message.contains("bytes"));
    assert!(errors(&" ".repeat(20_000))[0].message.contains("characters"));
    for junk in [
        "\"",
        "`",
        "`${",
        "/*",
        "#\"",
        "'",
        "rule",
        "param",
        "fn",
        "rule \"",
        "}",
        ")",
        "\0",
        "rule \"x\" on",
    ] {
        let _ = errors(junk);
    }
    assert!(!errors("rule \"x\" on rst then { `${ ").is_empty());
}

#[test]
fn the_header_says_severity_shadow_and_sample() {
    let meta = |header: &str| {
        let text = format!("rule \"x\" on rst, close {header} then {{ }}");
        let set = RuleSet::load(&[file("t.rhai", &text)], &[]).unwrap_or_else(|e| panic!("{header}: {e:#?}"));
        let meta = &set.rules()[0];
        (meta.severity.map(rules::Severity::as_str), meta.shadow, meta.sample, meta.enabled)
    };
    assert_eq!(meta(""), (None, false, 1, true));
    assert_eq!(
        meta("severity \"info\" shadow sample 10 when flow.established"),
        (Some("info"), true, 10, true)
    );
    assert_eq!(meta("sample 2 severity \"critical\""), (Some("critical"), false, 2, true));
    assert_eq!(meta("shadow"), (None, true, 1, true));
    refused("rule \"x\" on rst severity \"bad\" then { }", 1, 26, "no severity \"bad\"");
    refused("rule \"x\" on rst then { incident(\"warn\", \"x\"); }", 1, 33, "no severity \"warn\"");
    refused("rule \"x\" on rst sample 0 then { }", 1, 24, "one flow in how many");
    refused("rule \"x\" on rst shadow shadow then { }", 1, 6, "said twice");
    refused("rule \"x\" on tick sample 5 when host.rsts(1) > 1 then { }", 1, 25, "a tick has none");
    refused("rule \"x\" on rst severity then { }", 1, 26, "");
    refused("rule \"x\" on rst then { incident(\"text\"); }", 1, 24, "names a severity");
    refused("rule \"rule_switched_off\" on rst then { }", 1, 6, "tells of failing rules");
    let helper = "fn tell() { incident(\"text\"); }\nrule \"x\" on rst severity \"info\" then { tell(); }";
    assert!(errors(helper).is_empty());
}

#[test]
fn rules_are_switched_from_outside() {
    let text = "rule \"a\" on rst then { }\nrule \"b\" on rst shadow then { }";
    let set = |rule: &str, param: &str, value: &str| Override {
        rule: rule.to_owned(),
        param: param.to_owned(),
        value: value.to_owned(),
    };
    let load = |sets: &[Override]| RuleSet::load(&[file("t.rhai", text)], sets).unwrap();
    let seen = |rules: &RuleSet| rules.rules().iter().map(|r| (r.shadow, r.enabled)).collect::<Vec<_>>();
    assert_eq!(seen(&load(&[])), [(false, true), (true, true)]);
    let switched = load(&[set("a", "shadow", "true"), set("b", "enabled", "false")]);
    assert_eq!(seen(&switched), [(true, true), (true, false)]);
    assert_eq!(seen(&load(&[set("t", "shadow", "false")])), [(false, true), (false, true)]);
    assert_ne!(switched.hash(), load(&[]).hash());
    assert_eq!(switched.rules()[0].fingerprint, load(&[]).rules()[0].fingerprint);
    let mut hits = rules::Hits::new();
    switched.match_flow(rules::Event::Rst, &rules::facts::FlowFacts::default(), &mut hits);
    assert_eq!(hits.as_slice(), [0], "what is not enabled never matches");
    let wrong = errors_of(&[file("t.rhai", text)], &[set("a", "shadow", "yes")]);
    assert!(wrong[0].message.contains("`a.shadow` is a bool; `yes` is not"), "{wrong:#?}");
}
