// The ladder: where each packet of a flow goes, between client, tap and server. Pure: packets in, places out.

import { bytes as size, count, plural, span } from "./words.js";

const ROW = 27;
const GAP_ROW = 40;
const NOTE_ROW = 16;
const HEAD = 46;
const SLANT = 15;
const ROWS_MOST = { wide: 60, narrow: 36 };
const SILENCE_S = 1;
const NARROW = 640;

const NOTES = {
    retransmission: "sent again",
    out_of_order: "out of order",
    lost_before: "a gap before it",
    keepalive: "keepalive",
    zero_window: "window closed",
    zero_window_probe: "asks for room",
    duplicate_ack: "same ACK again",
};

export const seconds = (packet, first) => (packet.ts_ns - first.ts_ns) / 1e9;

export function isRst(packet) {
    return packet.class === "tcp" && packet.flags.includes("R");
}

// How far a RST's TTL is from that of its sender's other packets; null where either is not known.
function ttlApart(packet) {
    const known = isRst(packet) && packet.expected_ttl !== null && packet.ttl !== null;
    return known ? Math.abs(packet.ttl - packet.expected_ttl) : null;
}

// A RST that does not come from where its sender's packets come from. Packets of one host differ by one where routes do.
export function isForeign(packet) {
    return ttlApart(packet) > 1;
}

export function kindOf(packet) {
    if (packet.class !== "tcp") {
        return packet.class === "icmp" ? "icmp" : "data";
    }
    if (isRst(packet)) {
        return "rst";
    }
    if (packet.flags.includes("S")) {
        return "syn";
    }
    if (packet.flags.includes("F")) {
        return "fin";
    }
    if (packet.marks.includes("handshake")) {
        return "syn";
    }
    return packet.len > 0 ? "data" : "ack";
}

export function labelOf(packet) {
    const length = packet.len > 0 ? `${count(packet.len)} B` : "";
    if (packet.class === "icmp") {
        const too = packet.marks.find((mark) => mark.startsWith("icmp_too_big:"));
        const other = packet.marks.find((mark) => mark.startsWith("icmp:"));
        return too ? `ICMP too big, MTU ${too.split(":")[1]}` : `ICMP ${other?.split(":")[1] ?? ""}`.trim();
    }
    if (packet.class !== "tcp") {
        return length || packet.class;
    }
    const names = [
        ["S", "SYN"],
        ["F", "FIN"],
        ["R", "RST"],
    ]
        .filter(([letter]) => packet.flags.includes(letter))
        .map(([, name]) => name);
    if (packet.flags.includes("S") && packet.flags.includes(".")) {
        names.push("ACK");
    }
    if (packet.marks.includes("zero_window_probe")) {
        names.push("probe");
    }
    if (packet.marks.includes("keepalive")) {
        names.push("keepalive");
    }
    const words = [names.join("-"), length].filter(Boolean).join(" · ");
    return words || (packet.sack.length ? "ACK + SACK" : "ACK");
}

export function noteOf(packet, narrow = false) {
    const notes = [];
    if (isRst(packet)) {
        const whose = packet.dir === "orig" ? "client" : "server";
        const apart = ttlApart(packet);
        const ttl = `TTL ${packet.ttl ?? (narrow ? "?" : "unknown")}`;
        if (apart === null) {
            notes.push(ttl);
        } else if (narrow) {
            notes.push(apart ? `${ttl} ≠ ${packet.expected_ttl}` : ttl);
        } else {
            notes.push(apart ? `${ttl}, the ${whose}'s others ${packet.expected_ttl}` : `${ttl}, as the ${whose}'s others`);
        }
    }
    for (const mark of packet.marks) {
        if (NOTES[mark] && mark !== "keepalive") {
            notes.push(NOTES[mark]);
        }
    }
    if (!narrow && packet.flags.includes("S") && packet.mss) {
        notes.push(`MSS ${packet.mss}${packet.wscale === null ? ", no scaling" : `, scale ${packet.wscale}`}`);
    }
    return notes.join(" · ");
}

// What must be seen: 3 the verdict's packets, 2 how it began and ended, 1 what went wrong on the way.
function weights(packets) {
    const weight = packets.map((packet) => {
        const kind = kindOf(packet);
        if (packet.raised || kind === "rst" || kind === "icmp") {
            return 3;
        }
        return kind === "syn" || kind === "fin" ? 2 : packet.marks.length ? 1 : 0;
    });
    const around = new Set();
    packets.forEach((packet, i) => {
        if (weight[i] === 3) {
            for (let near = Math.max(0, i - 5); near <= Math.min(packets.length - 1, i + 4); near += 1) {
                around.add(near);
            }
        }
        if (i > 0 && seconds(packet, packets[i - 1]) > SILENCE_S) {
            around.add(i - 1).add(i);
        }
    });
    return weight.map((value, i) => Math.max(value, around.has(i) ? 2 : i < 8 || i >= packets.length - 4 ? 1.5 : 0));
}

// Which packets are shown; runs of the others fold. `opened` holds the numbers of folds that were opened.
function folds(packets, opened, most) {
    if (packets.length <= most) {
        return packets.map(() => true);
    }
    const weight = weights(packets);
    const order = packets.map((_, i) => i).sort((a, b) => weight[b] - weight[a] || a - b);
    const shown = packets.map(() => false);
    order
        .filter((i) => weight[i] > 0)
        .slice(0, most)
        .forEach((i) => (shown[i] = true));
    let i = 0;
    while (i < packets.length) {
        let end = i;
        while (end < packets.length && !shown[end]) {
            end += 1;
        }
        // Two packets take no more room than the line that stands for them.
        if (end > i && (end - i <= 2 || opened.has(packets[i].n))) {
            for (let k = i; k < end; k += 1) {
                shown[k] = true;
            }
        }
        i = Math.max(end, i + 1);
    }
    return shown;
}

