// One incident: what happened, what sets it apart, the packets that prove it, and what to do.

import { get, link, maybe } from "./api.js";
import { address, badge, extent } from "./card.js";
import { command, copyButton, el, show } from "./dom.js";
import { absorbed, advice, apart, conditions, rows, settings } from "./evidence.js";
import { packets, wireshark } from "./proof.js";
import { ago, explained, plural, sentences, span, subject, title, when } from "./words.js";

const SIMILAR = 8;

export async function enter({ main, at, signal }) {
    const id = at.argument;
    const draw = async () => {
        const incident = await get(`incidents/${encodeURIComponent(id)}`, signal);
        document.title = `${title(incident.kind)} · Referee`;
        const proof = el("div", { class: "proofs" }, el("p", { class: "loading" }, "Reading the packets …"));
        const book = el("div");
        show(main, page(incident, proof, book, at.options.get("flow")));
        await Promise.all([packets(proof, incident, at.options.get("flow"), signal), runbook(book, incident, signal)]);
    };
    await draw();
    link.addEventListener(
        "incident",
        (event) => {
            if (event.detail?.id === id) {
                get(`incidents/${encodeURIComponent(id)}`, signal)
                    .then((incident) => show(document.getElementById("head"), head(incident)))
                    .catch(() => {});
            }
        },
        { signal },
    );
}

function page(incident, proof, book, flow) {
    return el(
        "article",
        { class: "incident" },
        el("header", { id: "head", class: `hero ${incident.severity}` }, head(incident)),
        el(
            "div",
            { class: "columns" },
            el("div", { class: "wide" }, different(incident), proof),
            el(
                "aside",
                { class: "side" },
                todo(incident),
                wireshark(incident, flow),
                evidence(incident),
                book,
                similar(incident),
            ),
            el("div", { class: "below" }, because(incident)),
        ),
    );
}

function head(incident) {
    const told = explained(incident.explain);
    const [first, ...others] = sentences(told.what);
    const lasted = (incident.last_ns - incident.first_ns) / 1e9;
    const open = incident.state === "open";
    return [
        el(
            "p",
            { class: "eyebrow" },
            badge(incident),
            el(
                "span",
                { class: open ? "chip live" : "chip" },
                incident.state === "withdrawn" ? "withdrawn: later packets disprove it" : open ? "open" : "closed",
            ),
            el("span", { class: "muted" }, `${incident.kind} · ${incident.id}`),
        ),
        el("h1", null, title(incident.kind)),
        el("p", { class: "subject big" }, subject(incident)),
        el(
            "p",
            { class: "facts" },
            [
                `${open ? "since " : ""}${when(incident.first_ns)}${open ? `, last ${ago(incident.last_ns)}` : lasted >= 0.001 ? `, over ${span(lasted)}` : ""}`,
                extent(incident),
            ]
                .filter(Boolean)
                .join(" · "),
        ),
        el("p", { class: "lead" }, first),
        others.length ? el("p", null, others.join(" ")) : null,
        told.more ? el("p", { class: "muted" }, told.more) : null,
    ];
}

function different(incident) {
    const found = apart(incident.evidence);
    if (!found.length) {
        return null;
    }
    const text = explained(incident.explain).apart;
    return el(
        "section",
        { class: "panel different" },
        el(
            "h2",
            null,
            found[0].label === "Nothing looked at"
                ? "What sets the failing ones apart: nothing found"
                : "What sets the failing ones apart",
        ),
        found.map((one) =>
            one.fine !== undefined && Number.isFinite(one.fine) && Number.isFinite(one.failing) ? range(one) : null,
        ),
        el(
            "p",
            null,
            text || found.map((one) => one.words ?? `${one.label}: ${one.fineWords}, ${one.failingWords}`).join(". "),
        ),
    );
}

// Two stretches of one measure: where it goes well, where it fails, and what lies between.
function range({ label, fine, failing, fineWords, failingWords }) {
    const most = Math.max(failing * 1.35, fine * 1.1);
    const part = (value) => `${Math.max(2, Math.min(100, (value / most) * 100)).toFixed(1)}%`;
    const box = el(
        "div",
        { class: "range", role: "img", "aria-label": `${label}: ${fineWords}, ${failingWords}` },
        el("span", { class: "fine" }),
        el("span", { class: "failing" }),
    );
    box.children[0].style.width = part(fine);
    box.children[1].style.left = part(failing);
    return el(
        "div",
        { class: "apart" },
        el("h3", null, label),
        box,
        el(
            "p",
            { class: "ends" },
            el("span", { class: "good" }, `✓ ${fineWords}`),
            el("span", { class: "bad" }, `✗ ${failingWords}`),
        ),
    );
}

