// Where the ladder and the time-sequence plot put things, for flows of all shapes.

import assert from "node:assert/strict";
import { test } from "node:test";
import { readFileSync, readdirSync } from "node:fs";

import { balances } from "../books.js";
import { alone, decades, path, points } from "../charts.js";
import { described, isForeign, labelOf, layout, noteOf, roundTrips } from "../ladder.js";
import { counts, histograms, quantile } from "../latency.js";
import { offset } from "../rule-editor.js";
import { busier, ceiling, ticks, timeScale, trace } from "../sequence.js";
import { figure } from "../traffic.js";

const FOLDER = new URL("fixtures/", import.meta.url);
const fixtures = readdirSync(FOLDER)
    .filter((name) => name.startsWith("packets-"))
    .map((name) => JSON.parse(readFileSync(new URL(name, FOLDER))));
const flow = (id) => fixtures.find((one) => one.flows.some((f) => f.incidents.includes(id))).packets;
const IDLE = "1fbd5c4e4df9d78b";

const packet = (n, over) => ({
    n,
    ts_ns: 1e18 + n * 1e6,
    dir: "orig",
    class: "tcp",
    from: null,
    flags: ".",
    seq: 1,
    ack: 1,
    len: 0,
    win: 500,
    wscale: null,
    mss: null,
    ttl: 64,
    ip_id: 1,
    sack: [],
    bytes: 60,
    orig_len: 60,
    marks: [],
    raised: null,
    expected_ttl: null,
    ...over,
});

function sound(model) {
    const numbers = model.rows.flatMap((row) =>
        [row.y, row.height, row.start?.x, row.start?.y, row.end?.x, row.end?.y].filter((value) => value !== undefined),
    );
    assert.ok(numbers.every(Number.isFinite));
    model.rows.forEach((row, i) => i && assert.ok(row.y > model.rows[i - 1].y, "rows go down"));
    assert.ok(
        model.lanes.client < model.lanes.tap &&
            model.lanes.tap < model.lanes.server &&
            model.lanes.server <= model.width,
    );
}

test("every recorded flow can be laid out, wide and narrow", () => {
    for (const { packets } of fixtures) {
        for (const width of [300, 360, 700, 1200]) {
            const model = layout(packets, width);
            sound(model);
            const shown = model.rows.reduce(
                (all, row) => all + (row.type === "packet" ? 1 : row.type === "fold" ? row.count : 0),
                0,
            );
            assert.equal(shown, packets.length, "each packet is drawn or folded");
        }
    }
});

test("no packets, one, two, and five thousand", () => {
    assert.deepEqual(layout([], 800).rows, []);
    assert.equal(described([], {}), "No packets.");
    sound(layout([packet(1)], 800));
    assert.equal(layout([packet(1), packet(2)], 800).rows.length, 2);
    const many = Array.from({ length: 5000 }, (_, i) =>
        packet(i + 1, { len: 100, marks: i % 3 ? [] : ["retransmission"] }),
    );
    const model = layout(many, 800);
    sound(model);
    assert.ok(model.rows.length < 200, `${model.rows.length} rows`);
    const fold = model.rows.find((row) => row.type === "fold");
    const opened = layout(many, 800, { opened: new Set([fold.first]) });
    assert.equal(opened.rows.length, model.rows.length - 1 + fold.count);
});

test("a silence is a gap, and what was left out is said", () => {
    const model = layout([packet(1), packet(2, { ts_ns: 1e18 + 31e9 }), packet(40, { ts_ns: 1e18 + 31.1e9 })], 800);
    assert.deepEqual(
        model.rows.map((row) => row.type),
        ["packet", "gap", "packet", "left_out", "packet"],
    );
    assert.match(model.rows[3].words, /^37 packets/);
});

