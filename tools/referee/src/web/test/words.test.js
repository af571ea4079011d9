// Numbers, times, incidents, evidence and advice in words.

import assert from "node:assert/strict";
import { test } from "node:test";
import { readFileSync } from "node:fs";

import { absorbed, advice, apart, conditions, nameOf, rows, settings, valueOf } from "../evidence.js";
import {
    ago,
    bytes,
    byUrgency,
    count,
    endpoint,
    explained,
    headline,
    ms,
    sentences,
    short,
    span,
    subject,
    title,
    when,
} from "../words.js";

const { items } = JSON.parse(readFileSync(new URL("fixtures/incidents.json", import.meta.url)));
const of = (kind) => items.find((one) => one.kind === kind);
const plain = (text) => text.replaceAll(/[\u202f\u00a0]/g, " ");

test("numbers", () => {
    assert.equal(plain(count(1234567)), "1 234 567");
    assert.equal(plain(short(1_240_000)), "1.24 M");
    assert.equal(plain(short(286e6, "bit/s")), "286 Mbit/s");
    assert.equal(short(undefined), "–");
    assert.equal(count(null), "–");
    assert.equal(plain(bytes(3 * 2 ** 20)), "3.0 MiB");
});

test("times", () => {
    assert.deepEqual([0, 6e-5, 0.0391, 1, 30.1, 300, 3661, 90000, 1e6].map(span).map(plain), [
        "0 µs",
        "60 µs",
        "39.1 ms",
        "1 s",
        "30.1 s",
        "5 min",
        "61 min",
        "25 h",
        "12 days",
    ]);
    assert.deepEqual([0, 64, 1920, 23456, 999.6e3, 8388608, null].map((us) => plain(ms(us))), [
        "0 ms",
        "0.064 ms",
        "1.92 ms",
        "23.5 ms",
        "1000 ms",
        "8 389 ms",
        "–",
    ]);
    assert.equal(plain(ms(1e6, "")), "1 000");
    assert.equal(when(0, 86400e3), "1970-01-01 00:00:00 UTC");
    assert.equal(when(60e9, 120e3), "00:01:00 UTC");
    assert.equal(ago(60e9, 61e3), "just now");
    assert.equal(plain(ago(60e9, 90e3)), "30 s ago");
});

test("subjects", () => {
    assert.equal(
        subject({ subject: { src: "fd00::1", sport: 1, dst: "10.0.0.1", dport: 2 } }),
        "[fd00::1]:1 → 10.0.0.1:2",
    );
    assert.equal(subject({ subject: { host: "10.0.0.1" } }), "10.0.0.1");
    assert.equal(subject({ subject: { dst: "10.0.0.1", dport: 443 } }), "10.0.0.1:443");
    assert.equal(subject({ subject: { link: "all" } }), "the whole link");
    assert.equal(subject({}), "the whole link");
    assert.equal(endpoint("10.0.0.1", 0), "10.0.0.1");
    assert.equal(title("never_heard_of"), "Never heard of");
});

test("what is wrong now is one sentence", () => {
    const open = (...severities) => severities.map((severity) => ({ severity }));
    assert.equal(headline([]), "Healthy.");
    assert.equal(headline(open("warning")), "One thing is broken now.");
    assert.equal(headline(open("critical", "warning", "info")), "2 things are broken now.");
    assert.equal(headline(open("info")), "Nothing is broken; one thing is worth a look.");
    const sorted = open("info", "strange", "critical", "warning")
        .map((one) => ({ ...one, last_ns: 0 }))
        .sort(byUrgency);
    assert.deepEqual(
        sorted.map((one) => one.severity),
        ["critical", "warning", "info", "strange"],
    );
});

test("an explanation comes apart", () => {
    for (const one of items) {
        const { what, more, apart: rest } = explained(one.explain);
        assert.ok(what && !what.includes("…"), one.kind);
        assert.ok(!/\d{4}-\d\d-\d\dT/.test(more), more);
        assert.ok(!rest.startsWith("and"), rest);
    }
    const idle = explained(of("rst_after_idle").explain);
    assert.equal(plain(idle.more), "And 7 more flows to 10.50.0.30:5432 between 08:54:05 and 08:54:10 UTC.");
    assert.match(idle.apart, /^8 connections failed/);
    assert.equal(explained(of("rst_storm").explain).apart, "");
    assert.equal(explained(undefined).what, "");
    assert.equal(sentences("It took 30.1 s. Then 2 more. End").length, 3);
});

