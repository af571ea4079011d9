//! Native guards against Rhai itself: random conditions on random facts, some of them unknown, and the same answer.
//!
//! Where guards mean something of their own (`docs/rules.md` says so), Rhai is given it in its own words: ranges of
//! floats as two comparisons, networks by a function, names in small letters.

#![allow(clippy::unwrap_used, clippy::panic, reason = "test code: a panic is a failed test")]

use std::net::IpAddr;

use proptest::prelude::*;
use rhai::{Array, Dynamic, Engine, EvalAltResult, ImmutableString, Map, Scope};
use rules::facts::{Counts, FlowFacts, HostFacts, Name};
use rules::{Event, Hits, RuleSet, SourceFile};

#[derive(Debug, PartialEq, Eq)]
enum Answer {
    Match,
    NoMatch,
    Fault,
}

/// What both sides have besides the condition.
const HELPERS: &str = "fn twice(a) { a + a }
fn between(a, low, high) { a >= low && a <= high }
fn ours(address) { address in p_net }
fn named(name) { name.ends_with(p_text) || name == C_TEXT }
";
const DECLARED: &str =
    "param p_int = 3; param p_float = 2.5; param p_bool = true; param p_net = \"10.0.0.0/8\";
param p_text = \".example\"; const C_INT = 2 * 40; const C_TEXT = \"www.example\";
";

fn load(root: &str, condition: &str) -> RuleSet {
    let event = if root == "flow" { "rst" } else { "tick" };
    // A rule on `tick` has to speak of a host.
    let first = if root == "flow" { "true" } else { "host.rsts(1) >= 0" };
    let rule = format!("{DECLARED}{HELPERS}rule \"x\" on {event} when {first} && {condition} then {{ }}");
    let source = SourceFile { name: "t.rhai".to_owned(), text: rule };
    RuleSet::load(&[source], &[]).unwrap_or_else(|errors| panic!("{condition}\n{errors:#?}"))
}

fn answer(hits: &Hits, faults: u64) -> Answer {
    match (hits.is_empty(), faults) {
        (false, 0) => Answer::Match,
        (true, 0) => Answer::NoMatch,
        (true, 1) => Answer::Fault,
        other => panic!("{other:?}"),
    }
}

fn of_flow(condition: &str, facts: &FlowFacts) -> Answer {
    let (set, mut hits) = (load("flow", condition), Hits::new());
    set.match_flow(Event::Rst, facts, &mut hits);
    answer(&hits, set.guard_faults(0))
}

fn of_host(condition: &str, facts: &HostFacts) -> Answer {
    let (set, mut hits) = (load("host", condition), Hits::new());
    set.match_host(facts, &mut hits);
    answer(&hits, set.guard_faults(0))
}

/// An expression for guards, and what it means in Rhai.
type Both = (String, String);

fn alike(text: impl Into<String>) -> Both {
    let text = text.into();
    (text.clone(), text)
}

fn joined(a: &Both, b: &Both, how: impl Fn(&str, &str) -> String) -> Both {
    (how(&a.0, &b.0), how(&a.1, &b.1))
}

/// `(x in what)`, or another word between.
fn held(x: &Both, is: &str, what: &Both) -> Both {
    joined(x, what, |x, what| format!("({x} {is} {what})"))
}

fn range(low: &Both, dots: &str, high: &Both) -> Both {
    joined(low, high, |low, high| format!("{low}{dots}{high}"))
}

fn list(a: &Both, b: &Both) -> Both {
    joined(a, b, |a, b| format!("[{a}, {b}]"))
}

/// The facts conditions are made of.
#[derive(Clone, Copy)]
struct Leaves {
    ints: &'static [&'static str],
    floats: &'static [&'static str],
    bools: &'static [&'static str],
    addresses: &'static [&'static str],
    names: &'static [&'static str],
}