test("a forged RST says whose TTL is which", () => {
    const packets = flow(IDLE);
    const rst = packets.find((one) => one.flags.includes("R"));
    assert.ok(isForeign(rst));
    assert.equal(noteOf(rst), "TTL 253, the server's others 61");
    assert.equal(noteOf(rst, true), "TTL 253 ≠ 61");
    const row = layout(packets, 900).rows.find((one) => one.kind === "rst");
    assert.ok(row.foreign.x > row.via.x && row.foreign.x < row.start.x, "made between the tap and the server");
    assert.match(
        described(packets, { client: "a", server: "b" }),
        /1 RST with a TTL that is not the sender's: 253 instead of 61/,
    );
    assert.equal(noteOf(packet(1, { flags: "R", ttl: null })), "TTL unknown");
    assert.equal(noteOf(packet(1, { flags: "R", ttl: 64 })), "TTL 64");
});

test("a RST whose TTL is one off is not said to have its sender's", () => {
    for (const ttl of [62, 60]) {
        const near = packet(1, { flags: "R.", ttl, expected_ttl: 61, dir: "resp" });
        assert.ok(!isForeign(near), "routes differ by as much");
        assert.equal(noteOf(near), `TTL ${ttl}, the server's others 61`);
        assert.equal(noteOf(near, true), `TTL ${ttl} ≠ 61`);
        assert.match(
            described([near], { client: "a", server: "b" }),
            new RegExp(`1 RST with a TTL one off from the sender's others: ${ttl} instead of 61`),
        );
    }
    const own = packet(1, { flags: "R.", ttl: 61, expected_ttl: 61, dir: "resp" });
    assert.equal(noteOf(own), "TTL 61, as the server's others");
    assert.equal(noteOf(own, true), "TTL 61");
    const client = packet(1, { flags: "R", ttl: 64, expected_ttl: 64, dir: "orig" });
    assert.equal(noteOf(client), "TTL 64, as the client's others");
});

test("labels", () => {
    assert.deepEqual(
        [
            { flags: "S" },
            { flags: "S." },
            { flags: "." },
            { flags: "F.", len: 5 },
            { flags: "P.", len: 1448 },
            { flags: ".", sack: [[1, 2]] },
            { class: "icmp", flags: "", marks: ["icmp_too_big:1400"] },
            { class: "icmp", flags: "", marks: ["icmp:3/1"] },
            { class: "udp", flags: "", len: 40 },
        ].map((over) => labelOf(packet(1, over)).replaceAll("\u202f", " ")),
        ["SYN", "SYN-ACK", "ACK", "FIN · 5 B", "1 448 B", "ACK + SACK", "ICMP too big, MTU 1400", "ICMP 3/1", "40 B"],
    );
});

test("round trips are of the handshake, or not known", () => {
    const { client, server } = roundTrips(flow(IDLE));
    assert.ok(client > 0 && server > 0);
    assert.deepEqual(roundTrips([packet(1)]), { client: null, server: null });
});

test("a trace has data, acknowledgements, and the window only if its scale is known", () => {
    for (const { packets } of fixtures.filter((one) => one.packets.length)) {
        for (const dir of ["orig", "resp"]) {
            const shape = trace(packets, dir);
            assert.ok(Number.isFinite(shape.top) && shape.bottom < shape.top && Number.isFinite(ceiling(shape)));
            shape.data.forEach((one) => assert.ok(one.to > one.from));
        }
    }
    const one = [packet(1, { len: 100 }), packet(2, { dir: "resp", ack: 101 })];
    const shape = trace(one, "orig");
    assert.deepEqual([shape.data.length, shape.acks.length, shape.edges.length, shape.window], [1, 1, 0, "unknown"]);
    assert.equal(busier(one), "orig");
    assert.equal(trace([], "orig").window, "none");
});

