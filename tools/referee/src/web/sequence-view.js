// Draws the time-sequence plot; a drag or the keys look closer.

import { el, fitted, show, svg } from "./dom.js";
import { busier, ceiling, farAway, ticks, timeScale, trace } from "./sequence.js";
import { plural, short, span } from "./words.js";

const HEIGHT = 340;
const MARGIN = { left: 62, right: 14, top: 12, bottom: 34 };

const LEGEND = [
    ["data", "data"],
    ["again", "sent again"],
    ["late", "out of order"],
    ["ack", "acknowledged"],
    ["edge", "window’s edge"],
    ["sack", "SACK"],
    ["zero", "window closed"],
    ["rst", "RST"],
    ["silence", "silence, not to scale"],
];

function axes(scale, y, view, width) {
    const bottom = HEIGHT - MARGIN.bottom;
    const grid = ticks(view.low, view.high, 6, 1).map((value) => [
        svg("line", { class: "grid", x1: MARGIN.left, x2: width - MARGIN.right, y1: y(value), y2: y(value) }),
        svg("text", { class: "tick", x: MARGIN.left - 8, y: y(value) + 4, "text-anchor": "end" }, short(value)),
    ]);
    const busy = scale.pieces.filter((piece) => !piece.silent && piece.width > 30);
    const times = busy.flatMap((piece) => ticks(piece.from, piece.to, Math.max(1, Math.floor(piece.width / 90))));
    const labels = times.map((t) => [
        svg("line", { class: "grid", x1: scale.place(t), x2: scale.place(t), y1: MARGIN.top, y2: bottom }),
        svg(
            "text",
            { class: "tick", x: scale.place(t), y: bottom + 16, "text-anchor": "middle" },
            t === 0 ? "0" : span(Number(t.toPrecision(6))),
        ),
    ]);
    const bands = scale.bands.map((band) => [
        svg("rect", {
            class: "band",
            x: band.x + 3,
            width: band.width - 6,
            y: MARGIN.top,
            height: bottom - MARGIN.top,
        }),
        svg(
            "text",
            { class: "bandname", x: band.x + band.width / 2, y: bottom + 30, "text-anchor": "middle" },
            span(band.to - band.from),
        ),
    ]);
    return svg(
        "g",
        { class: "axes" },
        grid,
        labels,
        bands,
        svg("text", { class: "tick", x: 4, y: MARGIN.top + 2 }, "bytes"),
    );
}

function steps(points, place, y) {
    let path = "";
    points.forEach((point, i) => {
        path +=
            i === 0
                ? `M${place(point.t).toFixed(1)} ${y(point.y).toFixed(1)}`
                : `H${place(point.t).toFixed(1)}V${y(point.y).toFixed(1)}`;
    });
    return path;
}

function shapes(shape, scale, y, view) {
    const inside = (one) => one.t >= view.from && one.t <= view.to;
    const at = (one) => scale.place(one.t).toFixed(1);
    const bar = (one, kind) => {
        const [low, high] = [y(one.from), y(one.to)];
        const x = at(one);
        return svg("path", {
            class: kind,
            d:
                low - high < 5
                    ? `M${x} ${low}V${high}`
                    : `M${x} ${low}V${high}M${x - 2.5} ${high + 4}L${x} ${high}L${Number(x) + 2.5} ${high + 4}M${x - 2.5} ${low - 4}L${x} ${low}L${Number(x) + 2.5} ${low - 4}`,
        });
    };
    const data = shape.data.filter(inside);
    const low = (one) => y(one.from) - y(one.to) < 2;
    const dots = data.filter(low).map((one) =>
        svg("circle", {
            class: `point ${one.again ? "again" : one.late ? "late" : "data"}`,
            cx: at(one),
            cy: y(one.to),
            r: one.probe ? 1.6 : 2,
        }),
    );
    return [
        svg("path", { class: "edge", d: steps(shape.edges.filter(inside), scale.place, y) }),
        svg("path", { class: "ack", d: steps(shape.acks.filter(inside), scale.place, y) }),
        shape.acks
            .filter((one) => inside(one) && one.duplicate)
            .map((one) => svg("path", { class: "duplicate", d: `M${at(one)} ${y(one.y) - 3}v6` })),
        shape.sacks.filter(inside).map((one) => bar(one, "sack")),
        data.filter((one) => !low(one)).map((one) => bar(one, one.again ? "again" : one.late ? "late" : "data")),
        dots,
        shape.zero
            .filter(inside)
            .map((one) => svg("path", { class: "zero", d: `M${at(one)} ${y(one.y) - 6}l5 9h-10z` })),
        shape.rsts
            .filter(inside)
            .map((one) =>
                svg(
                    "g",
                    { class: "rst" },
                    svg("path", { d: `M${at(one) - 5} ${y(one.y) - 5}l10 10m0 -10l-10 10` }),
                    svg(
                        "text",
                        { x: at(one) - 8, y: y(one.y) - 7, "text-anchor": "end" },
                        one.other ? "RST of the other side" : "RST",
                    ),
                ),
            ),
    ];
}

