// Draws the ladder, lets the keyboard walk through it, and says the same as a table.

import { el, fitted, show, svg } from "./dom.js";
import { described, layout } from "./ladder.js";
import { count, span } from "./words.js";

const MARKS = 400;

function stamp(time) {
    const [whole, rest] = time.toFixed(6).split(".");
    return `${whole}.${rest.slice(0, 3)}\u202f${rest.slice(3)}`;
}

function head(model, ends, tap) {
    const { lanes, narrow, width } = model;
    const crowded = (ends.client.length + ends.server.length + tap.length) * 7.2 > lanes.server - lanes.client + 120;
    const name = (x, anchor, role, words, row) => [
        svg("text", { x, y: 12, class: "role", "text-anchor": anchor }, role),
        svg("text", { x, y: 12 + 14 * row, class: "end", "text-anchor": anchor }, words),
    ];
    return svg(
        "g",
        { class: "heads" },
        name(narrow ? 2 : lanes.client, narrow ? "start" : "middle", "client", ends.client, 1),
        svg(
            "text",
            { x: lanes.tap, y: 12, class: "role", "text-anchor": "middle" },
            narrow || crowded ? "tap" : `tap ${tap}`,
        ),
        name(narrow ? width - 2 : lanes.server, narrow ? "end" : "middle", "server", ends.server, crowded ? 2 : 1),
    );
}

function arrowHead({ start, end }, kind) {
    const length = Math.hypot(end.x - start.x, end.y - start.y) || 1;
    const [ux, uy] = [(end.x - start.x) / length, (end.y - start.y) / length];
    const [bx, by] = [end.x - ux * 9, end.y - uy * 9];
    return svg("path", {
        class: `tip ${kind}`,
        d: `M${end.x} ${end.y}L${bx - uy * 4} ${by + ux * 4}L${bx + uy * 4} ${by - ux * 4}Z`,
    });
}

function packetRow(row, model, chosen) {
    const { lanes, narrow, width } = model;
    const { packet, kind, start, end, via, foreign } = row;
    const classes = [
        "packet",
        kind,
        row.again ? "again" : "",
        packet.raised ? "raised" : "",
        foreign ? "foreign" : "",
    ].join(" ");
    const group = svg(
        "g",
        { class: classes, "data-n": packet.n },
        svg("rect", { class: chosen ? "hit chosen" : "hit", x: 0, y: row.y - 13, width, height: 27, rx: 4 }),
        svg(
            "text",
            { class: "time", x: narrow ? 58 : 78, y: row.y + 4, "text-anchor": "end" },
            narrow ? row.time.toFixed(3) : stamp(row.time),
        ),
    );
    if (packet.dir === "other") {
        group.append(
            svg("circle", { class: "dot", cx: via.x, cy: via.y, r: 4 }),
            svg(
                "text",
                { class: "label", x: via.x + 10, y: via.y + 4 },
                `${row.label}${packet.from && !narrow ? ` from ${packet.from}` : ""}`,
            ),
        );
        return group;
    }
    const from = foreign ?? start;
    if (foreign) {
        group.append(svg("line", { class: "alleged", x1: start.x, y1: start.y, x2: from.x, y2: from.y }));
    }
    group.append(
        svg("line", { class: "shaft", x1: from.x, y1: from.y, x2: end.x, y2: end.y }),
        arrowHead({ start: from, end }, kind),
        svg("circle", { class: "tapdot", cx: via.x, cy: via.y, r: 2.2 }),
    );
    if (foreign) {
        group.append(svg("path", { class: "origin", d: `M${from.x - 5} ${from.y - 5}l10 10m0 -10l-10 10` }));
    }
    // The words stand over the half in which the packet set out, where arrows of its direction have room.
    const [x1, x2] = packet.dir === "orig" ? [lanes.client, lanes.tap] : [lanes.tap, lanes.server];
    const middle = foreign
        ? packet.dir === "orig"
            ? (lanes.tap + lanes.server) / 2
            : (lanes.client + lanes.tap) / 2
        : (x1 + x2) / 2;
    const along = (middle - start.x) / (end.x - start.x || 1);
    const label = narrow && row.again ? `${row.label} ${row.note}` : row.label;
    if (narrow && kind === "rst") {
        group.append(
            svg(
                "text",
                { class: "label", x: (lanes.client + lanes.server) / 2, y: row.y + 19, "text-anchor": "middle" },
                row.note,
            ),
        );
    }
    group.append(
        svg(
            "text",
            {
                class: "label",
                x: narrow && label.length > 16 ? (lanes.client + lanes.server) / 2 : middle,
                y: start.y + (end.y - start.y) * along - 4,
                "text-anchor": "middle",
            },
            label,
        ),
    );
    if (!narrow) {
        const lines = [row.note, packet.raised ? `woke ${packet.raised}` : ""].filter(Boolean);
        const room = Math.floor((width - lanes.server - 14) / 7);
        const cut = (line) => (line.length > room ? `${line.slice(0, room - 1)}…` : line);
        lines.forEach((line, i) =>
            group.append(
                svg(
                    "text",
                    { class: "note", x: lanes.server + 14, y: row.y + 4 + (lines.length > 1 ? i * 14 - 6 : 0) },
                    cut(line),
                    svg("title", null, line),
                ),
            ),
        );
    }
    return group;
}

