//! The functions a rule's body can call: the one list that the loader checks against, and that
//! docs/rules.md prints. What is not listed is refused at load. Used at load time only.

/// One function, as the documentation shows it.
pub struct Builtin {
    pub name: &'static str,
    pub usage: &'static str,
    pub doc: &'static str,
}

const fn b(name: &'static str, usage: &'static str, doc: &'static str) -> Builtin {
    Builtin { name, usage, doc }
}

/// What a body decides with.
pub(crate) static VERDICT: &[Builtin] = &[
    b(
        "incident",
        "incident(severity, text), incident(text)",
        "Reports an incident whose kind is the rule's name. Severity: \"info\", \"warning\" or \"critical\"; \
         without one, the header's.",
    ),
    b(
        "explain",
        "explain(text)",
        "Adds a sentence to the incident's explanation. May be called several times.",
    ),
    b(
        "tag",
        "tag(text)",
        "Adds a word to the incident's `tags`, by which programs find it. At most 16, of 64 bytes.",
    ),
    b(
        "count",
        "count(name), count(name, n)",
        "Adds 1, or n, to a counter of the rule, shown as metric `referee_rule_count_total{rule, name}`. At most 16 a rule.",
    ),
    b("advise", "advise(text)", "Says what to change. May be called several times."),
    b(
        "capture",
        "capture(flow), capture(flow, #{packets: 1000, bytes: 1000000, seconds: 60})",
        "Keeps the packets: the lead-up and what follows, within the limits given.",
    ),
    b(
        "capture",
        "capture(host), capture(service), capture(host, #{…})",
        "Keeps the flows that the host or service has now, from their next packet on, and those it begins next: as many \
         as one incident may keep (`captures_per_incident`), each within the limits. Flows are taken for `seconds`, or a minute. \
         For a rule that counts RSTs, half of them are flows that the host resets; for one that counts a service's failing \
         attempts, all of them are attempts that fail (refused, or made again). In a rule about a flow, the host is \
         the flow's client and the service is where it goes.",
    ),
    b("evidence", "evidence(name, value)", "Adds a named value to the incident's evidence."),
    b(
        "withdraw",
        "withdraw(reason)",
        "Takes back what the rule said of this flow before, if it said anything. For rules on `disproved` or `stalled`.",
    ),
];

/// How a body writes numbers and ends for people.
pub(crate) static WORDS: &[Builtin] = &[
    b(
        "plural",
        "plural(n, noun), plural(n, noun, nouns)",
        "\"1 packet\", \"2 packets\"; with a third argument, the form for many.",
    ),
    b("endpoint", "endpoint(address, port)", "\"10.0.0.1:443\", \"[fd00::1]:443\"."),
    b("duration_ms", "duration_ms(ms)", "A time in ms, rounded: \"450 ms\", \"2.5 s\", \"300 s\"."),
    b("duration_us", "duration_us(us)", "A time in µs, rounded: \"40 µs\", \"2.5 ms\", \"120 ms\"."),
    b(
        "rst_header",
        "rst_header(name, flow.orig), rst_header(name, flow.resp)",
        "A sentence on the RST in a side's name: its TTL, Don't Fragment and IP-ID beside that side's other packets, and what \
         a TTL that is one off may mean. `name` says who the side is, \"client\" or \"server\". Empty if there was no RST.",
    ),
];

/// What a body computes with.
pub(crate) static PLAIN: &[Builtin] = &[
    b("abs", "abs(x)", "Absolute value."),
    b("sign", "sign(x)", "-1, 0 or 1."),
    b("min", "min(a, b)", "The smaller."),
    b("max", "max(a, b)", "The larger."),
    b("round", "round(x)", "A float, to the nearest whole number."),
    b("floor", "floor(x)", "A float, rounded down."),
    b("ceiling", "ceiling(x)", "A float, rounded up."),
    b("sqrt", "sqrt(x)", "Square root of a float."),
    b("to_int", "to_int(x)", "A float without its fraction."),
    b("to_float", "to_float(x)", "An integer as a float."),
    b("to_string", "to_string(x)", "Any value as text."),
    b("type_of", "type_of(x)", "The name of a value's type; \"()\" for an unknown fact."),
    b("len", "len(x)", "Length of a text, an array or a map."),
    b("is_empty", "is_empty(x)", "Whether that length is 0."),
    b("contains", "contains(x, y)", "The same as `y in x`."),
    b("starts_with", "starts_with(text, start)", "Whether a text starts with another."),
    b("ends_with", "ends_with(text, end)", "Whether a text ends with another."),
    b("to_upper", "to_upper(text)", "In capitals."),
    b("to_lower", "to_lower(text)", "In small letters."),
    b("sub_string", "sub_string(text, start, length)", "A part of a text."),
    b("index_of", "index_of(text, part)", "Where a text holds another; -1 if nowhere."),
    b("split", "split(text, by)", "The parts of a text."),
    b("push", "push(array, x)", "Adds to the end of an array."),
    b("pop", "pop(array)", "Takes the last of an array."),
    b("keys", "keys(map)", "The names in a map."),
    b("values", "values(map)", "The values in a map."),
    b("range", "range(from, to)", "The numbers from one to before the other."),
];

pub(crate) fn names() -> impl Iterator<Item = &'static str> {
    VERDICT.iter().chain(WORDS).chain(PLAIN).map(|b| b.name)
}

pub(crate) fn is_known(name: &str) -> bool {
    #[cfg(test)]
    if name == "panic_for_test" {
        return true;
    }
    names().any(|known| known == name)
}