function picture(shape, view, width, whole) {
    const scale = timeScale(shape.times, view.from, view.to, MARGIN.left, width - MARGIN.right - 6);
    const bottom = HEIGHT - MARGIN.bottom;
    const y = (value) => bottom - ((value - view.low) / (view.high - view.low || 1)) * (bottom - MARGIN.top - 4);
    const clip = svg(
        "clipPath",
        { id: "plot-clip" },
        svg("rect", {
            x: MARGIN.left,
            y: MARGIN.top - 8,
            width: width - MARGIN.left - MARGIN.right + 4,
            height: bottom - MARGIN.top + 12,
        }),
    );
    const words = `${plural(shape.data.length, "segment")}, ${plural(shape.data.filter((one) => one.again).length, "of them sent again", "of them sent again")}, in ${span(whole)}.`;
    const node = svg(
        "svg",
        {
            class: "sequence",
            viewBox: `0 0 ${width} ${HEIGHT}`,
            width,
            height: HEIGHT,
            role: "img",
            "aria-labelledby": "seq-title seq-desc",
        },
        svg("title", { id: "seq-title" }, "Time-sequence plot"),
        svg("desc", { id: "seq-desc" }, words),
        clip,
        axes(scale, y, view, width),
        svg("g", { "clip-path": "url(#plot-clip)" }, shapes(shape, scale, y, view)),
        svg("rect", { class: "selection", y: MARGIN.top, height: bottom - MARGIN.top, width: 0 }),
    );
    return { node, scale };
}

// What lies within a stretch of time, so that the height fits it.
function heights(shape, from, to) {
    const ys = [];
    const take = (list, ...names) =>
        list.forEach((one) => one.t >= from && one.t <= to && names.forEach((name) => ys.push(one[name])));
    take(shape.data, "from", "to");
    take(shape.acks, "y");
    take(shape.sacks, "to");
    const low = ys.length ? Math.min(...ys) : shape.bottom;
    const high = ys.length ? Math.max(...ys) : shape.top;
    return high > low ? [low, high + (high - low) * 0.06] : [low - 1, high + 1];
}

