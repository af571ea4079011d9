// What is wrong now, in one sentence, then one card each; then what closed lately.

import { get, link, maybe, repeat } from "./api.js";
import { card, line } from "./card.js";
import { el, show } from "./dom.js";
import { spark } from "./charts.js";
import { byUrgency, count, explained, headline, plural, sentences, short, span, subject, title, when } from "./words.js";

const HOUR_NS = 3600e9;
const SHOWN = 24;

export async function enter({ main, box, signal }) {
    const load = async () => {
        const since = Math.round((Date.now() / 1000 - 3600) * 1e9);
        if (box.version && !box.version.live) {
            const kept = await get("incidents?limit=200", signal);
            show(main, stored(kept.items));
            return;
        }
        const [open, closed, series, books] = await Promise.all([
            get("incidents?state=open&limit=200", signal), get(`incidents?state=closed&since=${since}&limit=50`, signal),
            maybe("series?step=1", signal), maybe("books", signal)]);
        show(main, living(box, open.items, closed.items.filter((i) => i.last_ns > Date.now() * 1e6 - HOUR_NS), series?.items ?? [], books));
    };
    const again = () => load().catch(() => {});
    link.addEventListener("incident", again, { signal });
    link.addEventListener("gap", again, { signal });
    await load();
    repeat(3000, load, signal);
}

export function living(box, open, closed, samples, books) {
    const sorted = [...open].sort(byUrgency);
    const taps = (box.version?.interfaces ?? []).map((one) => one.name).join(", ");
    const recent = samples.slice(-60);
    const sum = (name) => recent.reduce((all, sample) => all + (sample[name] ?? 0), 0);
    const packets = recent.length ? sum("packets") : null;
    const silent = recent.length >= 10 && packets === 0;
    const level = sorted[0]?.severity ?? (silent ? "warning" : "ok");
    return [
        el("section", { class: `hero ${level}` }, el("h1", null, silent && !sorted.length ? "No packets come: is the mirror on?" : headline(sorted)),
            sorted.length ? worst(sorted[0], sorted.length) : silent ? null : well(taps, packets),
            health(box.health)),
        silent ? mirror(box) : null,
        vitals(recent, books),
        sorted.length ? el("section", null, el("h2", null, "Open ", el("span", { class: "n" }, count(sorted.length))),
            el("div", { class: "cards" }, sorted.slice(0, SHOWN).map(card)), rest(sorted.length - SHOWN)) : null,
        closed.length ? el("section", null, el("h2", null, "Closed in the last hour ", el("span", { class: "n" }, count(closed.length))),
            el("ul", { class: "lines" }, closed.map(line))) : sorted.length ? null : el("p", { class: "muted center" }, "Nothing was closed in the last hour either. ", el("a", { href: "#/incidents" }, "All incidents")),
    ];
}

function worst(incident, among) {
    const first = sentences(explained(incident.explain).what)[0] ?? "";
    return el("p", { class: "worst" }, among > 1 ? "Worst: " : "", el("a", { href: `#/incident/${incident.id}` }, `${title(incident.kind)}, ${subject(incident)}`), `. ${first}`);
}

function well(taps, packets) {
    const seen = packets === null ? "" : `${short(packets)} packets in the last minute${taps ? ` from ${taps}` : ""}; `;
    return el("p", null, `${seen}nothing a person needs to look at.`);
}

function health(state) {
    const bad = (state?.checks ?? []).filter((check) => check.status !== "ok");
    return bad.length ? el("ul", { class: "troubles" }, bad.map((check) => el("li", null, el("strong", null, `Referee itself: ${check.what}. `), check.help ?? ""))) : null;
}

function mirror(box) {
    const names = (box.version?.interfaces ?? []).map((one) => one.name);
    const name = names[0] ?? "IFACE";
    return el("section", { class: "panel steps" }, el("h2", null, "What to look at"), el("ol", null,
        el("li", null, "Does the interface have a link, and do its counters move? ", el("code", null, `ip -s link show ${name}`)),
        el("li", null, "Do packets reach the host at all? ", el("code", null, `tcpdump -ni ${name} -c 10`), " (while Referee runs in AF_XDP mode, tcpdump sees nothing: ask the counters)"),
        el("li", null, "On the switch: is the SPAN or mirror session on, with the right source ports and this port as destination?"),
        el("li", null, "Is it the right cable, and the right interface? ", el("code", null, `referee doctor -i ${name}`)),
        el("li", null, "Is a filter set that keeps everything out? See “filtered” in ", el("a", { href: "#/books" }, "the books"), ".")));
}

function vitals(samples, books) {
    if (!samples.length) {
        return null;
    }
    const values = (name) => samples.map((sample) => sample[name] ?? null);
    const latest = (name) => values(name).filter((value) => value !== null).at(-1);
    const lost = Object.values(books?.dropped ?? {}).reduce((all, n) => all + n, 0);
    const tile = (name, value, key, extra) => el("a", { class: `tile ${extra ?? ""}`, href: "#/traffic" }, el("span", { class: "name" }, name), el("span", { class: "value" }, value), key ? spark(values(key)) : null);
    return el("section", { class: "vitals", "aria-label": "Vital signs" },
        tile("Packets", `${short(latest("packets"))}/s`, "packets"), tile("Traffic", short((latest("bytes") ?? NaN) * 8, "bit/s"), "bytes"),
        tile("Flows now", short(latest("flows") ?? NaN), "flows"),
        tile("Round trip to servers", latest("rtt_server_us") === undefined ? "–" : span(latest("rtt_server_us") / 1e6), "rtt_server_us"),
        tile("Packets lost here", books ? count(lost) : "–", null, lost ? "bad" : "good"));
}

function rest(more) {
    return more > 0 ? el("p", null, el("a", { href: "#/incidents?state=open" }, `and ${plural(more, "more")}`.replace("mores", "more"))) : null;
}

export function stored(incidents) {
    const sorted = [...incidents].sort(byUrgency);
    const newest = incidents.reduce((last, i) => Math.max(last, i.last_ns), 0);
    if (!sorted.length) {
        return [el("section", { class: "hero ok" }, el("h1", null, "No incidents in this store."), el("p", null, "No run is watching: this is what was recorded earlier. Either nothing was wrong, or nothing came: ",
            el("a", { href: "#/captures" }, "what packets are kept?")))];
    }
    return [
        el("section", { class: `hero ${sorted[0].severity}` }, el("h1", null, `${plural(sorted.length, "incident")} in this store.`),
            worst(sorted[0], sorted.length), el("p", { class: "muted" }, `No run is watching now; this was recorded earlier, the last of it ${when(newest)}.`)),
        el("section", null, el("div", { class: "cards" }, sorted.slice(0, SHOWN).map(card)),
            sorted.length > SHOWN ? el("p", null, el("a", { href: "#/incidents" }, "All incidents")) : null),
    ];
}