test("evidence has names, units and ranges", () => {
    assert.equal(plain(valueOf("idle_ms", { min: 30100, max: 32200 })), "30.1 s to 32.2 s");
    assert.equal(plain(valueOf("idle_ms", { min: 15012, max: 15040 })), "15 s");
    assert.equal(valueOf("port", 6379), "6379");
    assert.equal(valueOf("client_port", { min: 1024, max: 65535 }), "1024 to 65535");
    assert.equal(plain(valueOf("ports", 6379)), "6 379");
    assert.equal(valueOf("injected", true), "yes");
    assert.equal(valueOf("near_table_size", null), "not known");
    assert.equal(valueOf("in_the_name_of", { values: ["a", "b"] }), "a, b");
    assert.equal(valueOf("x", { values: [false, true] }), "of some");
    assert.equal(plain(nameOf("rsts_10s")), "RSTs within 10 s");
    assert.equal(plain(valueOf("rsts_10s", 300)), "300");
    for (const one of items) {
        for (const [name, value] of rows(one.evidence)) {
            assert.ok(!/undefined|NaN|null|\[object/.test(name + value), `${one.kind}: ${name} ${value}`);
        }
    }
    assert.equal(absorbed(of("rst_storm").evidence)[0].flows, 300);
    assert.deepEqual(rows(undefined), []);
});

test("what sets failing flows apart", () => {
    const [silence] = apart(of("rst_after_idle").evidence);
    assert.deepEqual([silence.fine, silence.failing, silence.healthy], [29.7, 30.1, 24]);
    assert.equal(
        apart({ apart: [{ by: "ttl", failing: [61], healthy: [62, 63] }] })[0].words,
        "TTL 61 where it fails, 62, 63 where it goes well",
    );
    assert.deepEqual(apart({}), []);
});

test("conditions carry what they were asked about", () => {
    const held = conditions([
        { if: "flow.idle_ms >= idle_ms", facts: { "flow.idle_ms": 30100, "flow.x": null }, params: { idle_ms: 10000 } },
    ]);
    assert.deepEqual(held, [
        {
            text: "flow.idle_ms >= idle_ms",
            facts: ["flow.idle_ms = 30100", "flow.x = not known"],
            params: ["idle_ms = 10000"],
        },
    ]);
    assert.deepEqual(conditions(undefined), []);
});

test("commands are found in advice, and nothing is lost", () => {
    const codes = (text) =>
        advice(text)
            .filter((part) => part.code)
            .map((part) => part.code);
    for (const { advise } of items) {
        const whole = advice(advise)
            .map((part) => part.code ?? part.text)
            .join("");
        assert.equal(whole.replaceAll(/\s+/g, " "), advise.replaceAll(/\s+/g, " "));
    }
    assert.deepEqual(codes(of("loss_limited").advise), ["ip -s link", "ethtool -S", "tc -s qdisc", "mtr 10.20.0.1"]);
    assert.deepEqual(codes(of("syn_unanswered_ratio").advise)[0], 'dmesg | grep "nf_conntrack: table full"');
    assert.ok(
        codes(of("syn_unanswered_ratio").advise).includes(
            "nstat -az TcpExtListenOverflows TcpExtListenDrops TcpExtTCPReqQFullDrop",
        ),
    );
    assert.ok(
        codes(of("pmtu_blackhole").advise).includes(
            "iptables -t mangle -A FORWARD -p tcp --tcp-flags SYN,RST SYN -j TCPMSS --clamp-mss-to-pmtu",
        ),
    );
    assert.deepEqual(settings(of("rst_after_idle").advise), [
        "sysctl -w net.ipv4.tcp_keepalive_time=10",
        "sysctl -w net.ipv4.tcp_keepalive_intvl=2",
        "sysctl -w net.ipv4.tcp_keepalive_probes=4",
    ]);
    assert.deepEqual(settings("Look at the host."), []);
});