function gapRow(row, model) {
    const { lanes } = model;
    const y = row.y;
    // In the wider half, beside the tap's line.
    const left = lanes.tap - lanes.client > lanes.server - lanes.tap;
    const middle = left ? (lanes.client + lanes.tap) / 2 : (lanes.tap + lanes.server) / 2;
    const zigzag = (x) => svg("path", { class: "zigzag", d: `M${x} ${y - 18}l0 7l-5 4l10 6l-10 6l5 4l0 7` });
    return svg(
        "g",
        { class: "gap" },
        [lanes.client, lanes.tap, lanes.server].map((x) => [
            svg("rect", { class: "mask", x: x - 8, y: y - 17, width: 16, height: 34 }),
            zigzag(x),
        ]),
        svg(
            "text",
            {
                class: "silence",
                x: middle,
                y: y + 4,
                "text-anchor": "middle",
            },
            row.words,
        ),
    );
}

function foldRow(row, model, chosen) {
    const { lanes } = model;
    return svg(
        "g",
        { class: "fold", "data-fold": row.first },
        svg("rect", {
            class: chosen ? "hit chosen" : "hit",
            x: lanes.client - 6,
            y: row.y - 12,
            width: lanes.server - lanes.client + 12,
            height: 24,
            rx: 12,
        }),
        svg(
            "text",
            { class: "time", x: model.narrow ? 58 : 78, y: row.y + 4, "text-anchor": "end" },
            model.narrow ? row.time.toFixed(3) : stamp(row.time),
        ),
        svg(
            "text",
            { class: "label", x: (lanes.client + lanes.server) / 2, y: row.y + 4, "text-anchor": "middle" },
            `▸ ${row.words}`,
        ),
    );
}

export function draw(model, ends, tap, chosen, words) {
    const { lanes, width, height } = model;
    const shapes = model.rows.map((row, i) => {
        const here = i === chosen;
        if (row.type === "packet") {
            return packetRow(row, model, here);
        }
        if (row.type === "gap") {
            return gapRow(row, model);
        }
        return row.type === "fold"
            ? foldRow(row, model, here)
            : svg(
                  "text",
                  { class: "leftout", x: (lanes.client + lanes.server) / 2, y: row.y + 4, "text-anchor": "middle" },
                  `… ${row.words} …`,
              );
    });
    return svg(
        "svg",
        {
            class: "ladder",
            viewBox: `0 0 ${width} ${height}`,
            width,
            height,
            role: "img",
            "aria-labelledby": "ladder-title ladder-desc",
        },
        svg("title", { id: "ladder-title" }, "Ladder diagram"),
        svg("desc", { id: "ladder-desc" }, words),
        head(model, ends, tap),
        ["client", "tap", "server"].map((lane) =>
            svg("line", { class: `lane ${lane}`, x1: lanes[lane], x2: lanes[lane], y1: model.head, y2: height - 4 }),
        ),
        shapes,
    );
}

// One packet in full, said when it is chosen.
export function details(row, ends) {
    if (!row || row.type !== "packet") {
        return el("p", { class: "muted" }, "Choose a packet, by a click or with the ↑ and ↓ keys, to see its header.");
    }
    const p = row.packet;
    const known = (name, value) =>
        value === null || value === undefined || value === ""
            ? null
            : [el("dt", null, name), el("dd", null, String(value))];
    const from = { orig: ends.client, resp: ends.server }[p.dir] ?? p.from ?? "another host";
    return el(
        "div",
        null,
        el(
            "h4",
            null,
            `Packet ${count(p.n)}: ${row.label}`,
            row.note ? el("span", { class: "muted" }, ` ${row.note}`) : null,
        ),
        el(
            "dl",
            { class: "fields" },
            known("From", from),
            known("After", span(row.time)),
            known("Flags", flagWords(p)),
            known("Sequence", p.seq),
            known("Acknowledges", p.ack),
            known("Payload", `${count(p.len)} B`),
            known("Window field", p.win),
            known("Window scale", p.wscale),
            known("MSS", p.mss),
            known("TTL", p.expected_ttl !== null ? `${p.ttl} (its sender's others: ${p.expected_ttl})` : p.ttl),
            known("IP-ID", p.ip_id),
            known("SACK", p.sack.map(([a, b]) => `${a}–${b}`).join(", ")),
            known("Kept", `${count(p.bytes)} of ${count(p.orig_len)} B`),
            known("Woke", p.raised),
        ),
    );
}

