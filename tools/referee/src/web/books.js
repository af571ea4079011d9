// The books as balances: each side named, each difference shown.

import { get, repeat } from "./api.js";
import { el, show, state } from "./dom.js";
import { bytes, count, plural } from "./words.js";

export const REASONS = {
    handover_full: "a worker’s way to another was full",
    no_frame: "no free frame to receive into",
    no_socket: "no socket on its queue",
    packet_ring_full: "the kernel’s packet ring was full",
    rx_ring_full: "the receive ring was full: the worker was too slow",
    disk_full: "the disk is full",
    hold_pool_full: "memory for held packets was full",
    no_chunk: "the writer was behind",
    overwritten: "history was overwritten before the verdict",
    write_failed: "writing failed",
    segment_deleted: "the segment was deleted while it was written",
};

export async function enter({ main, signal }) {
    const load = async () => show(main, page(await get("books", signal)));
    try {
        await load();
    } catch (error) {
        if (error.noRun) {
            show(
                main,
                state(
                    "There are no books of a store alone.",
                    el(
                        "p",
                        null,
                        "A run keeps them. Of a finished one, ",
                        el("code", null, "--ledger FILE"),
                        " wrote them; ",
                        el("code", null, "referee store verify"),
                        " checks what is on disk.",
                    ),
                ),
            );
            return;
        }
        throw error;
    }
    repeat(2000, load, signal);
}

const sum = (object) => Object.values(object ?? {}).reduce((all, n) => all + (Number.isFinite(n) ? n : 0), 0);

// Each: what came in, and where it went. Pure.
export function balances(books) {
    const { flows = {}, events = {} } = books;
    const list = [
        {
            name: "Packets",
            words: "Every packet that came is accounted for.",
            total: ["received", books.received],
            parts: [
                ["analysed", books.analysed, "good"],
                ["left out by the filter", books.filtered, "plain"],
                ...reasons(books.dropped),
            ],
        },
        {
            name: "Packets kept",
            words: "What a verdict wanted kept, and what became of it.",
            total: ["to be kept", books.kept],
            parts: [["written", books.written, "good"], ...reasons(books.unwritten)],
            passing: "on its way to the disk",
        },
        {
            name: "Flows",
            words: "Each flow that began has ended or is known now.",
            total: ["created", flows.created],
            parts: [
                ["ended", flows.ended ?? (flows.created ?? 0) - (flows.live ?? 0) - (flows.evicted ?? 0), "good"],
                ["live", flows.live, "plain"],
                ...(flows.ended === undefined
                    ? [["evicted: the table was full", flows.evicted, flows.evicted ? "bad" : "zero"]]
                    : []),
            ],
        },
        {
            name: "Events",
            words: "What workers noticed and rules wait for.",
            total: ["raised", events.raised],
            parts: [
                ["delivered to the judge", events.delivered, "good"],
                ["dropped: its queue was full", events.dropped, events.dropped ? "bad" : "zero"],
                ["left out by sampling", events.sampled_out, "plain"],
            ],
            passing: "under way",
        },
    ];
    return list
        .filter((one) => Number.isFinite(one.total[1]))
        .map((one) => {
            const parts = one.parts.filter(([, n]) => Number.isFinite(n));
            const rest = one.total[1] - parts.reduce((all, [, n]) => all + n, 0);
            return { ...one, parts, rest };
        });
}

function reasons(object) {
    return Object.entries(object ?? {}).map(([name, n]) => [
        REASONS[name] ? `lost: ${REASONS[name]}` : `lost: ${name.replaceAll("_", " ")}`,
        n,
        n ? "bad" : "zero",
    ]);
}

function page(books) {
    const lost = sum(books.dropped);
    const unwritten = sum(books.unwritten);
    const all = balances(books);
    const off = books.balanced === false;
    const level = off ? "critical" : lost || unwritten ? "warning" : "ok";
    const title = off
        ? "The books do not balance."
        : lost
          ? `${plural(lost, "packet")} lost here.`
          : unwritten
            ? "Nothing lost; not everything kept was written."
            : "Nothing lost.";
    return [
        el(
            "section",
            { class: `hero ${level}` },
            el("h1", null, title),
            el(
                "p",
                null,
                `${count(books.received)} packets came${books.bytes ? `, ${bytes(books.bytes)}` : ""}. `,
                lost ? `That is 1 in ${count(books.received / lost)}. ` : "",
                off
                    ? "This is a fault of Referee’s; please report it with the ledger."
                    : books.balanced === null
                      ? "While packets come, a few are always on their way."
                      : "All of them are accounted for.",
            ),
        ),
        el(
            "div",
            { class: "balances" },
            all.map((one) => balance(one, books.balanced)),
        ),
        el(
            "section",
            { class: "panel" },
            el("h2", null, "Interfaces and the rest"),
            el("div", { class: "rest" }, rest(books)),
        ),
    ];
}