function todo(incident) {
    if (!incident.advise) {
        return null;
    }
    const steps = sentences(incident.advise);
    const ready = settings(incident.advise);
    return el(
        "section",
        { class: "panel advice" },
        el("h2", null, "What to do"),
        el(
            "ul",
            null,
            steps.map((step) =>
                el(
                    "li",
                    null,
                    advice(step).map((part) => (part.code ? inline(part.code) : part.text)),
                ),
            ),
        ),
        ready.length
            ? el(
                  "div",
                  null,
                  el("h3", null, "To paste"),
                  el("pre", null, el("code", null, ready.join("\n"))),
                  copyButton(ready.join("\n"), "Copy all"),
              )
            : null,
    );
}

function inline(code) {
    const setting = code.match(/^([a-z0-9_.]+) = (\S+)$/);
    const text = setting && code.includes(".") ? `sysctl -w ${setting[1]}=${setting[2]}` : code;
    const worth = /[\s.]/.test(code) && !code.startsWith("tcp_");
    return el("span", { class: "inline" }, el("code", null, code), worth ? copyButton(text) : null);
}

async function runbook(place, incident, signal) {
    const entry = await maybe(`kinds/${encodeURIComponent(incident.kind)}`, signal);
    if (!entry) {
        return;
    }
    const part = (name, text) => (text ? [el("h3", null, name), el("p", null, text)] : null);
    show(
        place,
        el(
            "details",
            { class: "panel" },
            el("summary", null, el("h2", null, "Runbook")),
            part("You notice", entry.symptom),
            part("The wire shows", entry.wire),
            part("Do", entry.fix),
            entry.sysctl?.length ? [el("h3", null, "Set"), [entry.sysctl].flat().map((text) => command(text))] : null,
            entry.filter ? [el("h3", null, "Look in Wireshark"), command(entry.filter)] : null,
        ),
    );
}

function similar(incident) {
    const others = (incident.similar ?? []).slice(0, SIMILAR);
    if (!others.length) {
        return null;
    }
    return el(
        "section",
        { class: "panel" },
        el("h2", null, "Similar"),
        el(
            "ul",
            { class: "similar" },
            others.map((one) =>
                el(
                    "li",
                    null,
                    el("a", { href: address(one) }, subject(one)),
                    el("span", { class: "muted" }, ` ${title(one.kind)}, ${when(one.first_ns)}`),
                ),
            ),
        ),
    );
}

function evidence(incident) {
    const found = rows(incident.evidence);
    const inside = absorbed(incident.evidence);
    if (!found.length && !inside.length) {
        return null;
    }
    const table = (list) =>
        el(
            "table",
            { class: "pairs" },
            el(
                "tbody",
                null,
                list.map(([name, value, key]) =>
                    el(
                        "tr",
                        { class: value === "not known" ? "unknown" : "" },
                        el("th", { scope: "row", title: key }, name),
                        el("td", null, value),
                    ),
                ),
            ),
        );
    return el(
        "section",
        { class: "panel" },
        el("h2", null, "Evidence"),
        found.length ? table(found) : null,
        inside.map((one) => [
            el("h3", null, `${one.title}: ${plural(one.flows ?? 0, "connection")} taken in here`),
            table(one.rows),
        ]),
    );
}

function because(incident) {
    const held = conditions(incident.because);
    if (!held.length) {
        return null;
    }
    return el(
        "section",
        { class: "panel" },
        el("h2", null, "Why the rule spoke"),
        el(
            "p",
            { class: "muted" },
            "Rule ",
            el("a", { href: `#/rules?rule=${encodeURIComponent(incident.rule)}` }, incident.rule),
            ". All of this held:",
        ),
        el(
            "ul",
            { class: "because" },
            held.map((one) =>
                el(
                    "li",
                    null,
                    el("code", null, one.text),
                    el(
                        "p",
                        { class: "small muted" },
                        [...one.facts, ...one.params.map((p) => `set: ${p}`)].join(" · "),
                    ),
                ),
            ),
        ),
    );
}
