// The time-sequence plot of one direction, as Stevens and tcptrace draw it. Pure: packets in, shapes in time and bytes out.

const SILENCE_S = 1;
const BAND_PX = 46;

// `dir`: who sends the data. Times in seconds since the first packet, heights in relative sequence numbers.
export function trace(packets, dir) {
    const first = packets[0];
    const out = {
        data: [],
        acks: [],
        edges: [],
        sacks: [],
        zero: [],
        rsts: [],
        window: "none",
        times: [],
        top: 1,
        bottom: 0,
    };
    const syns = { orig: null, resp: null };
    let scales = null;
    let lowest = Infinity;
    let highest = -Infinity;
    const reach = (y) => {
        lowest = Math.min(lowest, y);
        highest = Math.max(highest, y);
    };
    for (const packet of packets) {
        if (packet.class !== "tcp" || packet.dir === "other") {
            continue;
        }
        const t = (packet.ts_ns - first.ts_ns) / 1e9;
        if (packet.flags.includes("S")) {
            syns[packet.dir] = packet.wscale ?? -1;
            if (syns.orig !== null && syns.resp !== null) {
                scales = syns.orig >= 0 && syns.resp >= 0 ? syns : { orig: 0, resp: 0 };
            }
        }
        const rst = packet.flags.includes("R");
        if (packet.dir === dir) {
            const takes = packet.len + (packet.flags.includes("S") ? 1 : 0) + (packet.flags.includes("F") ? 1 : 0);
            if (rst) {
                out.rsts.push({ t, y: packet.seq ?? 0, n: packet.n, other: false });
            } else if (takes > 0 && packet.seq !== null) {
                out.data.push({
                    t,
                    from: packet.seq,
                    to: packet.seq + takes,
                    n: packet.n,
                    again: packet.marks.includes("retransmission"),
                    late: packet.marks.includes("out_of_order"),
                    probe: packet.marks.some((mark) => ["keepalive", "zero_window_probe"].includes(mark)),
                });
                reach(packet.seq);
                reach(packet.seq + takes);
            }
            out.times.push(t);
        } else if (rst) {
            out.rsts.push({ t, y: packet.ack ?? (Number.isFinite(highest) ? highest : 0), n: packet.n, other: true });
            out.times.push(t);
        } else if (packet.ack !== null) {
            out.acks.push({ t, y: packet.ack, n: packet.n, duplicate: packet.marks.includes("duplicate_ack") });
            reach(packet.ack);
            out.times.push(t);
            for (const [from, to] of packet.sack) {
                out.sacks.push({ t, from, to });
                reach(to);
            }
            if (scales && packet.win !== null) {
                const shift = packet.flags.includes("S") ? 0 : scales[packet.dir];
                out.edges.push({ t, y: packet.ack + packet.win * 2 ** shift });
                out.window = "drawn";
            } else if (out.window === "none" && packet.win !== null) {
                out.window = "unknown";
            }
            if (packet.win === 0 && !packet.flags.includes("S")) {
                out.zero.push({ t, y: packet.ack });
            }
        }
    }
    if (Number.isFinite(lowest)) {
        out.bottom = Math.max(0, lowest);
        out.top = Math.max(highest, out.bottom + 1);
    }
    return out;
}

// The window's edge never came near what was sent: it lies above the picture.
export function farAway(shape) {
    const most = ceiling(shape);
    return shape.edges.length > 0 && shape.edges.every((edge) => edge.y > most);
}

// Data of both directions; the one with more is shown first.
export function busier(packets) {
    const sum = { orig: 0, resp: 0 };
    packets.forEach((packet) => packet.dir in sum && (sum[packet.dir] += packet.len));
    return sum.resp > sum.orig ? "resp" : "orig";
}

// Seconds to pixels, where long silences take a narrow band each instead of nearly all the room.
export function timeScale(times, from, to, left, right) {
    const inside = [...new Set(times)].sort((a, b) => a - b).filter((t) => t >= from && t <= to);
    const edges = [from, ...inside, to];
    const span = to - from;
    const silences = [];
    for (let i = 1; i < edges.length; i += 1) {
        const length = edges[i] - edges[i - 1];
        if (length > SILENCE_S && length > span * 0.25) {
            silences.push([edges[i - 1], edges[i]]);
        }
    }
    const most = Math.max(0, Math.floor((right - left) / (BAND_PX * 3)));
    const bands = silences
        .sort((a, b) => b[1] - b[0] - (a[1] - a[0]))
        .slice(0, most)
        .sort((a, b) => a[0] - b[0]);
    const silent = bands.reduce((all, [a, b]) => all + (b - a), 0);
    const room = right - left - bands.length * BAND_PX;
    const busy = Math.max(span - silent, 1e-9);
    const pieces = [];
    let x = left;
    let t = from;
    for (const [a, b] of [...bands, [to, to]]) {
        const wide = ((a - t) / busy) * room;
        pieces.push({ from: t, to: a, x, width: wide, silent: false });
        x += wide;
        if (b > a) {
            pieces.push({ from: a, to: b, x, width: BAND_PX, silent: true });
            x += BAND_PX;
        }
        t = b;
    }
    const place = (at) => {
        const piece = pieces.find((one) => at <= one.to && one.to > one.from) ?? pieces.at(-1);
        const part = piece.to > piece.from ? (at - piece.from) / (piece.to - piece.from) : 0;
        return piece.x + part * piece.width;
    };
    const back = (px) => {
        const piece = pieces.find((one) => px <= one.x + one.width && one.width > 0) ?? pieces.at(-1);
        return piece.width > 0 ? piece.from + ((px - piece.x) / piece.width) * (piece.to - piece.from) : piece.from;
    };
    return { place, back, pieces, bands: pieces.filter((piece) => piece.silent) };
}

// Round numbers to write at an axis, no closer than `least`.
export function ticks(from, to, most, least = 0) {
    const span = to - from;
    if (!(span > 0) || most < 1) {
        return [from];
    }
    const rough = span / most;
    const power = 10 ** Math.floor(Math.log10(rough));
    const step = Math.max(least, [1, 2, 5, 10].map((n) => n * power).find((one) => one >= rough));
    const out = [];
    for (let n = Math.ceil(from / step); n * step <= to + step * 1e-9; n += 1) {
        out.push(n * step);
    }
    return out;
}

// The window's edge is worth showing if it is not far above everything that happened.
export function ceiling(shape) {
    const span = shape.top - shape.bottom;
    const near = shape.edges.map((edge) => edge.y).filter((y) => y <= shape.top + span * 0.6);
    return Math.max(shape.top, ...near);
}
