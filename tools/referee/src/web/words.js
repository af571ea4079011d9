// Numbers, times and incidents in words. Pure: the same in a browser and in a test.

const TITLES = {
    ack_storm: "Acknowledgements in a storm",
    challenge_ack: "A SYN met an old connection",
    close_wait_pileup: "A service does not close its connections",
    conn_refused: "Connections are refused",
    connection_churn: "Connections opened and closed without rest",
    dns_error: "A resolver answers with errors",
    dns_slow: "DNS answers come late",
    dns_timeout_retry: "DNS questions have to be repeated",
    dns_unanswered: "DNS questions go unanswered",
    ecn_ce: "Congestion marks nobody answers",
    ecn_syn_blackhole: "SYNs that offer ECN vanish",
    fin_wait2_pileup: "Half-closed connections pile up",
    half_open: "One end is gone, the other does not know",
    host_scan: "One host tries a port on many",
    http_server_error: "A web service answers with errors",
    icmp_ignored: "A sender ignores “packet too big”",
    icmp_unreachable: "A destination is unreachable",
    loss_limited: "Loss limits a transfer",
    mss_low: "Segments are kept very small",
    on_demand: "Capture on demand",
    pmtu_blackhole: "Large packets vanish",
    port_exhaustion: "A client runs out of ports",
    port_scan: "One host tries many ports",
    rst_after_clienthello: "Reset right after the TLS greeting",
    rst_after_idle: "Cut off after a silence",
    rst_injected: "A reset its sender did not send",
    rst_midflow: "Cut off in the middle",
    rst_storm: "Resets in a storm",
    rule_switched_off: "A rule was switched off",
    sack_garbled: "Selective acknowledgements are garbled",
    sack_missing: "Selective acknowledgement is missing",
    slow_connect: "Connecting takes long",
    slow_server: "A server answers late",
    state_table_near_full: "A state table may be nearly full",
    syn_flood: "A flood of SYNs",
    syn_no_synack: "Connection attempts go unanswered",
    syn_recv_pileup: "Half-open connections pile up",
    syn_unanswered_ratio: "Some connection attempts vanish",
    synack_retransmission: "A server repeats its SYN-ACK",
    time_wait_pileup: "Closed connections pile up",
    tls_no_server_hello: "No answer to the TLS greeting",
    window_limited: "The window limits a transfer",
    wscale_missing: "Window scaling is missing",
    zero_window_stall: "A receiver has stopped reading",
};

const WORST_FIRST = ["critical", "warning", "info"];

export function title(kind) {
    const plain = String(kind ?? "incident").replaceAll("_", " ");
    return TITLES[kind] ?? plain.charAt(0).toUpperCase() + plain.slice(1);
}

export function endpoint(address, port) {
    const host = String(address ?? "?");
    if (!port) {
        return host;
    }
    return host.includes(":") ? `[${host}]:${port}` : `${host}:${port}`;
}

export function subject(incident) {
    const s = incident.subject ?? {};
    if (s.host) {
        return s.host;
    }
    if (s.src) {
        return `${endpoint(s.src, s.sport)} → ${endpoint(s.dst, s.dport)}`;
    }
    if (s.dst) {
        return endpoint(s.dst, s.dport);
    }
    return "the whole link";
}

export function whose(incident) {
    return { flow: "connection", host: "host", service: "service", link: "link" }[incident.scope] ?? "subject";
}

export function byUrgency(a, b) {
    const rank = (i) => (WORST_FIRST.indexOf(i.severity) + WORST_FIRST.length + 1) % (WORST_FIRST.length + 1);
    return rank(a) - rank(b) || b.last_ns - a.last_ns;
}

export function plural(n, one, many = `${one}s`) {
    return `${count(n)} ${n === 1 ? one : many}`;
}

export function count(n) {
    return Number.isFinite(n) ? Math.round(n).toLocaleString("en-US").replaceAll(",", "\u202f") : "–";
}

// Three digits and a prefix: 1.24 M.
export function short(n, unit = "") {
    if (!Number.isFinite(n)) {
        return "–";
    }
    const steps = [
        [1e12, "T"],
        [1e9, "G"],
        [1e6, "M"],
        [1e3, "k"],
    ];
    const [by, prefix] = steps.find(([size]) => Math.abs(n) >= size) ?? [1, ""];
    const value = n / by;
    const digits = Math.abs(value) >= 100 || Number.isInteger(value) ? 0 : Math.abs(value) >= 10 ? 1 : 2;
    return `${value.toFixed(digits)}${prefix || unit ? "\u202f" : ""}${prefix}${unit}`;
}