function balance({ name, words, total, parts, rest: open, passing }, closed) {
    const whole = Math.max(total[1], 1);
    const part = ([label, n, css], i) =>
        el(
            "tr",
            { class: css },
            el("td", { class: "sign" }, i ? "+" : "="),
            el("td", { class: "number" }, count(n)),
            el("td", null, label),
            el("td", { class: "share" }, share(n / whole, css)),
        );
    const ok = open === 0;
    const under = !ok && closed !== false && open > 0;
    return el(
        "section",
        { class: "panel balance" },
        el(
            "div",
            { class: "titlerow" },
            el("h2", null, name),
            el(
                "span",
                { class: ok ? "tick good" : under ? "tick" : "tick bad" },
                ok
                    ? "✓ balances"
                    : under
                      ? `${count(open)} ${passing ?? "under way"}`
                      : `✗ ${count(open)} unaccounted for`,
            ),
        ),
        el("p", { class: "muted small" }, words),
        el(
            "table",
            { class: "sums" },
            el(
                "tbody",
                null,
                el(
                    "tr",
                    { class: "total" },
                    el("td", { class: "sign" }, ""),
                    el("td", { class: "number" }, count(total[1])),
                    el("td", null, total[0]),
                    el("td"),
                ),
                parts.filter(([, n, css]) => n || css !== "zero").map(part),
                zeros(parts),
            ),
        ),
    );
}

function zeros(parts) {
    const none = parts.filter(([, n, css]) => !n && css === "zero");
    return none.length
        ? el(
              "tr",
              { class: "zero" },
              el("td", { class: "sign" }, "+"),
              el("td", { class: "number" }, "0"),
              el(
                  "td",
                  { colspan: "2" },
                  el(
                      "details",
                      null,
                      el("summary", null, `lost, of ${plural(none.length, "possible reason")}`),
                      el(
                          "ul",
                          null,
                          none.map(([label]) => el("li", null, label.replace(/^lost: /, ""))),
                      ),
                  ),
              ),
              null,
          )
        : null;
}

function share(part, css) {
    const bar = el("span", { class: `bar ${css}` });
    bar.style.width = `${Math.max(part > 0 ? 1 : 0, Math.min(100, part * 100))}%`;
    return bar;
}

// Everything else, as it is; for those who look for a certain number.
function rest(books) {
    const shown = new Set([
        "received",
        "analysed",
        "filtered",
        "dropped",
        "kept",
        "written",
        "unwritten",
        "balanced",
        "rules",
    ]);
    return Object.entries(books)
        .filter(([name, value]) => !shown.has(name) && value !== null)
        .map(([name, value]) => {
            if (Array.isArray(value)) {
                return value.map((one, i) => group(`${name} ${one.name ?? i}`, one));
            }
            return typeof value === "object" ? group(name, value) : null;
        });
}

function group(name, object) {
    const flat = (from, before) =>
        Object.entries(from).flatMap(([key, value]) =>
            value !== null && typeof value === "object" && !Array.isArray(value)
                ? flat(value, `${before}${key} `)
                : [[`${before}${key}`.replaceAll("_", " "), value]],
        );
    const rows = flat(object, "").filter(([, value]) => value !== null && value !== "");
    return rows.length
        ? el(
              "details",
              null,
              el("summary", null, name.replaceAll("_", " ")),
              el(
                  "table",
                  { class: "pairs" },
                  el(
                      "tbody",
                      null,
                      rows.map(([key, value]) =>
                          el(
                              "tr",
                              { class: value === 0 ? "unknown" : "" },
                              el("th", { scope: "row" }, key),
                              el("td", { class: "number" }, typeof value === "number" ? count(value) : String(value)),
                          ),
                      ),
                  ),
              ),
          )
        : null;
}
