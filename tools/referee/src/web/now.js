// What is wrong now, in one sentence, then one card each; then what closed lately.

import { get, link, maybe, repeat } from "./api.js";
import { card, line } from "./card.js";
import { el, show } from "./dom.js";
import { spark } from "./charts.js";
import {
    byUrgency,
    count,
    explained,
    headline,
    plural,
    sentences,
    short,
    span,
    subject,
    title,
    when,
} from "./words.js";

const HOUR_NS = 3600e9;
const SHOWN = 24;
const SILENT = "No packets come: is the mirror on?";

export async function enter({ main, box, signal }) {
    const told = el("div");
    const signs = el("div");
    const found = el("div");
    let before = "";
    const load = async () => {
        const since = Math.round((Date.now() / 1000 - 3600) * 1e9);
        if (box.version && !box.version.live) {
            const kept = await get("incidents?limit=200", signal);
            return stored(kept.items);
        }
        const [open, closed, series, books] = await Promise.all([
            get("incidents?state=open&limit=200", signal),
            get(`incidents?state=closed&since=${since}&limit=50`, signal),
            maybe("series?step=1", signal),
            maybe("books", signal),
        ]);
        const lately = closed.items.filter((i) => i.last_ns > Date.now() * 1e6 - HOUR_NS);
        return living(box, open.items, lately, series?.items ?? [], books);
    };
    const draw = async () => {
        const now = await load();
        show(signs, now.vitals);
        // What hasn't changed stays as it is: somebody may be reading it, or copying from it.
        const after = now.words + Math.floor(Date.now() / 30000);
        if (after !== before) {
            before = after;
            show(told, now.hero);
            show(found, now.lists);
        }
    };
    const again = () => draw().catch(() => {});
    link.addEventListener("incident", again, { signal });
    link.addEventListener("gap", again, { signal });
    await draw();
    show(main, told, signs, found);
    repeat(3000, draw, signal);
}

export function living(box, open, closed, samples, books) {
    const sorted = [...open].sort(byUrgency);
    const recent = samples.slice(-60);
    const packets = recent.length ? recent.reduce((all, sample) => all + (sample.packets ?? 0), 0) : null;
    const silent = recent.length >= 10 && packets === 0;
    const level = sorted[0]?.severity ?? (silent ? "warning" : "ok");
    const hero = el(
        "section",
        { class: `hero ${level}` },
        el("h1", null, silent && !sorted.length ? SILENT : headline(sorted)),
        sorted.length ? worst(sorted[0], sorted.length) : silent ? null : well(box, packets),
        health(box.health),
    );
    return {
        words: JSON.stringify([open, closed, box.health, silent]),
        hero: [hero, silent ? mirror(box, sorted.length > 0) : null],
        vitals: vitals(recent, books),
        lists: [
            section("Open", sorted, cards),
            section("Closed in the last hour", closed, lines),
            sorted.length || closed.length ? null : quiet(),
        ],
    };
}

function section(title, incidents, list) {
    return incidents.length
        ? el(
              "section",
              null,
              el("h2", null, `${title} `, el("span", { class: "n" }, count(incidents.length))),
              list(incidents),
          )
        : null;
}

const lines = (incidents) => el("ul", { class: "lines" }, incidents.map(line));

function cards(incidents) {
    const more = incidents.length - SHOWN;
    return [
        el("div", { class: "cards" }, incidents.slice(0, SHOWN).map(card)),
        more > 0 ? el("p", null, el("a", { href: "#/incidents?state=open" }, `and ${count(more)} more`)) : null,
    ];
}

function quiet() {
    const all = el("a", { href: "#/incidents" }, "All incidents");
    return el("p", { class: "muted center" }, "Nothing was closed in the last hour either. ", all);
}

function worst(incident, among) {
    const first = sentences(explained(incident.explain).what)[0] ?? "";
    return el(
        "p",
        { class: "worst" },
        among > 1 ? "Worst: " : "",
        el("a", { href: `#/incident/${incident.id}` }, `${title(incident.kind)}, ${subject(incident)}`),
        `. ${first}`,
    );
}