export function bytes(n) {
    if (!Number.isFinite(n)) {
        return "–";
    }
    const steps = [
        [2 ** 40, "TiB"],
        [2 ** 30, "GiB"],
        [2 ** 20, "MiB"],
        [1024, "KiB"],
    ];
    const [by, unit] = steps.find(([size]) => n >= size) ?? [1, "B"];
    const value = n / by;
    return `${value.toFixed(by === 1 || value >= 100 ? 0 : 1)}\u202f${unit}`;
}

// A length of time, of microseconds to days.
export function span(seconds) {
    if (!Number.isFinite(seconds)) {
        return "–";
    }
    const s = Math.abs(seconds);
    const trimmed = (value, unit) => `${Number(value.toPrecision(3))}\u202f${unit}`;
    if (s < 1e-3) {
        return trimmed(seconds * 1e6, "µs");
    }
    if (s < 1) {
        return trimmed(seconds * 1e3, "ms");
    }
    if (s < 120) {
        return trimmed(seconds, "s");
    }
    const whole = Math.round(s);
    if (s < 7200) {
        return `${Math.floor(whole / 60)}\u202fmin${whole % 60 && s < 600 ? ` ${whole % 60}\u202fs` : ""}`;
    }
    const hours = Math.round(s / 3600);
    return hours < 48 ? `${hours}\u202fh` : `${Math.round(hours / 24)} days`;
}

// A latency, always in milliseconds, so that what stands side by side compares.
export function ms(micros, unit = "\u202fms") {
    if (!Number.isFinite(micros)) {
        return "–";
    }
    const value = micros / 1000;
    return `${value >= 1000 ? count(value) : Number(value.toPrecision(3))}${unit}`;
}

export function ago(ns, now = Date.now()) {
    const seconds = now / 1000 - ns / 1e9;
    return seconds < 1.5 ? "just now" : `${span(Math.round(seconds))} ago`;
}

const two = (n) => String(n).padStart(2, "0");

export function clock(ns) {
    const at = new Date(ns / 1e6);
    return `${two(at.getUTCHours())}:${two(at.getUTCMinutes())}:${two(at.getUTCSeconds())}`;
}

export function day(ns) {
    const at = new Date(ns / 1e6);
    return `${at.getUTCFullYear()}-${two(at.getUTCMonth() + 1)}-${two(at.getUTCDate())}`;
}

// With the day only where it is not today's.
export function when(ns, now = Date.now()) {
    return day(ns) === day(now * 1e6) ? `${clock(ns)} UTC` : `${day(ns)} ${clock(ns)} UTC`;
}

// The explanation in parts: what happened, how often, and what sets the failing ones apart.
export function explained(text) {
    const whole = String(text ?? "");
    const more = whole.match(
        /\s… ((?:and )?\d.*?(?: and \d{4}-\S+?Z| at \d{4}-\S+?Z)(?: (?:are|is) part of it)?)\.?(?:\s+|$)/s,
    );
    if (!more) {
        return { what: whole, more: "", apart: "" };
    }
    const brief = more[1]
        .replace(/\d{4}-\d\d-\d\dT(\d\d:\d\d:\d\d)(?:\.\d+)?Z/g, "$1\u00a0UTC")
        .replace(/\u00a0UTC and (\S+\u00a0UTC)/, " and $1")
        .replace(/between (\S+) and \1/, "at $1");
    return {
        what: whole.slice(0, more.index).trim(),
        more: `${brief.charAt(0).toUpperCase()}${brief.slice(1)}.`,
        apart: whole.slice(more.index + more[0].length).trim(),
    };
}

export function sentences(text) {
    return String(text ?? "")
        .split(/(?<=[.!?])\s+(?=[A-Z0-9[“"])/)
        .filter(Boolean);
}

// "2 things are broken now."
export function headline(open) {
    if (open.length === 0) {
        return "Healthy.";
    }
    const grave = open.filter((incident) => incident.severity !== "info").length;
    if (grave === 0) {
        return open.length === 1
            ? "Nothing is broken; one thing is worth a look."
            : `Nothing is broken; ${open.length} things are worth a look.`;
    }
    return grave === 1 ? "One thing is broken now." : `${grave} things are broken now.`;
}
