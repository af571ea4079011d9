// Evidence, conditions and advice as rows and parts to show. Pure.

import { bytes, count, span, title } from "./words.js";

const NAMES = {
    apart: null,
    absorbed: null,
    df_fits: "Don't Fragment as usual",
    idle_timeout_at_most_ms: "Idle timeout at most",
    injected: "Shown to be somebody else's",
    ip_id_fits: "IP-ID as usual",
    sent_by: "Sent in the name of",
    seq_exact: "Sequence number exact",
    seq_in_window: "Sequence number in window",
    faster_than_rtt: "Faster than a round trip",
    usual_ttl: "Usual TTL",
    ttl: "TTL",
    rst_ttl: "TTL of the RST",
    both_ends_reset: "Both ends reset",
    rtt_us: "Round trip",
};
const UNITS = [
    ["_ms", (n) => span(n / 1e3)],
    ["_us", (n) => span(n / 1e6)],
    ["_ns", (n) => span(n / 1e9)],
    ["_s", (n) => span(n)],
    ["_bytes", (n) => `${count(n)} B`],
    ["_bytes_per_second", (n) => `${bytes(n)}/s`],
    ["_ppm", (n) => `${(n / 1e4).toPrecision(3)}\u202f%`],
    ["_percent", (n) => `${n} %`],
];

// A rate or a count within a time ("rsts_1s") is no length of time.
function unitOf(key) {
    return /_\d+s$/.test(key) ? undefined : UNITS.find(([ending]) => key.endsWith(ending));
}

export function nameOf(key) {
    if (NAMES[key]) {
        return NAMES[key];
    }
    const unit = unitOf(key);
    const within = key.match(/_(\d+)s$/);
    let plain = unit ? key.slice(0, -unit[0].length) : within ? key.slice(0, within.index) : key;
    if (plain.endsWith("_at_least") || plain.endsWith("_below")) {
        plain = plain.replace(/_(at_least|below)$/, ", $1");
    }
    plain = plain
        .replaceAll("_", " ")
        .replace(/\borig\b/g, "client")
        .replace(/\bresp\b/g, "server")
        .replace(/\b(syn|syns|rst|rsts|rtt|ttl|mss|icmp|dns|ip|mtu|ecn|sack|fin|ack|udp|tcp|tls|http)\b/g, (w) =>
            w.endsWith("s") && w !== "dns" && w !== "mss" && w !== "tls"
                ? w.slice(0, -1).toUpperCase() + "s"
                : w.toUpperCase(),
        );
    return plain.charAt(0).toUpperCase() + plain.slice(1) + (within ? ` within ${within[1]}\u202fs` : "");
}

export function valueOf(key, value) {
    // A port is a name, not a number of things.
    const plain = (n) => (Number.isInteger(n) && !/(^|_|[sd])port$/.test(key) ? count(n) : String(n));
    const say = unitOf(key)?.[1] ?? plain;
    if (value === null || value === undefined) {
        return "not known";
    }
    if (typeof value === "boolean") {
        return value ? "yes" : "no";
    }
    if (typeof value === "number") {
        return say(value);
    }
    if (Array.isArray(value)) {
        return value.map((one) => valueOf(key, one)).join(", ");
    }
    if (typeof value === "object") {
        if ("min" in value && "max" in value) {
            const [least, most] = [say(value.min), say(value.max)];
            return least === most ? least : `${least} to ${most}`;
        }
        if (Array.isArray(value.values)) {
            return value.values.includes(true) && value.values.includes(false)
                ? "of some"
                : value.values.map((one) => valueOf(key, one)).join(", ");
        }
        return Object.entries(value)
            .map(([k, v]) => `${nameOf(k).toLowerCase()} ${valueOf(k, v)}`)
            .join(", ");
    }
    return String(value);
}

// [name, value] of each thing found; what has a place of its own on the page is left out.
export function rows(evidence) {
    return Object.entries(evidence ?? {})
        .filter(([key]) => NAMES[key] !== null)
        .map(([key, value]) => [nameOf(key), valueOf(key, value), key])
        .sort((a, b) => (a[1] === "not known") - (b[1] === "not known"));
}

// Incidents of other kinds that were taken into this one.
export function absorbed(evidence) {
    return Object.entries(evidence?.absorbed ?? {}).map(([kind, what]) => ({
        title: title(kind),
        kind,
        flows: what.flows ?? what.count ?? null,
        rows: rows(what.evidence),
    }));
}

// The conditions that held, each with the values it was asked about.
export function conditions(because) {
    return (because ?? []).map((one) => ({
        text: one.if,
        facts: Object.entries(one.facts ?? {}).map(
            ([name, value]) => `${name} = ${value === null ? "not known" : JSON.stringify(value)}`,
        ),
        params: Object.entries(one.params ?? {}).map(([name, value]) => `${name} = ${JSON.stringify(value)}`),
    }));
}