export function sequence(packets, ends, signal) {
    const box = el("div", {
        class: "picture plot",
        id: "sequence",
        tabindex: "0",
        role: "group",
        "aria-label": "Time-sequence plot. Plus and minus look closer and farther, left and right move, 0 shows all.",
    });
    const legend = el("ul", { class: "legend" });
    const note = el("p", { class: "muted small" });
    const reset = el(
        "button",
        { type: "button", class: "quiet", hidden: true, onclick: () => look(0, whole()) },
        "Show all",
    );
    let dir = busier(packets);
    let shape = trace(packets, dir);
    let view = null;
    let drawn = null;
    const whole = () => Math.max(shape.times.at(-1) ?? 0, 1e-6);
    const redraw = () => {
        const width = Math.max(300, Math.floor(box.clientWidth || 900));
        drawn = { ...picture(shape, view, width, whole()), width };
        show(box, drawn.node);
        reset.hidden = view.from === 0 && view.to === whole();
    };
    const look = (from, to) => {
        const [a, b] = [Math.max(0, from), Math.min(whole(), to)];
        if (b - a < 1e-6 && whole() > 1e-6) {
            return;
        }
        const all = a === 0 && b === whole();
        const [low, high] = all
            ? [shape.bottom, ceiling(shape) + (ceiling(shape) - shape.bottom) * 0.04]
            : heights(shape, a, b);
        view = { from: a, to: b, low, high };
        redraw();
    };
    const turn = (to) => {
        dir = to;
        shape = trace(packets, dir);
        const has = {
            data: shape.data.some((d) => !d.again && !d.late),
            again: shape.data.some((d) => d.again),
            late: shape.data.some((d) => d.late),
            ack: shape.acks.length,
            edge: shape.edges.length && !farAway(shape),
            sack: shape.sacks.length,
            zero: shape.zero.length,
            rst: shape.rsts.length,
            silence: timeScale(shape.times, 0, whole(), 0, 800).bands.length,
        };
        show(
            legend,
            LEGEND.filter(([kind]) => has[kind]).map(([kind, name]) => el("li", { class: kind }, name)),
        );
        note.textContent = [
            shape.window === "unknown"
                ? "The window’s edge can’t be drawn: the handshake, which tells its scale, was not seen."
                : "",
            farAway(shape) ? "The window never was the limit: its edge lies far above what was sent." : "",
            shape.data.length ? "" : "This side sent no data.",
        ]
            .filter(Boolean)
            .join(" ");
        look(0, whole());
    };
    const choice = (value, words) =>
        el(
            "label",
            null,
            el("input", {
                type: "radio",
                name: "direction",
                value,
                checked: value === dir,
                onchange: () => turn(value),
            }),
            words,
        );
    zooming(
        box,
        () => drawn,
        () => view,
        look,
        whole,
    );
    fitted(box, () => (view ? redraw() : turn(dir)), signal);
    return el(
        "div",
        null,
        el(
            "div",
            { class: "controls" },
            el(
                "fieldset",
                null,
                el("legend", { class: "offscreen" }, "Direction"),
                choice("orig", `Sent by ${ends.client}`),
                choice("resp", `Sent by ${ends.server}`),
            ),
            reset,
        ),
        legend,
        box,
        note,
    );
}

function zooming(box, drawn, view, look, whole) {
    let began = null;
    const inside = (event) => ((event.clientX - box.getBoundingClientRect().left) / box.clientWidth) * drawn().width;
    box.addEventListener("pointerdown", (event) => {
        if (event.pointerType !== "touch") {
            began = inside(event);
            box.setPointerCapture(event.pointerId);
        }
    });
    box.addEventListener("pointermove", (event) => {
        if (began === null) {
            return;
        }
        const now = inside(event);
        const mark = box.querySelector(".selection");
        mark.setAttribute("x", Math.min(began, now));
        mark.setAttribute("width", Math.abs(now - began));
    });
    box.addEventListener("pointerup", (event) => {
        const [a, b] = [began, inside(event)].sort((x, y) => x - y);
        began = null;
        if (a !== null && b - a > 8) {
            look(drawn().scale.back(a), drawn().scale.back(b));
        }
    });
    box.addEventListener("dblclick", () => look(0, whole()));
    box.addEventListener("keydown", (event) => {
        const { from, to } = view();
        const wide = to - from;
        const act = {
            "+": [from + wide / 4, to - wide / 4],
            "=": [from + wide / 4, to - wide / 4],
            "-": [from - wide / 2, to + wide / 2],
            0: [0, whole()],
            ArrowLeft: [from - wide / 4, to - wide / 4],
            ArrowRight: [from + wide / 4, to + wide / 4],
            Escape: [0, whole()],
        }[event.key];
        if (act) {
            event.preventDefault();
            look(...act);
        }
    });
}