const FLOW: Leaves = Leaves {
    ints: &[
        "flow.orig.packets",
        "flow.resp.packets",
        "flow.dport",
        "flow.syns",
        "flow.orig.mss",
        "flow.ttl",
        "p_int",
        "C_INT",
    ],
    floats: &["p_float"],
    bools: &[
        "flow.established",
        "flow.fin_seen",
        "flow.rst_seen",
        "flow.by_orig",
        "flow.orig.sack",
        "p_bool",
    ],
    addresses: &["flow.src", "flow.dst"],
    names: &["flow.sni"],
};
const HOST: Leaves = Leaves {
    ints: &["host.rsts(1)", "host.rsts(10)", "host.syns(60)", "p_int"],
    floats: &["host.rst_rate(1)", "host.rst_rate(10)", "host.rst_rate(60)"],
    bools: &["p_bool"],
    addresses: &["host.addr"],
    names: &[],
};

fn one_of(from: &'static [&'static str]) -> BoxedStrategy<Both> {
    prop::sample::select(from).prop_map(alike).boxed()
}

fn literal() -> impl Strategy<Value = Both> {
    prop_oneof![
        (-3i64..=3).prop_map(|i| format!("({i})")),
        Just("9223372036854775807".to_owned()),
        Just("(-9223372036854775807)".to_owned()),
        any::<i32>().prop_map(|i| format!("({i})")),
    ]
    .prop_map(alike)
}

/// About as large as facts are.
fn near() -> impl Strategy<Value = Both> {
    (-1i64..=5).prop_map(|i| alike(format!("({i})")))
}

fn integer(leaves: Leaves) -> BoxedStrategy<Both> {
    let leaf = prop_oneof![3 => one_of(leaves.ints), 2 => literal()];
    leaf.prop_recursive(4, 16, 2, |inner| {
        prop_oneof![
            (inner.clone(), prop::sample::select(&["+", "-", "*", "/", "%"][..]), inner.clone())
                .prop_map(|(a, op, b)| joined(&a, &b, |a, b| format!("({a} {op} {b})"))),
            inner.clone().prop_map(|(a, b)| (format!("(-{a})"), format!("(-{b})"))),
            inner.prop_map(|(a, b)| (format!("twice({a})"), format!("twice({b})"))),
        ]
    })
    .boxed()
}

/// Never a divisor of 0: guards fault there, Rhai goes on with infinity.
fn float_literal() -> impl Strategy<Value = Both> {
    (1i32..80, any::<bool>()).prop_map(|(i, negative)| {
        let value = f64::from(i) / 8.0;
        alike(format!("({:?})", if negative { -value } else { value }))
    })
}

fn float(leaves: Leaves) -> BoxedStrategy<Both> {
    let leaf = prop_oneof![
        2 => (integer(leaves), prop::sample::select(&["+", "-", "*", "/", "%"][..]), float_literal())
            .prop_map(|(a, op, b)| joined(&a, &b, |a, b| format!("({a} {op} {b})"))),
        2 => one_of(leaves.floats),
        1 => float_literal(),
    ];
    leaf.prop_recursive(2, 6, 2, |inner| {
        prop_oneof![
            (inner.clone(), prop::sample::select(&["+", "-", "*"][..]), inner.clone())
                .prop_map(|(a, op, b)| joined(&a, &b, |a, b| format!("({a} {op} {b})"))),
            (inner.clone(), prop::sample::select(&["/", "%"][..]), float_literal())
                .prop_map(|(a, op, b)| joined(&a, &b, |a, b| format!("({a} {op} {b})"))),
            inner.prop_map(|(a, b)| (format!("(-{a})"), format!("(-{b})"))),
        ]
    })
    .boxed()
}

