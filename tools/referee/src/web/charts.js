// Lines over time: a small one beside a figure, and a large one with axes, a cursor and a summary in words.

import { el, fitted, show, svg } from "./dom.js";
import { ticks } from "./sequence.js";
import { clock, short } from "./words.js";

const SPARK = { width: 120, height: 26 };
const HEIGHT = 150;
const MARGIN = { left: 52, right: 10, top: 8, bottom: 22 };

// Points in pixels, broken where there is nothing to show.
export function points(values, width, height, most) {
    const step = values.length > 1 ? width / (values.length - 1) : 0;
    return values.map((value, i) =>
        value === null || value === undefined ? null : [i * step, height - (most > 0 ? value / most : 0) * height],
    );
}

export function path(placed) {
    let pen = false;
    return placed
        .map((point) => {
            if (!point) {
                pen = false;
                return "";
            }
            const word = `${pen ? "L" : "M"}${point[0].toFixed(1)} ${point[1].toFixed(1)}`;
            pen = true;
            return word;
        })
        .join("");
}

// Those with nothing on either side, of which a line shows nothing.
export function alone(placed) {
    return placed
        .filter((point, i) => point && !placed[i - 1] && !placed[i + 1])
        .map(([x, y]) => `M${x.toFixed(1)} ${y.toFixed(1)}h0`)
        .join("");
}

export function spark(values) {
    const { width, height } = SPARK;
    const most = Math.max(...values.map((value) => value ?? 0), 1e-9);
    return svg(
        "svg",
        { class: "spark", viewBox: `0 -2 ${width} ${height + 4}`, "aria-hidden": "true", preserveAspectRatio: "none" },
        svg("path", { d: path(points(values, width, height, most)) }),
    );
}

// `lines`: [{name, css, values}], `times`: ns of each value, `say`: a value in words.
// `log`: a decade is a step, for times that lie far apart.
export function chart({ title, lines, times, say, axis, log, signal, none }) {
    const shown = lines.filter((line) => line.values.some((value) => value !== null && value !== undefined));
    const picture = el("div", { class: "picture chart" });
    const readout = el("p", { class: "readout", "aria-live": "off" });
    const legend =
        shown.length > 1
            ? el(
                  "ul",
                  { class: "legend" },
                  shown.map((line) => el("li", { class: line.css }, line.name)),
              )
            : null;
    const box = el(
        "section",
        { class: "panel chartbox" },
        el("div", { class: "titlerow" }, el("h2", null, title), legend),
        picture,
        readout,
    );
    if (!shown.length || times.length < 2) {
        show(picture, el("p", { class: "muted" }, none ?? "No figures yet."));
        return box;
    }
    const most = Math.max(...shown.flatMap((line) => line.values.map((value) => value ?? 0)));
    const least = Math.min(...shown.flatMap((line) => line.values.filter((value) => value > 0)));
    const scale = log && Number.isFinite(least) ? decades(least, most) : straight(most);
    const draw = () => render(picture, { title, shown, times, axis: axis ?? say, scale });
    describe(readout, shown, say);
    cursor(picture, readout, { shown, times, say });
    fitted(picture, draw, signal);
    return box;
}

function describe(readout, shown, say) {
    readout.textContent = shown
        .map((line) => {
            const there = line.values.filter((value) => value !== null && value !== undefined);
            const when = there.at(-1) === line.values.at(-1) ? "now" : "last";
            return `${line.name}: ${when} ${say(there.at(-1))}, at most ${say(Math.max(...there))}`;
        })
        .join(" · ");
}

// Heights as parts of the whole, and where to write what.
function straight(most) {
    const top = Math.max(ticks(0, most > 0 ? most * 1.1 : 1, 4).at(-1) || 1, most);
    return { part: (value) => value / top, marks: ticks(0, top, 4) };
}