// What sets failing flows apart: a sentence's worth of figures each, drawn as two ranges where there are two.
export function apart(evidence) {
    const found = Array.isArray(evidence?.apart) ? evidence.apart : [];
    return found.map((one) => {
        const healthy = one.healthy ?? 0;
        switch (one.by) {
            case "silence":
                return {
                    label: "Silence before",
                    unit: "s",
                    healthy,
                    fine: one.healthy_max_ms / 1e3,
                    failing: one.failing_min_ms / 1e3,
                    fineWords: `up to ${span(one.healthy_max_ms / 1e3)} outlived`,
                    failingWords: `from ${span(one.failing_min_ms / 1e3)} on cut`,
                };
            case "size":
                return {
                    label: "Size",
                    unit: "B",
                    healthy,
                    fine: one.healthy_max_payload_bytes,
                    failing: one.failing_min_bytes,
                    fineWords: `up to ${bytes(one.healthy_max_payload_bytes)} arrive`,
                    failingWords: `from ${bytes(one.failing_min_bytes)} on vanish`,
                };
            case "origin":
                return { label: "Who", healthy, words: `Only ${one.failing} is hit` };
            case "ttl":
                return {
                    label: "Way through the network",
                    healthy,
                    words: `TTL ${[one.failing].flat().join(", ")} where it fails, ${[one.healthy].flat().join(", ")} where it goes well`,
                };
            case "ecn":
                return { label: "ECN", healthy, words: "All that fail offered ECN, none that went well did" };
            default:
                return { label: "Nothing looked at", healthy, words: "Neither network, path, silence, size nor ECN" };
        }
    });
}

const TOOLS =
    /^(dmesg|nstat|ss|ip|ethtool|tc|mtr|tracepath|traceroute|ping|iptables|nft|sysctl|conntrack|tshark|referee|dig|lsof|strace|openssl|curl)$/;
const ARGUMENT =
    /^(-|\||"|[A-Z0-9]|\S*[0-9_.…:/=]|grep$|link$|route$|get$|change$|do$|mangle$|tcp$|qdisc$|mtu$|show$|to$|on$|-)/;
const NEVER = new Set(["to", "on", "with", "and", "or"]);

// Text and the commands and settings in it: [{text}|{code}]. Prose is English, so this is a guess that errs on the side of prose.
export function advice(text) {
    const parts = [];
    let plain = "";
    const code = (words) => {
        if (plain) {
            parts.push({ text: plain });
        }
        plain = "";
        parts.push({ code: words });
    };
    const tokens = String(text ?? "").match(/"[^"]*"\S*|\S+|\s+/g) ?? [];
    for (let i = 0; i < tokens.length; i += 1) {
        const lead = tokens[i].match(/^[("]*/)[0];
        const word = tokens[i].slice(lead.length);
        const setting = word.match(
            /^((?:net|fs|kernel)\.[a-z0-9_.]*[a-z0-9_]|tcp_[a-z0-9_]+|nf_conntrack_[a-z0-9_]+)(.*)$/,
        );
        const bare = word.replace(/[,.;:)]+$/, "");
        if (setting) {
            plain += lead;
            let words = setting[1];
            let rest = setting[2];
            if (!rest && tokens[i + 2] === "=" && tokens[i + 4]) {
                const value = tokens[i + 4].match(/^([\w.-]*\w)(.*)$/);
                if (value) {
                    words += ` = ${value[1]}`;
                    rest = value[2];
                    i += 4;
                }
            }
            code(words);
            plain += rest;
        } else if (TOOLS.test(bare) && lead !== '"') {
            const [words, rest, next] = commandAt(tokens, i, bare, word.slice(bare.length));
            if (words === bare && bare.length < 4) {
                plain += tokens[i];
            } else {
                plain += lead;
                code(words);
                plain += rest;
                i = next;
            }
        } else {
            plain += tokens[i];
        }
    }
    if (plain) {
        parts.push({ text: plain });
    }
    return parts;
}

function commandAt(tokens, start, first, after) {
    let words = first;
    let rest = after;
    let at = start;
    while (
        !rest &&
        tokens[at + 2] &&
        ARGUMENT.test(tokens[at + 2].replace(/[,.;:)]+$/, "")) &&
        !NEVER.has(tokens[at + 2]) &&
        !/^[A-Z][a-z]/.test(tokens[at + 2].replace(/^(Tcp|Icmp|Ip|Udp)[A-Z]?.*/, "X"))
    ) {
        const token = tokens[at + 2];
        const bare = token.replace(/[,.;:)]+$/, "");
        words += ` ${bare}`;
        rest = token.slice(bare.length);
        at += 2;
    }
    return [words, rest, at];
}

// Settings with a value, ready for a shell; a short name continues the path of the one before.
export function settings(text) {
    const lines = [];
    let path = "net.ipv4.";
    for (const part of advice(text)) {
        const found = part.code?.match(/^([a-z0-9_.]+) = (\S+)$/);
        if (found) {
            const name = found[1].includes(".") ? found[1] : path + found[1];
            path = name.slice(0, name.lastIndexOf(".") + 1);
            lines.push(`sysctl -w ${name}=${found[2]}`);
        }
    }
    return lines;
}
