// An incident as a card and as a line: what pages share.

import { el } from "./dom.js";
import { ago, clock, explained, plural, sentences, subject, title, when } from "./words.js";

export function badge(incident) {
    const words = { critical: "Critical", warning: "Warning", info: "Info" }[incident.severity] ?? "Note";
    return el("span", { class: `badge ${incident.severity}` }, words);
}

export function times(incident, now = Date.now()) {
    if (incident.state === "open") {
        return `since ${clock(incident.first_ns)}, last ${ago(incident.last_ns, now)}`;
    }
    return when(incident.first_ns, now);
}

export function extent(incident) {
    const flows = incident.flows ?? 0;
    const parts = [];
    if (flows > 1 || (flows === 1 && incident.scope !== "flow")) {
        parts.push(plural(flows, "connection"));
    }
    if (incident.count > 1 && incident.count !== flows) {
        parts.push(plural(incident.count, "event"));
    }
    return parts.join(", ");
}

export const address = (incident) => `#/incident/${encodeURIComponent(incident.id)}`;

export function card(incident) {
    const lead = sentences(explained(incident.explain).what).slice(0, 2).join(" ");
    return el(
        "article",
        { class: `card ${incident.severity}` },
        el("header", null, badge(incident), incident.captured ? el("span", { class: "chip" }, "packets kept") : null),
        el("h3", null, el("a", { id: `card-${incident.id}`, href: address(incident) }, title(incident.kind))),
        el("p", { class: "subject" }, subject(incident)),
        el("p", { class: "lead" }, lead),
        el("footer", null, [times(incident), extent(incident)].filter(Boolean).join(" · ")),
    );
}

export function line(incident) {
    return el(
        "li",
        { class: `line ${incident.severity}` },
        el(
            "a",
            { href: address(incident) },
            el("span", { class: "mark", title: incident.severity }),
            el("span", { class: "what" }, title(incident.kind)),
            el("span", { class: "subject" }, subject(incident)),
            el(
                "span",
                { class: "extent" },
                incident.state === "open"
                    ? el("span", { class: "chip live" }, "open")
                    : incident.state === "withdrawn"
                      ? el("span", { class: "chip" }, "withdrawn")
                      : null,
                extent(incident),
            ),
            el("time", { class: "time" }, when(incident.first_ns)),
        ),
    );
}
