// Traffic, loss and latency over time.

import { get, metrics, query, repeat } from "./api.js";
import { chart, perSecond } from "./charts.js";
import { el, show, state } from "./dom.js";
import { latencies } from "./latency.js";
import { count, ms, short, span } from "./words.js";

const SPANS = { "5m": ["5 minutes", 300, 1], "1h": ["An hour", 3600, 10], "24h": ["A day", 86400, 60] };

// At an axis, which has little room, without the unit: the title has it.
const bits = perSecond("bit/s");
const lasting = (value) => span(value);
const AXES = new Map([
    [bits, (value) => short(value)],
    [ms, (value) => ms(value, "")],
    [lasting, (value) => (value < 600 ? `${value}\u202fs` : `${Math.round(value / 6) / 10}\u202fmin`)],
]);

// How long something took: half of it, and nearly all.
const latency = (title, name) => [
    `${title}, ms`,
    ms,
    [
        ["95\u202f% within", "b", `latency.${name}.p95_us`, "level"],
        ["half within", "a", `latency.${name}.p50_us`, "level"],
    ],
    true,
];

// What is drawn: [title, unit words, lines [name, colour, figure, how], by decades]. `rate`: a count over the step's seconds.
const PLOTS = [
    ["Packets a second", perSecond(""), [["packets", "a", "packets", "rate"]]],
    ["Bits a second", bits, [["traffic", "a", "bytes", "bits"]]],
    [
        "Lost, a second",
        perSecond(""),
        [
            ["dropped before analysis", "bad", "dropped", "rate"],
            ["kept but not written", "warn", "unwritten", "rate"],
        ],
    ],
    latency("Round trip to servers", "rtt_server"),
    latency("Round trip to clients", "rtt_client"),
    latency("Connecting", "connect"),
    latency("First byte of an answer", "first_byte"),
    latency("DNS answers", "dns_answer"),
    ["Flows known", perSecond(""), [["now", "a", "flows", "level"]]],
    ["New flows, a second", perSecond(""), [["new", "a", "flows_created", "rate"]]],
    [
        "What rules saw, a second",
        perSecond(""),
        [
            ["events", "a", "events", "rate"],
            ["rules that matched", "b", "hits", "rate"],
        ],
    ],
    ["Open incidents", (value) => count(value), [["open", "a", "open", "level"]]],
    ["History in memory", lasting, [["seconds", "a", "history_s", "level"]]],
];

// Null where there is none.
export function figure(sample, name, how) {
    const value = name.split(".").reduce((at, part) => at?.[part], sample);
    if (value === null || value === undefined) {
        return null;
    }
    const seconds = sample.seconds || 1;
    return how === "rate" ? value / seconds : how === "bits" ? (value * 8) / seconds : value;
}

export async function enter({ main, at, signal }) {
    const chosen = at.options.get("span") in SPANS ? at.options.get("span") : "5m";
    const [, seconds, step] = SPANS[chosen];
    let drawn = new AbortController();
    signal.addEventListener("abort", () => drawn.abort());
    const body = el("div", { class: "charts" });
    const long = el("div");
    const choice = el(
        "div",
        { class: "controls" },
        Object.entries(SPANS).map(([name, [words]]) =>
            el(
                "a",
                { class: "button", href: `#/traffic?span=${name}`, "aria-current": name === chosen ? "true" : null },
                words,
            ),
        ),
    );
    const load = async () => {
        const answer = await get(
            `series${query({ since: Math.round((Date.now() - seconds * 1000) * 1e6), step })}`,
            signal,
        );
        if (body.matches(":hover")) {
            return;
        }
        show(long, latencies(await metrics(signal)));
        drawn.abort();
        drawn = new AbortController();
        show(body, plots(answer.items, drawn.signal));
    };
    try {
        await load();
    } catch (error) {
        if (error.noRun) {
            show(
                main,
                state(
                    "No traffic is being watched.",
                    el(
                        "p",
                        null,
                        "This is a store without a run: it holds what was recorded, not what was counted. ",
                        el("a", { href: "#/" }, "Its incidents"),
                    ),
                ),
            );
            return;
        }
        throw error;
    }
    show(main, el("div", { class: "titlerow" }, el("h1", null, "Traffic, loss, latency"), choice), body, long);
    repeat(step * 1000 < 2000 ? 2000 : 10000, load, signal);
}

export function plots(samples, signal) {
    const times = samples.map((sample) => sample.at_ns);
    const one = ([title, say, lines, log]) => {
        const drawn = lines.map(([name, css, figures, how]) => ({
            name,
            css,
            values: samples.map((sample) => figure(sample, figures, how)),
        }));
        const there = drawn.some((line) => line.values.some((value) => value !== null));
        return there || !samples.length
            ? chart({
                  title,
                  lines: drawn,
                  times,
                  say,
                  axis: AXES.get(say) ?? say,
                  log,
                  signal,
                  none: "The first seconds are not over.",
              })
            : null;
    };
    const lost = samples.reduce((all, sample) => all + (sample.dropped ?? 0) + (sample.unwritten ?? 0), 0);
    const packets = samples.reduce((all, sample) => all + (sample.packets ?? 0), 0);
    const words = !samples.length
        ? null
        : el(
              "p",
              { class: lost ? "lead bad" : "lead" },
              lost
                  ? `${short(packets)} packets; ${count(lost)} of them were lost here. `
                  : `${short(packets)} packets, none lost. `,
              el("a", { href: "#/books" }, "The books"),
          );
    return [words, ...PLOTS.map(one)];
}