fn numbers(leaves: Leaves) -> BoxedStrategy<Both> {
    let comparison = prop::sample::select(&["==", "!=", "<", "<=", ">", ">="][..]);
    let compared = |(a, op, b): (Both, &str, Both)| joined(&a, &b, |a, b| format!("({a} {op} {b})"));
    let ints = || integer(leaves);
    prop_oneof![
        4 => (ints(), comparison.clone(), ints()).prop_map(compared),
        2 => (one_of(leaves.ints), comparison.clone(), near()).prop_map(compared),
        1 => (near(), comparison.clone(), one_of(leaves.ints)).prop_map(compared),
        1 => (float(leaves), comparison.clone(), float(leaves)).prop_map(compared),
        1 => (float(leaves), comparison, ints()).prop_map(compared),
        1 => (ints(), literal(), literal(), prop::sample::select(&["..", "..="][..]), prop::sample::select(&["in", "!in"][..]))
            .prop_map(|(x, a, b, dots, is)| held(&x, is, &range(&a, dots, &b))),
        2 => (one_of(leaves.ints), near(), near(), prop::sample::select(&["..", "..="][..]))
            .prop_map(|(x, a, b, dots)| held(&x, "in", &range(&a, dots, &b))),
        1 => (ints(), ints(), literal(), prop::sample::select(&["in", "!in"][..]))
            .prop_map(|(x, a, b, is)| held(&x, is, &list(&a, &b))),
        2 => (one_of(leaves.ints), near(), near())
            .prop_map(|(x, a, b)| held(&x, "in", &list(&a, &b))),
        1 => (float(leaves), float_literal(), float_literal()).prop_map(|(x, a, b)| {
            (format!("({} in {}..{})", x.0, a.0, b.0), format!("({x} >= {a} && {x} < {b})", x = x.1, a = a.1, b = b.1))
        }),
        1 => (float(leaves), float_literal(), literal()).prop_map(|(x, a, b)| {
            (format!("({} in {}..={})", x.0, a.0, b.0), format!("({x} >= {a} && {x} <= {b})", x = x.1, a = a.1, b = b.1))
        }),
        1 => (float(leaves), float_literal(), literal()).prop_map(|(x, a, b)| {
            (format!("({} in [{}, {}])", x.0, a.0, b.0), format!("({x} == {a} || {x} == {b})", x = x.1, a = a.1, b = b.1))
        }),
        1 => (ints(), literal(), literal())
            .prop_map(|(x, a, b)| joined(&x, &range(&a, ", ", &b), |x, ends| format!("between({x}, {ends})"))),
    ]
    .boxed()
}

const ADDRESSES: [&str; 6] = ["10.0.0.1", "10.200.3.4", "192.0.2.7", "::1", "2001:db8::5", "2001:db9::5"];
const NETWORKS: [&str; 7] =
    ["10.0.0.0/8", "10.200.0.0/13", "0.0.0.0/0", "192.0.2.7", "2001:db8::/32", "::/0", "2001:db8::4/127"];
const NAMES: [&str; 6] = ["www.example", "example", "shop.example", "mail.test", "x", "www.example.test"];
const PARTS: [&str; 8] = ["www.example", ".example", "www.", "e", "", "shop", "example", "mail.test"];

fn address(leaves: Leaves) -> BoxedStrategy<Both> {
    let quoted =
        |from: &'static [&'static str]| prop::sample::select(from).prop_map(|text| format!("\"{text}\""));
    let fact = || one_of(leaves.addresses);
    prop_oneof![
        (fact(), prop::sample::select(&["==", "!="][..]), quoted(&ADDRESSES))
            .prop_map(|(a, op, b)| alike(format!("({} {op} {b})", a.0))),
        (fact(), prop::sample::select(&["==", "!="][..]), fact())
            .prop_map(|(a, op, b)| alike(format!("({} {op} {})", a.0, b.0))),
        (fact(), quoted(&NETWORKS)).prop_map(|(a, b)| alike(format!("({} in {b})", a.0))),
        (fact(), quoted(&NETWORKS), quoted(&NETWORKS))
            .prop_map(|(a, b, c)| alike(format!("({} !in [{b}, {c}])", a.0))),
        (fact(), quoted(&NETWORKS), fact())
            .prop_map(|(a, b, c)| alike(format!("({} in [{b}, {}])", a.0, c.0))),
        fact().prop_map(|a| alike(format!("ours({})", a.0))),
    ]
    .boxed()
}

fn name(leaves: Leaves) -> BoxedStrategy<Both> {
    let part = || prop::sample::select(&PARTS[..]);
    let fact = || one_of(leaves.names);
    prop_oneof![
        (fact(), prop::sample::select(&["==", "!="][..]), part())
            .prop_map(|(a, op, b)| alike(format!("({} {op} \"{b}\")", a.0))),
        (fact(), prop::sample::select(&["starts_with", "ends_with", "contains"][..]), part())
            .prop_map(|(a, op, b)| alike(format!("{}.{op}(\"{b}\")", a.0))),
        (fact(), part()).prop_map(|(a, b)| alike(format!("(\"{b}\" in {})", a.0))),
        (fact(), part(), part()).prop_map(|(a, b, c)| alike(format!("({} in [\"{b}\", \"{c}\"])", a.0))),
        (fact(), part()).prop_map(|(a, b)| alike(format!("ends_with({}, \"{b}\")", a.0))),
        fact().prop_map(|a| alike(format!("named({})", a.0))),
    ]
    .boxed()
}