// Round trips on either side of the tap, by the handshake; null where it was not seen.
export function roundTrips(packets) {
    const at = (test) => packets.find((packet) => packet.class === "tcp" && test(packet));
    const syn = at((p) => p.flags.includes("S") && !p.flags.includes("."));
    const answer = at((p) => p.flags.includes("S") && p.flags.includes("."));
    const ack = answer && at((p) => p.n > answer.n && p.dir === "orig" && !p.flags.includes("S"));
    return {
        server: syn && answer && answer.n > syn.n ? seconds(answer, syn) : null,
        client: answer && ack ? seconds(ack, answer) : null,
    };
}

function lanes(width, packets, narrow) {
    const left = narrow ? 66 : 92;
    const right = narrow ? width - 10 : width - Math.min(250, width * 0.31);
    const { client, server } = roundTrips(packets);
    const share = client !== null && server !== null && client + server > 0 ? client / (client + server) : 0.5;
    const part = Math.min(0.7, Math.max(0.3, share));
    return { client: left, tap: Math.round(left + (right - left) * part), server: right, part };
}

function arrow(packet, y, at) {
    const down = SLANT * (packet.dir === "orig" ? at.part : 1 - at.part);
    const ends = packet.dir === "orig" ? [at.client, at.server] : [at.server, at.client];
    const start = { x: ends[0], y: y - down };
    const end = { x: ends[1], y: y + SLANT - down };
    if (packet.dir === "other") {
        return { start: { x: at.tap, y }, end: { x: at.tap, y }, via: { x: at.tap, y } };
    }
    // Made somewhere between its alleged sender and the tap, nobody knows where.
    const foreign = isForeign(packet) ? { x: (start.x + at.tap) / 2, y: (start.y + y) / 2 } : null;
    return { start, end, via: { x: at.tap, y }, foreign };
}

// All places. `options.opened`: folds to show in full.
export function layout(packets, width, options = {}) {
    const opened = options.opened ?? new Set();
    const narrow = width < NARROW;
    const at = lanes(width, packets, narrow);
    const shown = folds(packets, opened, narrow ? ROWS_MOST.narrow : ROWS_MOST.wide);
    const rows = [];
    let y = HEAD + 14;
    for (let i = 0; i < packets.length; i += 1) {
        const packet = packets[i];
        const before = packets[i - 1];
        if (before && packet.n > before.n + 1) {
            rows.push({
                type: "left_out",
                y: y + 6,
                height: ROW,
                words: `${plural(packet.n - before.n - 1, "packet")} left out here`,
            });
            y += ROW + 8;
        }
        const silence = before ? seconds(packet, before) : 0;
        if (silence > SILENCE_S) {
            rows.push({
                type: "gap",
                y: y + GAP_ROW / 2 - 10,
                height: GAP_ROW,
                seconds: silence,
                words: `${span(silence)} of silence`,
            });
            y += GAP_ROW;
        }
        if (shown[i]) {
            rows.push({
                type: "packet",
                y,
                height: ROW,
                packet,
                kind: kindOf(packet),
                label: labelOf(packet),
                note: noteOf(packet, narrow),
                again: packet.marks.includes("retransmission"),
                time: seconds(packet, packets[0]),
                ...arrow(packet, y, at),
            });
            // On a narrow picture a RST's TTL stands under its arrow.
            y += ROW + (narrow && isRst(packet) ? NOTE_ROW : 0);
            continue;
        }
        let end = i;
        let total = 0;
        while (
            end < packets.length &&
            !shown[end] &&
            (end === i ||
                (seconds(packets[end], packets[end - 1]) <= SILENCE_S && packets[end].n === packets[end - 1].n + 1))
        ) {
            total += packets[end].len;
            end += 1;
        }
        const time = seconds(packet, packets[0]);
        rows.push({
            type: "fold",
            y,
            height: ROW + 4,
            first: packet.n,
            count: end - i,
            time,
            words: `${plural(end - i, "packet")}, ${size(total)}`,
        });
        y += ROW + 6;
        i = end - 1;
    }
    return { width, height: y + 14, head: HEAD, narrow, lanes: at, rows, first: packets[0] ?? null };
}

// What the picture shows, in two sentences, for those who can't see it.
export function described(packets, ends) {
    if (!packets.length) {
        return "No packets.";
    }
    const rsts = packets.filter(isRst);
    const foreign = rsts.filter(isForeign);
    const near = rsts.filter((packet) => ttlApart(packet) === 1);
    const parts = [
        `${plural(packets.length, "packet")} between ${ends.client} and ${ends.server} in ${span(seconds(packets.at(-1), packets[0]))}.`,
    ];
    if (foreign.length) {
        parts.push(
            `${plural(foreign.length, "RST")} with a TTL that is not the sender's: ${foreign[0].ttl} instead of ${foreign[0].expected_ttl}.`,
        );
    } else if (near.length) {
        parts.push(
            `${plural(near.length, "RST")} with a TTL one off from the sender's others: ${near[0].ttl} instead of ${near[0].expected_ttl}.`,
        );
    } else if (rsts.length) {
        parts.push(`${plural(rsts.length, "RST")}.`);
    }
    return parts.join(" ");
}