function well(box, packets) {
    const taps = (box.version?.interfaces ?? []).map((one) => one.name).join(", ");
    const seen = packets === null ? "" : `${short(packets)} packets in the last minute${taps ? ` from ${taps}` : ""}; `;
    return el("p", null, `${seen}nothing a person needs to look at.`);
}

function health(state) {
    const bad = (state?.checks ?? []).filter((check) => check.status !== "ok");
    return bad.length
        ? el(
              "ul",
              { class: "troubles" },
              bad.map((check) =>
                  el("li", null, el("strong", null, `Referee itself: ${check.what}. `), check.help ?? ""),
              ),
          )
        : null;
}

function mirror(box, among) {
    const names = (box.version?.interfaces ?? []).map((one) => one.name);
    const name = names[0] ?? "IFACE";
    return el(
        "section",
        { class: "panel steps" },
        el("h2", null, among ? SILENT : "What to look at"),
        el(
            "ol",
            null,
            el(
                "li",
                null,
                "Does the interface have a link, and do its counters move? ",
                el("code", null, `ip -s link show ${name}`),
            ),
            el(
                "li",
                null,
                "Do packets reach the card at all? It counts them, whoever takes them: ",
                el("code", null, `ethtool -S ${name} | grep -i rx`),
            ),
            el(
                "li",
                null,
                "On the switch: is the SPAN or mirror session on, with the right source ports and this port as destination?",
            ),
            el(
                "li",
                null,
                "Is it the right cable, and the right interface? ",
                el("code", null, `referee doctor -i ${name}`),
            ),
            el(
                "li",
                null,
                "Is a filter set that keeps everything out? See “filtered” in ",
                el("a", { href: "#/books" }, "the books"),
                ".",
            ),
        ),
    );
}

function vitals(samples, books) {
    if (!samples.length) {
        return null;
    }
    const values = (name) => samples.map((sample) => sample[name] ?? null);
    const latest = (name) =>
        values(name)
            .filter((value) => value !== null)
            .at(-1);
    const lost = Object.values(books?.dropped ?? {}).reduce((all, n) => all + n, 0);
    const tile = (name, value, key, extra) =>
        el(
            "a",
            { class: `tile ${extra ?? ""}`, href: "#/traffic" },
            el("span", { class: "name" }, name),
            el("span", { class: "value" }, value),
            key ? spark(values(key)) : null,
        );
    const trip = latest("rtt_server_us");
    const history = latest("history_s");
    return el(
        "section",
        { class: "vitals", "aria-label": "Vital signs" },
        tile("Packets", `${short(latest("packets"))}/s`, "packets"),
        tile("Traffic", short((latest("bytes") ?? NaN) * 8, "bit/s"), "bytes"),
        tile("Flows now", short(latest("flows") ?? NaN), "flows"),
        trip === undefined ? null : tile("Round trip to servers", span(trip / 1e6), "rtt_server_us"),
        history ? tile("History in memory", span(Number(history.toPrecision(2))), "history_s") : null,
        tile("Packets lost here", books ? count(lost) : "–", null, lost ? "bad" : "good"),
    );
}

export function stored(incidents) {
    const sorted = [...incidents].sort(byUrgency);
    const newest = incidents.reduce((last, i) => Math.max(last, i.last_ns), 0);
    const packets = el("a", { href: "#/captures" }, "what packets are kept?");
    const none = [
        el("h1", null, "No incidents in this store."),
        el(
            "p",
            null,
            "No run is watching: this is what was recorded earlier. Either nothing was wrong, or nothing came: ",
            packets,
        ),
    ];
    const some = () => [
        el("h1", null, `${plural(sorted.length, "incident")} in this store.`),
        worst(sorted[0], sorted.length),
        el(
            "p",
            { class: "muted" },
            `No run is watching now; this was recorded earlier, the last of it ${when(newest)}.`,
        ),
    ];
    return {
        words: JSON.stringify(incidents),
        hero: el("section", { class: `hero ${sorted[0]?.severity ?? "ok"}` }, sorted.length ? some() : none),
        vitals: null,
        lists: cards(sorted),
    };
}
