// A text area for rules. Each pause in the writing has it checked by the box; a mistake leads to its line and column.

import { send } from "./api.js";
import { command, el, show } from "./dom.js";
import { box, draft, ofFile } from "./rule-box.js";
import { plural } from "./words.js";

const PAUSE_MS = 400;
const EXAMPLE = `// The database's connections are cut off after a silence.
param idle_ms = 60_000;

rule "db_idle" on rst
when flow.dport == 5432 && flow.established && !flow.fin_seen
    && flow.idle_before_ms >= idle_ms
then {
    incident("warning", \`\${flow.src} lost its database after \${duration_ms(flow.idle_before_ms)} of silence.\`);
    advise("Set TCP keepalives below that.");
    capture(flow);
}
`;

// Where a line and column, from 1, are in a text.
export function offset(text, line, column) {
    const lines = text.split("\n");
    const before = lines.slice(0, Math.max(0, line - 1)).reduce((all, one) => all + one.length + 1, 0);
    return Math.min(text.length, before + Math.max(0, Math.min(column - 1, (lines[line - 1] ?? "").length)));
}

export function numbered(text, bad = new Set()) {
    return text.split("\n").map((_, i) => [i + 1, bad.has(i + 1)]);
}

export function editor(mayOperate, live, signal) {
    const name = el("input", {
        id: "rule-file",
        value: draft.name,
        spellcheck: "false",
        autocomplete: "off",
        size: "24",
    });
    const area = el("textarea", {
        id: "rule-text",
        spellcheck: "false",
        rows: "16",
        wrap: "off",
        autocapitalize: "off",
        "aria-label": "Text of the rule",
        "aria-describedby": "rule-said",
        placeholder: EXAMPLE,
        value: draft.text,
    });
    const gutter = el("pre", { class: "gutter", "aria-hidden": "true" });
    const said = el("div", { id: "rule-said", role: "status", "aria-live": "polite" });
    const download = el("a", { class: "button", hidden: true }, "Download");
    const told = (errors, ...words) => {
        const own = errors.filter((one) => ofFile(one, name.value));
        const bad = new Set(own.map((one) => one.line));
        const lines = numbered(area.value || EXAMPLE, bad);
        show(
            gutter,
            lines.map(([number, wrong]) => el("span", { class: wrong ? "bad" : "" }, number)),
        );
        download.hidden = !area.value.trim();
        kept.checked(own.length);
        const find = (one) => (ofFile(one, name.value) ? () => go(area, one) : null);
        show(said, words, errors.length ? mistakes(errors, find) : null);
    };
    const kept = box({ name, area, told, mayOperate, live, signal });
    const check = checking(name, area, told);
    typing(area, gutter, check, signal, [kept.save, kept.remove]);
    download.addEventListener("click", () => downloaded(download, name.value, area.value));
    queueMicrotask(check);
    return el(
        "section",
        { class: "panel editor" },
        el(
            "div",
            { class: "titlerow" },
            el("h2", null, "Write a rule"),
            el(
                "span",
                { class: "controls" },
                el("label", null, "File ", name),
                kept.state,
                kept.open,
                opening(name, area),
                download,
                kept.save,
                kept.remove,
            ),
        ),
        el("div", { class: "code" }, gutter, area),
        said,
        el("p", { class: "muted small" }, "Tab indents; Shift+Tab leaves the text."),
        kept.where,
        el("p", { class: "muted small" }, "It can also be put into the box’s rules folder by hand:"),
        command("referee rules reload"),
        mayOperate ? el("p", null, reloading(said)) : null,
    );
}

// `find` gives what leads to a mistake, or nothing where that is not in this text.
function mistakes(errors, find) {
    const one = (mistake) => {
        const [go, place] = [find(mistake), `${mistake.line}:${mistake.column}`];
        const there = go
            ? el("button", { type: "button", class: "quiet place", onclick: go }, place)
            : el("span", { class: "place" }, `${mistake.file}:${place}`);
        const help = mistake.help ? el("p", { class: "muted small" }, mistake.help) : null;
        return el("li", null, mistake.line ? there : null, ` ${mistake.message}`, help);
    };
    return el("ul", { class: "mistakes" }, errors.map(one));
}