fn condition(leaves: Leaves) -> BoxedStrategy<Both> {
    let mut leaf = prop_oneof![2 => one_of(leaves.bools), 6 => numbers(leaves), 2 => address(leaves)].boxed();
    if !leaves.names.is_empty() {
        leaf = prop_oneof![4 => leaf, 1 => name(leaves)].boxed();
    }
    leaf.prop_recursive(4, 24, 2, |inner| {
        prop_oneof![
            2 => (inner.clone(), inner.clone()).prop_map(|(a, b)| joined(&a, &b, |a, b| format!("({a} && {b})"))),
            1 => (inner.clone(), inner.clone(), inner.clone())
                .prop_map(|(a, b, c)| held(&range(&a, " && ", &b), "&&", &c)),
            2 => (inner.clone(), inner.clone()).prop_map(|(a, b)| joined(&a, &b, |a, b| format!("({a} || {b})"))),
            1 => (inner.clone(), prop::sample::select(&["==", "!="][..]), inner.clone())
                .prop_map(|(a, op, b)| joined(&a, &b, |a, b| format!("({a} {op} {b})"))),
            1 => inner.prop_map(|(a, b)| (format!("!{a}"), format!("!{b}"))),
        ]
    })
    .boxed()
}

/// Facts as Rhai sees them here: what is not in the map is unknown.
#[derive(Clone)]
struct View(Map);

#[derive(Clone, Copy, PartialEq)]
struct Address(IpAddr);

const UNKNOWN: &str = "unknown";

fn in_network(network: &str, address: IpAddr) -> bool {
    let (base, prefix) = network.split_once('/').unwrap_or((network, "128"));
    let base: IpAddr = base.parse().unwrap();
    match (base, address) {
        (IpAddr::V4(base), IpAddr::V4(address)) => {
            let shift = 32 - prefix.parse::<u32>().unwrap().min(32);
            u64::from(u32::from(base)) >> shift == u64::from(u32::from(address)) >> shift
        }
        (IpAddr::V6(base), IpAddr::V6(address)) => {
            let mask = u128::MAX.checked_shl(128 - prefix.parse::<u32>().unwrap()).unwrap_or(0);
            u128::from(base) & mask == u128::from(address) & mask
        }
        _ => false,
    }
}

fn engine() -> Engine {
    let mut engine = Engine::new();
    engine.set_max_expr_depths(256, 256);
    engine.set_optimization_level(rhai::OptimizationLevel::None);
    engine.register_indexer_get(
        |view: &mut View, name: ImmutableString| -> Result<Dynamic, Box<EvalAltResult>> {
            view.0.get(name.as_str()).cloned().ok_or_else(|| UNKNOWN.into())
        },
    );
    for method in ["rsts", "syns", "rst_rate"] {
        engine.register_fn(method, move |view: View, seconds: i64| -> Dynamic {
            view.0[format!("{method}{seconds}").as_str()].clone()
        });
    }
    let same = |a: Address, text: &str| text.parse() == Ok(a.0);
    engine.register_fn("==", |a: Address, b: Address| a == b);
    engine.register_fn("!=", |a: Address, b: Address| a != b);
    engine.register_fn("==", move |a: Address, b: ImmutableString| same(a, &b));
    engine.register_fn("!=", move |a: Address, b: ImmutableString| !same(a, &b));
    engine.register_fn("contains", |network: ImmutableString, a: Address| in_network(&network, a.0));
    engine.register_fn("contains", |list: Array, a: Address| {
        list.iter().any(|member| match member.clone().try_cast::<Address>() {
            Some(other) => other == a,
            None => in_network(&member.clone().into_immutable_string().unwrap(), a.0),
        })
    });
    engine
}