export function decades(least, most) {
    const low = Math.floor(Math.log10(least));
    const high = Math.max(low + 1, Math.ceil(Math.log10(most)));
    return {
        part: (value) => (value > 0 ? (Math.log10(value) - low) / (high - low) : 0),
        marks: Array.from({ length: high - low + 1 }, (_, i) => 10 ** (low + i)),
    };
}

function render(picture, { title, shown, times, axis, scale }) {
    const width = Math.max(280, Math.floor(picture.clientWidth || 600));
    const [inner, tall] = [width - MARGIN.left - MARGIN.right, HEIGHT - MARGIN.top - MARGIN.bottom];
    const y = (value) => MARGIN.top + tall - scale.part(value) * tall;
    const grid = scale.marks.map((value) => [
        svg("line", { class: "grid", x1: MARGIN.left, x2: width - MARGIN.right, y1: y(value), y2: y(value) }),
        svg(
            "text",
            { class: "tick", x: MARGIN.left - 6, y: y(value) + 4, "text-anchor": "end" },
            value === 0 ? "0" : axis(value),
        ),
    ]);
    const wanted = Math.max(2, Math.floor(inner / 130));
    const labels = Array.from({ length: wanted }, (_, i) => Math.round((i * (times.length - 1)) / (wanted - 1))).map(
        (at, i) =>
            svg(
                "text",
                {
                    class: "tick",
                    x: MARGIN.left + (at / (times.length - 1)) * inner,
                    y: HEIGHT - 6,
                    "text-anchor": i === 0 ? "start" : i === wanted - 1 ? "end" : "middle",
                },
                clock(times[at]),
            ),
    );
    const curves = shown.map((line) => {
        const placed = points(
            line.values.map((value) => (value === null || value === undefined ? null : scale.part(value))),
            inner,
            tall,
            1,
        );
        const there = placed.filter(Boolean);
        const area =
            shown.length === 1 && there.length === placed.length
                ? svg("path", {
                      class: `area ${line.css}`,
                      d: `${path(placed)}L${placed.at(-1)[0]} ${tall}L${placed[0][0]} ${tall}Z`,
                  })
                : null;
        return svg(
            "g",
            { transform: `translate(${MARGIN.left} ${MARGIN.top})` },
            area ? [area] : [],
            svg("path", { class: `curve ${line.css}`, d: path(placed) }),
            svg("path", { class: `curve dots ${line.css}`, d: alone(placed) }),
        );
    });
    show(
        picture,
        svg(
            "svg",
            {
                class: "curves",
                viewBox: `0 0 ${width} ${HEIGHT}`,
                width,
                height: HEIGHT,
                role: "img",
                "aria-label": title,
            },
            grid,
            labels,
            curves,
            svg("line", { class: "cursor", x1: -9, x2: -9, y1: MARGIN.top, y2: HEIGHT - MARGIN.bottom }),
        ),
    );
}

function cursor(picture, readout, { shown, times, say }) {
    picture.addEventListener("pointermove", (event) => {
        const place = picture.getBoundingClientRect();
        const inner = place.width - MARGIN.left - MARGIN.right;
        const part = Math.min(1, Math.max(0, (event.clientX - place.left - MARGIN.left) / inner));
        const at = Math.round(part * (times.length - 1));
        const x = MARGIN.left + (at / (times.length - 1)) * inner;
        picture.querySelector(".cursor")?.setAttribute("x1", x);
        picture.querySelector(".cursor")?.setAttribute("x2", x);
        readout.textContent = `${clock(times[at])} UTC: ${shown.map((line) => `${line.name} ${line.values[at] === null || line.values[at] === undefined ? "–" : say(line.values[at])}`).join(" · ")}`;
    });
    picture.addEventListener("pointerleave", () => {
        picture.querySelector(".cursor")?.setAttribute("x1", -9);
        picture.querySelector(".cursor")?.setAttribute("x2", -9);
        describe(readout, shown, say);
    });
}

export const perSecond = (unit) => (value) => short(value, unit);
