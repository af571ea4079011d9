// The only maker of nodes. What comes off the wire (names, rule words, addresses) becomes text, never markup.

const SVG = "http://www.w3.org/2000/svg";

// Characters that would turn round or hide the text beside them, as names on the wire may have.
const UNSEEN = /[\u0000-\u0008\u000b-\u001f\u007f\u200b\u200e\u200f\u202a-\u202e\u2066-\u2069\ufeff]/g;

export const plainly = (text) => String(text).replace(UNSEEN, "\ufffd");

function fill(node, attributes, children) {
    for (const [name, value] of Object.entries(attributes ?? {})) {
        if (value === null || value === undefined || value === false) {
            continue;
        }
        if (name.startsWith("on")) {
            node.addEventListener(name.slice(2), value);
        } else if (name === "value" || name === "checked" || name === "disabled") {
            node[name] = value;
        } else {
            node.setAttribute(name, value === true ? "" : String(value));
        }
    }
    const there = children.flat(Infinity).filter((child) => child !== null && child !== undefined && child !== false);
    node.append(...there.map((child) => (child instanceof Node ? child : plainly(child))));
    return node;
}

export function el(tag, attributes, ...children) {
    return fill(document.createElement(tag), attributes, children);
}

export function svg(tag, attributes, ...children) {
    return fill(document.createElementNS(SVG, tag), attributes, children);
}

const named = (summary) => `${summary.closest("[id]")?.id} ${summary.textContent}`;

// Replaces what is in a node; keeps the keyboard where it was, and open what was opened, if those are still there.
export function show(parent, ...children) {
    const held = document.activeElement?.id;
    const opened = new Set([...parent.querySelectorAll("details[open] > summary")].map(named));
    parent.replaceChildren(...children.flat(Infinity).filter(Boolean));
    if (opened.size) {
        parent.querySelectorAll("details > summary").forEach((one) => {
            one.parentElement.open ||= opened.has(named(one));
        });
    }
    if (held && document.activeElement?.id !== held) {
        document.getElementById(held)?.focus({ preventScroll: true });
    }
}

function icon() {
    return svg(
        "svg",
        { class: "icon", viewBox: "0 0 16 16", "aria-hidden": "true" },
        svg("path", { d: "M5.5 5.5v-3h8v8h-3M2.5 5.5h8v8h-8z" }),
    );
}

// A button that copies a text and says so; without words, a sign.
export function copyButton(text, label) {
    const words = el("span", null, label ?? "");
    const button = el(
        "button",
        { class: "copy", type: "button", title: `Copy: ${text}`, "aria-label": label ? null : `Copy ${text}` },
        label ? null : icon(),
        words,
    );
    button.addEventListener("click", async () => {
        words.textContent = (await copied(text)) ? "Copied" : "Not allowed: select it";
        setTimeout(() => (words.textContent = label ?? ""), 1600);
    });
    return button;
}

async function copied(text) {
    try {
        await navigator.clipboard.writeText(text);
        return true;
    } catch {
        // Not allowed, or not over TLS: the old way, by a selection.
        const area = el("textarea", { class: "offscreen", value: text });
        document.body.append(area);
        area.select();
        const done = document.execCommand("copy");
        area.remove();
        return done;
    }
}

// Draws at once, and again when the room changes.
export function fitted(node, draw, signal) {
    let width = -1;
    let waiting = 0;
    const again = () => {
        waiting = 0;
        if (node.isConnected && Math.abs(node.clientWidth - width) > 4) {
            width = node.clientWidth;
            draw();
        }
    };
    const observer = new ResizeObserver(() => (waiting ||= requestAnimationFrame(again)));
    observer.observe(node);
    signal.addEventListener("abort", () => observer.disconnect());
    queueMicrotask(() => {
        width = node.clientWidth;
        draw();
    });
}

// A line of text to fill in; `about` keeps the ids of a page's forms apart.
export function field(about, name, label, { value = "", hint = "", required = false } = {}) {
    const id = `${about}-${name}`;
    const rest = { placeholder: hint, autocomplete: "off", spellcheck: "false", required };
    return el("label", null, label, el("input", { name, id, value, ...rest }));
}

// A command in a box of its own, with its button.
export function command(text, label) {
    return el("div", { class: "command" }, el("code", null, text), copyButton(text, label ?? "Copy"));
}

export function state(title, ...more) {
    return el("section", { class: "state" }, el("h1", null, title), more);
}
