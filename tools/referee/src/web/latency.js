// How long things take: histograms of the metrics page, as distributions with their middle and their tail.

import { el, svg } from "./dom.js";
import { plural, span } from "./words.js";

const SHOWN = [
    ["Round trip to servers", 'referee_handshake_rtt_seconds{side="server"}'],
    ["Round trip to clients", 'referee_handshake_rtt_seconds{side="client"}'],
    ["Connecting", "referee_connect_seconds"],
    ["First byte of an answer", "referee_first_byte_seconds"],
    ["DNS answers", "referee_dns_answer_seconds"],
];
const WIDTH = 300;
const HEIGHT = 70;

// Histograms of an exposition, by family and labels other than `le`: [[upper bound, how many up to it], …], rising.
export function histograms(text) {
    const found = new Map();
    for (const line of String(text ?? "").split("\n")) {
        const parts = line.match(/^(\w+)_bucket\{(.*)\} (\S+)$/);
        const bound = parts?.[2].match(/(?:^|,)le="([^"]+)"/);
        if (!bound) {
            continue;
        }
        const labels = parts[2].replace(/,?le="[^"]+"/, "").replace(/^,/, "");
        const name = labels ? `${parts[1]}{${labels}}` : parts[1];
        const buckets = found.get(name) ?? [];
        buckets.push([bound[1] === "+Inf" ? Infinity : Number(bound[1]), Number(parts[3])]);
        found.set(name, buckets);
    }
    found.forEach((buckets) => buckets.sort((a, b) => a[0] - b[0]));
    return found;
}

// Below which a part of all lie; the bounds are powers of two, so within a bucket it is a guess. Null without any.
export function quantile(buckets, part) {
    const all = buckets?.at(-1)?.[1] ?? 0;
    if (!all) {
        return null;
    }
    const at = buckets.findIndex(([, upTo]) => upTo >= all * part);
    const [upper, upTo] = buckets[at];
    const [lower, before] = at > 0 ? buckets[at - 1] : [0, 0];
    if (upper === Infinity) {
        return lower;
    }
    return lower + (upper - lower) * (upTo > before ? (all * part - before) / (upTo - before) : 1);
}

// How many lie in each bucket.
export function counts(buckets) {
    return buckets.map(([bound, upTo], i) => [bound, upTo - (i > 0 ? buckets[i - 1][1] : 0)]);
}

function bars(name, buckets) {
    const each = counts(buckets);
    const most = Math.max(...each.map(([, n]) => n), 1);
    const step = WIDTH / each.length;
    const words = ([bound, n], i) =>
        bound === Infinity
            ? `above ${span(each[i - 1]?.[0] ?? 0)}: ${plural(n, "time")}`
            : `up to ${span(bound)}: ${plural(n, "time")}`;
    const bar = (one, i) => {
        const tall = one[1] ? Math.max(2, (one[1] / most) * HEIGHT) : 0;
        const shape = { class: "bucket", x: i * step + 1, width: step - 2, y: HEIGHT - tall, height: tall };
        return svg("rect", shape, svg("title", null, words(one, i)));
    };
    const ends = [each[0]?.[0], each.at(-2)?.[0]];
    return svg(
        "svg",
        {
            class: "distribution",
            viewBox: `0 0 ${WIDTH} ${HEIGHT + 18}`,
            role: "img",
            "aria-label": `${name}, how often how long`,
        },
        each.map(bar),
        svg("line", { class: "grid", x1: 0, x2: WIDTH, y1: HEIGHT + 0.5, y2: HEIGHT + 0.5 }),
        svg("text", { class: "tick", x: 0, y: HEIGHT + 14 }, `≤ ${span(ends[0])}`),
        svg("text", { class: "tick", x: WIDTH, y: HEIGHT + 14, "text-anchor": "end" }, `> ${span(ends[1])}`),
    );
}

// A panel for each that something was measured of; nothing if nothing was.
export function latencies(text) {
    const found = histograms(text);
    const panels = SHOWN.map(([name, family]) => [name, found.get(family)]).filter(
        ([, buckets]) => buckets?.length > 2 && buckets.at(-1)[1] > 0,
    );
    if (!panels.length) {
        return null;
    }
    const panel = ([name, buckets]) =>
        el(
            "div",
            { class: "panel" },
            el("h3", null, name),
            el(
                "p",
                { class: "middle" },
                `half within ${span(quantile(buckets, 0.5))}`,
                el("span", { class: "muted small block" }, `95\u202f% within ${span(quantile(buckets, 0.95))}`),
            ),
            bars(name, buckets),
            el("p", { class: "muted small" }, `${plural(buckets.at(-1)[1], "time")} measured`),
        );
    return el(
        "section",
        null,
        el("h2", null, "How long things take, since the run began"),
        el("div", { class: "latencies" }, panels.map(panel)),
    );
}
