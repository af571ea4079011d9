// All incidents, found by severity, state, kind, host and words.

import { get, query } from "./api.js";
import { line } from "./card.js";
import { el, field, show } from "./dom.js";
import { day } from "./words.js";

const PAGE = 100;

export async function enter({ main, at, signal }) {
    const asked = Object.fromEntries(
        ["state", "severity", "kind", "host", "text"].map((name) => [name, at.options.get(name) ?? ""]),
    );
    const list = el("div", { class: "results" });
    const more = el("p", null);
    let seen = [];
    const load = async (after) => {
        const answer = await get(`incidents${query({ ...asked, limit: PAGE, after })}`, signal);
        seen = after ? [...seen, ...answer.items] : answer.items;
        show(list, grouped(seen, asked));
        show(
            more,
            answer.next ? el("button", { type: "button", onclick: () => load(answer.next) }, "Older ones") : null,
        );
    };
    await load();
    show(main, el("h1", null, "Incidents"), form(asked), list, more);
}

function form(asked) {
    const choice = (name, label, values) =>
        el(
            "label",
            null,
            label,
            el(
                "select",
                { name, id: `by-${name}` },
                values.map(([value, words]) =>
                    el("option", { value, selected: asked[name] === value ? "" : null }, words),
                ),
            ),
        );
    const input = (name, label, hint) => field("by", name, label, { value: asked[name], hint });
    const node = el(
        "form",
        { class: "filter", role: "search" },
        choice("state", "State", [
            ["", "All"],
            ["open", "Open"],
            ["closed", "Closed"],
        ]),
        choice("severity", "Severity", [
            ["", "All"],
            ["critical", "Critical"],
            ["warning", "Warning"],
            ["info", "Info"],
        ]),
        input("host", "Host", "10.0.0.1"),
        input("kind", "Kind", "rst_after_idle"),
        input("text", "Words", "in the explanation"),
        el("button", { type: "submit" }, "Find"),
    );
    const go = () => {
        const wanted = query(Object.fromEntries(new FormData(node)));
        location.hash = `#/incidents${wanted}`;
    };
    node.addEventListener("submit", (event) => {
        event.preventDefault();
        go();
    });
    node.addEventListener("change", (event) => event.target.tagName === "SELECT" && go());
    return node;
}

function grouped(items, asked) {
    if (!items.length) {
        const narrowed = Object.values(asked).some(Boolean);
        return el(
            "p",
            { class: "none" },
            narrowed ? "No incident is like that. " : "There are no incidents yet. ",
            narrowed ? el("a", { href: "#/incidents" }, "Show all") : null,
        );
    }
    const days = Map.groupBy
        ? Map.groupBy(items, (one) => day(one.first_ns))
        : items.reduce(
              (map, one) => map.set(day(one.first_ns), [...(map.get(day(one.first_ns)) ?? []), one]),
              new Map(),
          );
    return [...days].map(([name, those]) =>
        el("section", null, el("h2", null, name), el("ul", { class: "lines" }, those.map(line))),
    );
}
