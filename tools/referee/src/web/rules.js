// Rules: how each stands, what it costs, and a place to write one that is checked while it is written.

import { Problem, get, link, operates, repeat, send } from "./api.js";
import { el, show } from "./dom.js";
import { editor } from "./rule-editor.js";
import { count, plural, span, title } from "./words.js";

export async function enter({ main, at, signal }) {
    const mayOperate = await operates(signal);
    const wanted = at.options.get("rule");
    const table = el("div");
    const load = async () => {
        const answer = await get("rules", signal);
        if (!table.contains(document.activeElement) || document.activeElement.tagName !== "SELECT") {
            show(table, page(answer, mayOperate, load, wanted));
        }
    };
    let without = null;
    try {
        await load();
    } catch (error) {
        if (!(error instanceof Problem) || ![404, 409].includes(error.status)) {
            throw error;
        }
        without = el(
            "p",
            { class: "muted" },
            "No run is under way here: there are no rules in force to look at. What is written below can be checked all the same.",
        );
    }
    show(main, el("h1", null, "Rules"), without, table, editor(mayOperate && !without, !without, signal));
    if (wanted) {
        document.getElementById(`rule-${wanted}`)?.scrollIntoView({ block: "center" });
    }
    if (!without) {
        link.addEventListener("rules", () => load().catch(() => {}), { signal });
        repeat(5000, load, signal);
    }
}

export function stateOf(rule) {
    if (rule.switched_off) {
        return ["off", "switched off"];
    }
    return rule.enabled === false ? ["left", "left out"] : rule.shadow ? ["shadow", "in shadow"] : ["on", "in force"];
}

function page(answer, mayOperate, load, wanted) {
    const rules = [...answer.rules].sort(
        (a, b) =>
            (b.switched_off ?? false) - (a.switched_off ?? false) ||
            cost(b) - cost(a) ||
            b.matched - a.matched ||
            a.rule.localeCompare(b.rule),
    );
    const most = Math.max(...rules.map((rule) => rule.guard_ns ?? 0), 1);
    const off = rules.filter((rule) => rule.switched_off).length;
    return [
        mistakes(answer.errors ?? []),
        el(
            "p",
            { class: "muted" },
            `${plural(rules.length, "rule")} in force, set ${answer.generation}`,
            off ? `; ${off} switched off because they kept failing` : "",
            ". ",
            el("span", { class: "small" }, `Hash ${String(answer.hash).slice(0, 12)}.`),
            mayOperate ? null : " This token may only read: switches are locked.",
        ),
        el(
            "div",
            { class: "scroll" },
            el(
                "table",
                { class: "rules cards-on-phone" },
                el(
                    "thead",
                    null,
                    el(
                        "tr",
                        null,
                        ["Rule", "State", "Matched", "Condition", "Body, mean", "Body, most", "Trouble", ""].map(
                            (name) =>
                                el(
                                    "th",
                                    { scope: "col", class: /Matched|Condition|Body/.test(name) ? "number" : null },
                                    name,
                                ),
                        ),
                    ),
                ),
                el(
                    "tbody",
                    null,
                    rules.map((rule) => row(rule, most, mayOperate, load, wanted)),
                ),
            ),
        ),
    ];
}

const cost = (rule) => (rule.body_us ?? 0) * (rule.body_runs ?? 0) + (rule.guard_ns ?? 0) / 1e6;

function row(rule, most, mayOperate, load, wanted) {
    const [css, words] = stateOf(rule);
    const cell = (name, ...what) => el("td", { "data-name": name, class: "number" }, what);
    const bar = el("span", { class: "bar plain" });
    bar.style.width = `${((rule.guard_ns ?? 0) / most) * 100}%`;
    const said = el("span", { class: "error small", role: "alert" });
    const turn = (what, on) => async () => {
        try {
            await send("PUT", `rules/${encodeURIComponent(rule.rule)}/${what}`, { on });
            await load();
        } catch (error) {
            said.textContent = error.status === 403 ? "This token may only read." : error.message;
        }
    };
    const button = (label, what, on) =>
        el(
            "button",
            {
                type: "button",
                class: "quiet",
                disabled: !mayOperate,
                id: `${what}-${rule.rule}`,
                onclick: turn(what, on),
            },
            label,
        );
    const trouble = [
        rule.errors ? plural(rule.errors, "error") : "",
        rule.overruns ? plural(rule.overruns, "overrun") : "",
        rule.faults ? plural(rule.faults, "fault") : "",
    ]
        .filter(Boolean)
        .join(", ");
    return el(
        "tr",
        { id: `rule-${rule.rule}`, class: `${css} ${wanted === rule.rule ? "wanted" : ""}` },
        el(
            "th",
            { scope: "row", "data-name": "" },
            el("span", { class: "rulename" }, rule.rule),
            el("span", { class: "muted small block" }, rule.explain ?? title(rule.rule)),
            settings(rule.params),
            rule.off_because ? el("span", { class: "error small block" }, rule.off_because) : null,
            shadow(rule),
        ),
        el("td", { "data-name": "State" }, el("span", { class: `pill ${css}` }, words)),
        cell("Matched", count(rule.matched)),
        el(
            "td",
            { "data-name": "Condition", class: "number cost" },
            Number.isFinite(rule.guard_ns) ? `${Math.round(rule.guard_ns)}\u202fns` : "–",
            Number.isFinite(rule.guard_ns) ? el("span", { class: "track" }, bar) : null,
        ),
        cell("Body, mean", Number.isFinite(rule.body_us) ? span(rule.body_us / 1e6) : "–"),
        cell("Body, most", Number.isFinite(rule.body_us_most) ? span(rule.body_us_most / 1e6) : "–"),
        el("td", { "data-name": "Trouble", class: trouble ? "bad" : "muted" }, trouble || "none"),
        el(
            "td",
            { "data-name": "", class: "switches" },
            rule.shadow ? button("Out of shadow", "shadow", false) : button("To shadow", "shadow", true),
            rule.enabled === false || rule.switched_off
                ? button("Enable", "enabled", true)
                : button("Leave out", "enabled", false),
            said,
        ),
    );
}

function settings(params) {
    const set = Object.entries(params ?? {}).map(([name, value]) => `${name} = ${JSON.stringify(value)}`);
    return set.length
        ? el("details", { class: "small muted" }, el("summary", null, "Settings"), el("code", null, set.join(", ")))
        : null;
}

function shadow(rule) {
    const counts = rule.shadow_counts;
    return counts
        ? el(
              "span",
              { class: "small block shadowed" },
              `Would have opened ${plural(counts.would_open ?? 0, "incident")} and kept ${plural(counts.would_capture ?? 0, "flow")}`,
              counts.samples?.length ? `, such as ${counts.samples.slice(0, 2).join(", ")}` : "",
              ".",
          )
        : null;
}

function mistakes(errors) {
    return errors.length
        ? el(
              "section",
              { class: "panel critical" },
              el("h2", null, "What is in the files now is refused"),
              el("p", null, "The set before stays in force."),
              el(
                  "ul",
                  null,
                  errors.map((one) =>
                      el(
                          "li",
                          null,
                          el(
                              "code",
                              null,
                              [one.file, one.line || null, one.line ? one.column : null].filter(Boolean).join(":"),
                          ),
                          ` ${one.message}`,
                          one.help ? el("span", { class: "muted" }, ` ${one.help}`) : null,
                      ),
                  ),
              ),
          )
        : null;
}