test("long silences take little room, and pixels lead back to times", () => {
    const times = [0, 0.1, 0.2, 30.2, 30.3];
    const scale = timeScale(times, 0, 30.3, 60, 860);
    assert.equal(scale.bands.length, 1);
    assert.ok(scale.bands[0].width < 60);
    times.forEach((t, i) => i && assert.ok(scale.place(t) > scale.place(times[i - 1])));
    assert.ok(Math.abs(scale.place(30.3) - 860) < 1e-6 && Math.abs(scale.place(0) - 60) < 1e-6);
    assert.ok(Math.abs(scale.back(scale.place(0.15)) - 0.15) < 1e-9);
    const point = timeScale([0], 0, 0, 0, 100);
    assert.ok(Number.isFinite(point.place(0)) && Number.isFinite(point.back(50)));
});

test("axes have round numbers", () => {
    assert.deepEqual(ticks(0, 100, 5), [0, 20, 40, 60, 80, 100]);
    assert.deepEqual(ticks(5, 5, 5), [5]);
    assert.deepEqual(decades(800, 25000).marks, [100, 1000, 10000, 100000]);
});

test("histograms have a middle and a tail", () => {
    const text = [
        "# TYPE a_seconds histogram",
        'a_seconds_bucket{le="0.2"} 30',
        'a_seconds_bucket{le="0.1"} 10',
        'a_seconds_bucket{le="+Inf"} 40',
        'b_seconds_bucket{side="client",le="0.1"} 0',
        'b_seconds_bucket{side="client",le="+Inf"} 0',
        "a_seconds_count 40",
    ].join("\n");
    const found = histograms(text);
    assert.deepEqual(found.get("a_seconds"), [
        [0.1, 10],
        [0.2, 30],
        [Infinity, 40],
    ]);
    assert.deepEqual(
        counts(found.get("a_seconds")).map(([, n]) => n),
        [10, 20, 10],
    );
    assert.equal(quantile(found.get("a_seconds"), 0.5).toFixed(3), "0.150");
    assert.equal(quantile(found.get("a_seconds"), 0.95), 0.2);
    assert.equal(quantile(found.get('b_seconds{side="client"}'), 0.5), null);
    assert.equal(quantile(undefined, 0.5), null);
    assert.equal(histograms("").size, 0);
});

test("lines break where nothing is known", () => {
    assert.equal(path(points([1, null, 2, 4], 30, 4, 4)), "M0.0 3.0M20.0 2.0L30.0 0.0");
    assert.equal(path([]), "");
});

test("books balance, or say by how much they don't", () => {
    const books = {
        received: 100,
        analysed: 90,
        filtered: 4,
        dropped: { no_frame: 5 },
        kept: 10,
        written: 7,
        unwritten: {},
        flows: { created: 5, live: 2, evicted: 0 },
        events: {},
    };
    const [packets, kept, flows] = balances(books);
    assert.deepEqual([packets.rest, kept.rest, flows.rest], [1, 3, 0]);
    assert.deepEqual(balances({}), []);
});

test("a mistake's line and column are found in the text", () => {
    assert.equal(offset("ab\ncd\nef", 2, 2), 4);
    assert.equal(offset("ab", 9, 9), 2);
    assert.equal(offset("ab\ncd", 1, 99), 2);
});

test("figures of a step, and those that stand alone", () => {
    const sample = { seconds: 10, packets: 50, bytes: 10, latency: { connect: { p95_us: 840 }, dns_answer: null } };
    assert.equal(figure(sample, "packets", "rate"), 5);
    assert.equal(figure(sample, "bytes", "bits"), 8);
    assert.equal(figure(sample, "latency.connect.p95_us", "level"), 840);
    assert.equal(figure(sample, "latency.dns_answer.p95_us", "level"), null);
    assert.equal(figure({}, "latency.connect.p95_us", "level"), null);
    const placed = points([1, null, 2, 2, null, null, 3], 60, 3, 3);
    assert.equal(alone(placed), "M0.0 2.0h0M60.0 0.0h0");
    assert.equal(path(placed), "M0.0 2.0M20.0 1.0L30.0 1.0M60.0 0.0");
    assert.equal(alone([]), "");
});