function flagWords(p) {
    const names = { S: "SYN", F: "FIN", R: "RST", P: "PSH", E: "ECE", W: "CWR", ".": "ACK" };
    return [...p.flags].map((letter) => names[letter] ?? letter).join(", ");
}

function table(packets, ends) {
    const cell = (value) => el("td", null, value === null || value === undefined ? "" : String(value));
    const first = packets[0];
    return el(
        "div",
        { class: "scroll" },
        el(
            "table",
            null,
            el(
                "caption",
                { class: "muted" },
                packets.length > MARKS ? `The first ${MARKS} of ${count(packets.length)} packets` : null,
            ),
            el(
                "thead",
                null,
                el(
                    "tr",
                    null,
                    ["No.", "Seconds", "From", "Flags", "Seq", "Ack", "Length", "Window", "TTL", "Remarks"].map(
                        (name) => el("th", { scope: "col" }, name),
                    ),
                ),
            ),
            el(
                "tbody",
                null,
                packets
                    .slice(0, MARKS)
                    .map((p) =>
                        el(
                            "tr",
                            { class: p.flags.includes("R") ? "rst" : "" },
                            cell(p.n),
                            cell(((p.ts_ns - first.ts_ns) / 1e9).toFixed(6)),
                            cell({ orig: ends.client, resp: ends.server }[p.dir] ?? p.from),
                            cell(flagWords(p)),
                            cell(p.seq),
                            cell(p.ack),
                            cell(p.len),
                            cell(p.win),
                            cell(p.ttl),
                            cell(
                                [...p.marks.map((m) => m.replaceAll("_", " ")), p.raised ? `woke ${p.raised}` : ""]
                                    .filter(Boolean)
                                    .join(", "),
                            ),
                        ),
                    ),
            ),
        ),
    );
}

// The ladder with its details and its table, fitted to the room there is.
export function ladder(packets, ends, tap, signal) {
    const opened = new Set();
    const picture = el("div", {
        class: "picture",
        id: "ladder",
        tabindex: "0",
        role: "group",
        "aria-label": "Ladder diagram. Up and down keys go from packet to packet, Enter opens what is folded.",
    });
    const info = el("div", { class: "details", "aria-live": "polite" });
    let model = null;
    let chosen = -1;
    const redraw = () => {
        const width = Math.max(300, Math.floor(picture.clientWidth || 900));
        model = layout(packets, width, { opened });
        const words = described(packets, ends);
        show(picture, draw(model, ends, tap, chosen, words));
        show(info, details(model.rows[chosen], ends));
    };
    const choosable = (row) => row.type === "packet" || row.type === "fold";
    const step = (by) => {
        let next = chosen < 0 && by < 0 ? model.rows.length : chosen;
        do {
            next += by;
        } while (model.rows[next] && !choosable(model.rows[next]));
        if (model.rows[next]) {
            choose(next);
        }
    };
    const choose = (index) => {
        chosen = index;
        redraw();
        picture.querySelector(".chosen")?.scrollIntoView?.({ block: "nearest" });
    };
    const unfold = () => {
        const row = model.rows[chosen];
        if (row?.type === "fold") {
            opened.add(row.first);
            redraw();
            choose(model.rows.findIndex((one) => one.packet?.n === row.first));
        }
    };
    picture.addEventListener("keydown", (event) => {
        const act = {
            ArrowDown: () => step(1),
            ArrowUp: () => step(-1),
            Enter: unfold,
            " ": unfold,
            Home: () => choose(model.rows.findIndex(choosable)),
            End: () => choose(model.rows.findLastIndex(choosable)),
        }[event.key];
        if (act) {
            event.preventDefault();
            act();
        }
    });
    picture.addEventListener("click", (event) => {
        const fold = event.target.closest("[data-fold]");
        const packet = event.target.closest("[data-n]");
        const index = model.rows.findIndex((row) =>
            fold
                ? String(row.first) === fold.dataset.fold && row.type === "fold"
                : packet && String(row.packet?.n) === packet.dataset.n,
        );
        if (index >= 0) {
            choose(index);
            unfold();
        }
    });
    fitted(picture, redraw, signal);
    return el(
        "div",
        { class: "ladderbox" },
        picture,
        info,
        el("details", { class: "astable" }, el("summary", null, "The same as a table"), table(packets, ends)),
    );
}