/// Rhai's own answer.
fn rhai_answer(condition: &str, root: &str, facts: Map) -> Answer {
    let mut scope = Scope::new();
    scope.push(root.to_owned(), View(facts));
    // A function sees constants of the script, if they are its own.
    let constants = [("p_net", "\"10.0.0.0/8\""), ("p_text", "\".example\""), ("C_TEXT", "\"www.example\"")];
    let mut helpers = HELPERS.to_owned();
    for (name, value) in constants {
        helpers = helpers.replace(name, value);
    }
    scope.push("p_int", 3_i64).push("p_float", 2.5_f64).push("p_bool", true).push("C_INT", 80_i64);
    match engine().eval_with_scope::<bool>(&mut scope, &format!("{helpers}{condition}")) {
        Ok(true) => Answer::Match,
        Ok(false) => Answer::NoMatch,
        Err(error) => match error.unwrap_inner() {
            EvalAltResult::ErrorArithmetic(..) => Answer::Fault,
            EvalAltResult::ErrorRuntime(value, _)
                if value.clone().into_string().as_deref() == Ok(UNKNOWN) =>
            {
                Answer::NoMatch
            }
            other => panic!("{condition}: {other}"),
        },
    }
}

/// Rhai evaluates a function's arguments before its body, guards where the body reaches them: whether a fault or an
/// unknown fact comes first may differ then. (The helpers here read all their arguments.)
fn agree(native: Answer, rhai: Answer, condition: &str) -> Result<(), TestCaseError> {
    let calls = ["twice(", "between(", "ours(", "named("].iter().any(|call| condition.contains(call));
    if calls && (rhai == Answer::Fault || rhai == Answer::NoMatch) && native != rhai {
        prop_assert!(native != Answer::Match, "{}: {:?} {:?}", condition, native, rhai);
        return Ok(());
    }
    prop_assert_eq!(native, rhai, "{}", condition);
    Ok(())
}

fn set<T: Into<Dynamic>>(map: &mut Map, name: &str, value: Option<T>) {
    if let Some(value) = value {
        map.insert(name.into(), value.into());
    }
}

fn flow_map(facts: &FlowFacts) -> Map {
    let (mut flow, mut orig, mut resp) = (Map::new(), Map::new(), Map::new());
    set(&mut orig, "packets", Some(facts.orig.packets as i64));
    set(&mut orig, "mss", facts.orig.mss.map(i64::from));
    set(&mut orig, "sack", facts.orig.sack);
    set(&mut resp, "packets", Some(facts.resp.packets as i64));
    set(&mut flow, "orig", Some(Dynamic::from(View(orig))));
    set(&mut flow, "resp", Some(Dynamic::from(View(resp))));
    set(&mut flow, "dport", Some(i64::from(facts.dport)));
    set(&mut flow, "syns", Some(i64::from(facts.syns)));
    set(&mut flow, "ttl", facts.ttl.map(i64::from));
    set(&mut flow, "established", Some(facts.established));
    set(&mut flow, "fin_seen", Some(facts.fin_seen));
    set(&mut flow, "rst_seen", Some(facts.rst_seen));
    set(&mut flow, "by_orig", facts.by.map(|side| side == rules::facts::Side::Orig));
    set(&mut flow, "src", Some(Dynamic::from(Address(facts.src))));
    set(&mut flow, "dst", Some(Dynamic::from(Address(facts.dst))));
    set(&mut flow, "sni", facts.app.name.known().map(|name| name.as_str().to_lowercase()));
    flow
}