function go(area, mistake) {
    const at = offset(area.value, mistake.line, mistake.column || 1);
    area.focus();
    area.setSelectionRange(at, at + 1);
    area.scrollTop = Math.max(0, (mistake.line - 4) * 20);
}

// Asks the box; only the answer to the newest question counts.
function checking(name, area, told) {
    let asked = 0;
    const check = async () => {
        const turn = (asked += 1);
        const files = [{ name: name.value || "mine.rhai", text: area.value }];
        if (!area.value.trim()) {
            told(
                [],
                el(
                    "p",
                    { class: "muted" },
                    "Write or paste a rule: it is checked as you write. The language is in docs/rules.md.",
                ),
            );
            return;
        }
        try {
            const { errors, rules } = await send("POST", "rules/check", { files });
            if (turn === asked) {
                const understood = `${plural(rules.length, "rule")} understood: ${rules.join(", ")}`;
                told(
                    errors,
                    rules.length
                        ? el("p", { class: errors.length ? "muted" : "good" }, errors.length ? understood : `✓ ${understood}`)
                        : null,
                );
            }
        } catch (error) {
            told([], el("p", { class: "error" }, [error.message, error.help].filter(Boolean).join(": ")));
        }
    };
    check.forget = () => (asked += 1);
    return check;
}

function typing(area, gutter, check, signal, changes) {
    let timer = null;
    area.addEventListener("input", () => {
        show(
            gutter,
            numbered(area.value).map(([number]) => el("span", null, number)),
        );
        clearTimeout(timer);
        timer = setTimeout(check, PAUSE_MS);
    });
    area.addEventListener("scroll", () => (gutter.scrollTop = area.scrollTop));
    area.addEventListener("keydown", (event) => {
        if (event.key === "Tab" && !event.shiftKey && area.value) {
            event.preventDefault();
            area.setRangeText("    ", area.selectionStart, area.selectionEnd, "end");
            area.dispatchEvent(new Event("input"));
        }
    });
    // What the box says of a change to the file stands above what was asked before.
    const forget = () => {
        clearTimeout(timer);
        check.forget();
    };
    changes.forEach((button) => button.addEventListener("click", forget));
    signal.addEventListener("abort", () => clearTimeout(timer));
}

function opening(name, area) {
    const take = async (event) => {
        const [chosen] = event.target.files;
        if (chosen) {
            name.value = chosen.name;
            area.value = await chosen.text();
            area.dispatchEvent(new Event("input"));
        }
    };
    const file = el("input", { type: "file", id: "rule-upload", accept: ".rhai,text/plain", onchange: take });
    return el("label", { class: "button" }, "Open a file …", file);
}

function downloaded(link, name, text) {
    const address = URL.createObjectURL(new Blob([text], { type: "text/plain" }));
    link.href = address;
    link.download = name || "mine.rhai";
    setTimeout(() => URL.revokeObjectURL(address), 10000);
}

function reloading(said) {
    const button = el("button", { type: "button" }, "Reload the rules of the box");
    button.addEventListener("click", async () => {
        button.disabled = true;
        try {
            const done = await send("POST", "rules/reload");
            const words = done.errors?.length
                ? "The files have mistakes; the rules before stay in force:"
                : `✓ ${plural(done.rules, "rule")} in force.`;
            show(
                said,
                el("p", { class: done.errors?.length ? "error" : "good" }, words),
                done.errors?.length ? mistakes(done.errors, () => null) : null,
            );
        } catch (error) {
            show(
                said,
                el("p", { class: "error" }, error.message),
                error.errors.length ? mistakes(error.errors, () => null) : null,
            );
        } finally {
            button.disabled = false;
        }
    });
    return button;
}
