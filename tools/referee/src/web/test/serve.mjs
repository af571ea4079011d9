// The page with made-up answers, for looking at it and for tests: node serve.mjs [--port N] [--scene NAME].
// Scenes: live, healthy, silent, store, login, hostile (markup in every name), gone (answers for a while, then no more).

import { createServer } from "node:http";
import { readFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { dirname, join } from "node:path";

const HERE = dirname(fileURLToPath(import.meta.url));
const WEB = dirname(HERE);
const TYPES = {
    html: "text/html; charset=utf-8",
    css: "text/css; charset=utf-8",
    js: "text/javascript; charset=utf-8",
    svg: "image/svg+xml",
};
const CSP =
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; form-action 'self'; frame-ancestors 'none'; base-uri 'none'";

const option = (name, usual) => {
    const at = process.argv.indexOf(`--${name}`);
    return at > 0 ? process.argv[at + 1] : usual;
};
const scene = option("scene", "live");
const began = Date.now();

const fixture = (name) => JSON.parse(readFileSync(join(HERE, "fixtures", name), "utf8"));
const recorded = fixture("incidents.json").items;
const live = !["store", "login"].includes(scene);

const MARKUP = '"><img src=x onerror=document.title="owned"><script>document.title="owned"</script>\u202e${7*7}';
// Every text that may come off the wire or out of a rule, as somebody would write it who means harm.
function hostile(value, key) {
    if (typeof value === "string") {
        return ["id", "state", "severity", "scope"].includes(key) ? value : MARKUP;
    }
    if (value !== null && typeof value === "object" && key !== "flow_ids") {
        return Array.isArray(value)
            ? value.map((one) => hostile(one))
            : Object.fromEntries(Object.entries(value).map(([k, v]) => [k, hostile(v, k)]));
    }
    return value;
}

// As if it had happened lately: the first three are still open.
function made() {
    if (["healthy", "silent"].includes(scene)) {
        return [];
    }
    const newest = Math.max(...recorded.map((one) => one.last_ns));
    const shift = live ? (began - 40000) * 1e6 - newest : 0;
    return recorded.map((one, i) => ({
        ...one,
        first_ns: one.first_ns + shift,
        last_ns: one.last_ns + shift,
        state: live && [3, 4, 5, 1].includes(i) ? "open" : "closed",
        captured: live ? one.flow_ids.length > 0 : null,
    }));
}

const incidents = () => (scene === "hostile" ? hostile(made()) : made());

function series(since) {
    const now = Math.floor(Date.now() / 1000);
    const wave = (i, base, swing) => Math.round(base + swing * Math.sin(i / 9) + swing * 0.4 * Math.sin(i / 2.3));
    const spread = (i, base, swing) => {
        const p50 = wave(i, base, swing);
        return { count: 12, p50_us: p50, p95_us: Math.round(p50 * (1.6 + 0.3 * Math.sin(i / 5))), p99_us: 3 * p50 };
    };
    return Array.from({ length: 300 }, (_, back) => now - 299 + back)
        .filter((at) => at * 1e9 > since)
        .map((at) => ({
            at_ns: at * 1e9,
            seconds: 1,
            packets: scene === "silent" ? 0 : wave(at, 48000, 9000),
            bytes: scene === "silent" ? 0 : wave(at, 36e6, 8e6),
            dropped: at % 97 < 3 && scene === "live" ? 130 : 0,
            filtered: 0,
            kept: wave(at, 90, 60),
            unwritten: 0,
            flows_created: wave(at, 900, 200),
            events: wave(at, 300, 120),
            hits: wave(at, 12, 8),
            incidents: 0,
            flows: wave(at, 21000, 2500),
            open: scene === "live" ? 4 : 0,
            history_s: 71 + (at % 5),
            latency: {
                rtt_server: spread(at, 840, 90),
                rtt_client: spread(at, 21000, 4000),
                connect: spread(at, 23000, 4000),
                // Little is measured of this, so that most seconds have none.
                first_byte: at % 7 < 2 ? spread(at, 61000, 22000) : null,
                dns_answer: at % 9 ? null : spread(at, 1900, 700),
            },
        }));
}

// Buckets as the metrics page has them: powers of two from 64 µs.
function exposition() {
    const family = (name, labels, middle) => {
        let sum = 0;
        const lines = Array.from({ length: 15 }, (_, i) => {
            sum += Math.round(5000 * Math.exp(-((i - middle) ** 2) / 5));
            return `${name}_bucket{${labels}le="${(64e-6 * 2 ** i).toPrecision(6)}"} ${sum}`;
        });
        return [...lines, `${name}_bucket{${labels}le="+Inf"} ${sum + 3}`, `${name}_count ${sum + 3}`].join("\n");
    };
    return [
        family("referee_handshake_rtt_seconds", 'side="server",', 4),
        family("referee_handshake_rtt_seconds", 'side="client",', 8),
        family("referee_connect_seconds", "", 8),
        family("referee_first_byte_seconds", "", 10),
        family("referee_dns_answer_seconds", "", 5),
    ].join("\n");
}

const NAMES = [
    "rst_after_idle",
    "rst_injected",
    "rst_midflow",
    "rst_storm",
    "syn_no_synack",
    "syn_unanswered_ratio",
    "pmtu_blackhole",
    "zero_window_stall",
    "loss_limited",
    "window_limited",
    "dns_slow",
    "dns_unanswered",
    "half_open",
    "port_scan",
    "host_scan",
    "slow_server",
    "tls_no_server_hello",
    "mss_low",
];
const rules = () => ({
    hash: "21efa3903ed2faee50575344d259aee3824c5f18c301439dbc97fc431dc67e02",
    generation: 3,
    workers: [{ worker: 0, generation: 3, hash: "21ef" }],
    errors: [
        {
            file: "/etc/referee/rules/mine.rhai",
            line: 12,
            column: 9,
            message: "unknown fact flow.idle_befor_ms",
            help: "flow.idle_before_ms?",
        },
    ],
    rules: NAMES.map((rule, i) => ({
        rule,
        scope: "flow",
        enabled: i !== 13,
        shadow: i === 10,
        switched_off: i === 12,
        matched: (i * 7919) % 381,
        faults: 0,
        guard_ns: 40 + ((i * 37) % 190),
        guard_samples: 120,
        body_runs: (i * 31) % 90,
        body_us: i % 4 ? 60 + ((i * 53) % 300) : null,
        body_us_most: i % 4 ? 700 + i * 20 : null,
        errors: i === 12 ? 20 : 0,
        overruns: 0,
        file: `${rule}.rhai`,
        line: 34,
        events: ["rst"],
        off_because: i === 12 ? "its body failed 20 times: Array index 4 out of bounds (line 41)" : null,
        shadow_counts:
            i === 10
                ? {
                      matched: 312,
                      would_open: 4,
                      would_join: 8,
                      would_capture: 12,
                      samples: ["10.20.0.4:51000 to 10.50.0.53:53"],
                  }
                : null,
    })),
});

function check(body) {
    const text = JSON.parse(body).files[0].text;
    const at = text.split("\n").findIndex((line) => line.includes("oops"));
    return at < 0
        ? { hash: "1", rules: [...text.matchAll(/rule "(\w+)"/g)].map((m) => m[1]), errors: [] }
        : {
              hash: null,
              rules: [],
              errors: [
                  {
                      file: "mine.rhai",
                      line: at + 1,
                      column: text.split("\n")[at].indexOf("oops") + 1,
                      message: "unknown name oops",
                      help: "events, facts and functions are in docs/rules.md",
                  },
              ],
          };
}

// The rules folder; one file is there from the beginning.
const kept = new Map([["mine.rhai", 'rule "mine" on rst\nthen {}\n']]);

const ruleFiles = () => ({
    folder: "/etc/referee/rules",
    writable: true,
    items: [
        ...[...kept].map(([name, text]) => ({ name, bytes: text.length, shipped: false })),
        { name: "rst_storm.rhai", bytes: 2000, shipped: true },
    ],
});

function ruleFile(name, method, text) {
    if (method === "DELETE") {
        kept.delete(name);
        return [200, { ...rules(), rules: 42, live: true, added: [], changed: [], removed: [name], errors: [] }];
    }
    if (method !== "PUT") {
        return kept.has(name) ? [200, kept.get(name)] : [404, { type: "/problems/no-such-rule-file", title: "none" }];
    }
    const { errors } = check(JSON.stringify({ files: [{ name, text: text.replace("late", "oops") }] }));
    if (errors.length) {
        const told = errors.map((one) => ({ ...one, file: `/etc/referee/rules/${name}` }));
        const detail = "1 mistake in the rules as they would be; nothing was changed";
        return [422, { type: "/problems/rules-refused", title: "refused", status: 422, detail, errors: told }];
    }
    kept.set(name, text);
    return [200, { ...rules(), rules: 43, live: true, added: [], changed: [name], removed: [], errors: [] }];
}

function api(path, search, method, body) {
    const problem = (status, type, detail) => [status, { type: `/problems/${type}`, title: type, status, detail }];
    if (scene === "login" && path !== "health") {
        return path === "session" && method === "POST" && JSON.parse(body).token === "right"
            ? [200, { role: "read" }]
            : problem(401, "no-token", "no token, or one that is not known");
    }
    const all = incidents();
    const [head, id, part] = path.split("/");
    if (live && head === "rules" && id === "files" && part) {
        return ruleFile(part, method, body);
    }
    switch (path) {
        case "version":
            return [
                200,
                {
                    version: "0.1.0",
                    api: 1,
                    pid: 1,
                    started_ns: (began - 7.3e6) * 1e6,
                    hostname: "tap-fra-2",
                    live,
                    interfaces: live ? [{ name: "tap0", capture: "AF_XDP, zero-copy", link: true }] : [],
                },
            ];
        case "health":
            return [200, { status: "ok", checks: [] }];
        case "session":
            return [200, { role: { role: "operate" } }];
        case "series":
            return live
                ? [200, { step: 1, items: series(Number(search.get("since") ?? 0)) }]
                : problem(409, "no-run", "this shows a store, and no capture is under way");
        case "books":
            return live
                ? [
                      200,
                      scene === "live"
                          ? fixture("books.json")
                          : { ...fixture("books.json"), dropped: {}, analysed: 85454 },
                  ]
                : problem(409, "no-run", "this shows a store, and no capture is under way");
        case "rules":
            return live ? [200, rules()] : problem(409, "no-run", "this shows a store, and no capture is under way");
        case "rules/check":
            return [200, check(body)];
        case "rules/files":
            return live ? [200, ruleFiles()] : problem(409, "no-run", "this shows a store, and no capture is under way");
        case "captures":
            return [200, { items: fixture("packets-1fbd5c4e4df9d78b.json").flows, next: null }];
        case "captures/demands":
            return [
                200,
                {
                    items: live
                        ? [
                              {
                                  id: "00000000000000d1",
                                  expression: "port 5432",
                                  state: "capturing",
                                  packets: 3733,
                                  bytes: 2726297,
                                  refused: 12,
                                  full: false,
                                  ended: false,
                              },
                          ]
                        : [],
                },
            ];
        case "incidents":
            return [
                200,
                {
                    items: all
                        .filter((one) =>
                            ["state", "severity", "kind"].every(
                                (name) => !search.get(name) || one[name] === search.get(name),
                            ),
                        )
                        .sort((a, b) => b.first_ns - a.first_ns),
                    next: null,
                },
            ];
    }
    const found = head === "incidents" && all.find((one) => one.id === id);
    if (found && part === "packets") {
        return [200, fixture(`packets-${id}.json`)];
    }
    return found
        ? [
              200,
              {
                  ...found,
                  proof: `referee captures get --incident ${id} -w - | wireshark -k -i -`,
                  capture: `/api/v1/captures/download?incident=${id}`,
                  similar: all
                      .filter((one) => one.id !== id && one.scope === found.scope)
                      .slice(0, 3)
                      .map(({ id: other, kind, first_ns, subject }) => ({ id: other, kind, first_ns, subject })),
              },
          ]
        : problem(404, "not-found", `there is no ${path}`);
}

createServer((request, response) => {
    const url = new URL(request.url, "http://localhost");
    let body = "";
    request.on("data", (part) => (body += part));
    request.on("end", () => {
        if (scene === "gone" && Date.now() - began > 20000) {
            request.socket.destroy();
            return;
        }
        const headers = {
            "content-security-policy": CSP,
            "cache-control": "no-store",
            "x-content-type-options": "nosniff",
        };
        if (url.pathname === "/metrics") {
            response.writeHead(live ? 200 : 409, { ...headers, "content-type": "text/plain" });
            response.end(live ? exposition() : "");
            return;
        }
        if (url.pathname.startsWith("/api/v1/")) {
            const [status, value] = api(url.pathname.slice(8), url.searchParams, request.method, body);
            response.writeHead(status, {
                ...headers,
                "content-type": status < 400 ? "application/json" : "application/problem+json",
            });
            response.end(JSON.stringify(value));
            return;
        }
        const name = url.pathname === "/" ? "index.html" : url.pathname.replace(/^\/assets\/[^/]+\//, "");
        try {
            const text = readFileSync(join(WEB, name.replaceAll("..", "")), "utf8");
            response.writeHead(200, { ...headers, "content-type": TYPES[name.split(".").pop()] ?? "text/plain" });
            response.end(name === "index.html" ? text.replaceAll("{hash}", "dev") : text);
        } catch {
            response.writeHead(404, headers);
            response.end();
        }
    });
}).listen(Number(option("port", "8099")), "127.0.0.1", function () {
    console.log(`http://127.0.0.1:${this.address().port}/?still`);
});