prop_compose! {
    fn flow_facts()(
        orig in prop_oneof![0u64..4, Just(i64::MAX as u64), any::<u32>().prop_map(u64::from)],
        resp in 0u64..4,
        dport in prop_oneof![0u16..4, any::<u16>()],
        syns in 0u32..4,
        flags in any::<[bool; 3]>(),
        mss in prop::option::of(0u32..4),
        sack in prop::option::of(any::<bool>()),
        ttl in prop::option::of(0u8..4),
        by in prop::option::of(any::<bool>()),
        ends in prop::sample::subsequence(&ADDRESSES[..], 2),
        name in prop::option::of((prop::sample::select(&NAMES[..]), any::<bool>())),
    ) -> FlowFacts {
        let mut facts = FlowFacts {
            dport,
            syns,
            ttl,
            established: flags[0],
            fin_seen: flags[1],
            rst_seen: flags[2],
            by: by.map(|orig| if orig { rules::facts::Side::Orig } else { rules::facts::Side::Resp }),
            src: ends[0].parse().unwrap(),
            dst: ends[1].parse().unwrap(),
            ..FlowFacts::default()
        };
        (facts.orig.packets, facts.resp.packets) = (orig, resp);
        (facts.orig.mss, facts.orig.sack) = (mss, sack);
        if let Some((name, capitals)) = name {
            let name = if capitals { name.to_uppercase() } else { name.to_owned() };
            facts.app.name = Name::of(name.as_bytes());
        }
        facts
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2048, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn conditions_on_flows_agree_with_rhai(condition in condition(FLOW), facts in flow_facts()) {
        let native = of_flow(&condition.0, &facts);
        agree(native, rhai_answer(&condition.1, "flow", flow_map(&facts)), &condition.0)?;
    }

    #[test]
    fn conditions_on_hosts_agree_with_rhai(
        condition in condition(HOST),
        rsts in prop::array::uniform3(0u32..40),
        syns in 0u32..40,
        addr in prop::sample::select(&ADDRESSES[..]),
    ) {
        let counts = |rsts, syns| Counts { rsts, syns, ..Counts::default() };
        let host = HostFacts {
            addr: addr.parse().unwrap(),
            now_ns: 0,
            last_1s: counts(rsts[0], 0),
            last_10s: counts(rsts[1], 0),
            last_60s: counts(rsts[2], syns),
            client: Default::default(),
        };
        let mut map = Map::new();
        set(&mut map, "addr", Some(Dynamic::from(Address(host.addr))));
        set(&mut map, "syns60", Some(i64::from(syns)));
        for (seconds, rsts) in [1_i64, 10, 60].into_iter().zip(rsts) {
            set(&mut map, &format!("rsts{seconds}"), Some(i64::from(rsts)));
            set(&mut map, &format!("rst_rate{seconds}"), Some(f64::from(rsts) / seconds as f64));
        }
        let native = of_host(&condition.0, &host);
        agree(native, rhai_answer(&condition.1, "host", map), &condition.0)?;
    }

    /// What a cut name decides is what the whole would have.
    #[test]
    fn a_cut_name_says_nothing_that_the_whole_denies(
        start in "[a-c]{58,64}",
        end in "[a-c]{0,4}",
        at in 0usize..64,
        len in 0usize..66,
        method in prop::sample::select(&["starts_with", "ends_with", "contains"][..]),
        equal in any::<bool>(),
    ) {
        let whole = format!("{start}{end}");
        let part = whole.get(at.min(whole.len())..(at + len).min(whole.len())).unwrap();
        let mut facts = FlowFacts::default();
        facts.app.name = Name::of(whole.as_bytes());
        let condition = match equal {
            true => format!("flow.sni == \"{part}\""),
            false => format!("flow.sni.{method}(\"{part}\")"),
        };
        let truth = match (equal, method) {
            (true, _) => whole == part,
            (_, "starts_with") => whole.starts_with(part),
            (_, "ends_with") => whole.ends_with(part),
            _ => whole.contains(part),
        };
        let (says, denies) = (of_flow(&condition, &facts), of_flow(&format!("!({condition})"), &facts));
        prop_assert!(says == Answer::NoMatch || truth, "{}", condition);
        prop_assert!(denies == Answer::NoMatch || !truth, "{}", condition);
        let cut = whole.len() > 61;
        prop_assert!(cut || (says == Answer::Match) != (denies == Answer::Match), "{}", condition);
    }
}

/// Found by the tests above: bodies hold floats that differ in their last bit for equal, and so must guards.
#[test]
fn floats_a_bit_apart_are_equal_in_guards_as_in_bodies() {
    let mut facts = FlowFacts { dport: 512, ..FlowFacts::default() };
    facts.orig.packets = i64::MAX as u64;
    for op in ["==", "!=", "<", "<=", ">", ">="] {
        let condition = format!("((-9223372036854775807) + 0.0) {op} (-(flow.orig.packets - flow.dport))");
        let native = of_flow(&condition, &facts);
        assert_eq!(native == Answer::Match, ["==", "<=", ">="].contains(&op), "{condition}");
        assert_eq!(native, rhai_answer(&condition, "flow", flow_map(&facts)), "{condition}");
    }
}
