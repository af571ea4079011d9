// A text area for rules. Each pause in the writing has it checked by the box; a mistake leads to its line and column.

import { maybe, send } from "./api.js";
import { el, show } from "./dom.js";
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

export function editor(mayOperate, signal) {
    const name = el("input", {
        id: "rule-file",
        value: "mine.rhai",
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
        "aria-describedby": "rule-said",
        placeholder: EXAMPLE,
    });
    const gutter = el("pre", { class: "gutter", "aria-hidden": "true" });
    const said = el("div", { id: "rule-said", role: "status", "aria-live": "polite" });
    const put = el("button", { type: "button", class: "primary", disabled: true }, "Put into force");
    let timer = null;
    let asked = 0;
    const lines = (bad) =>
        show(
            gutter,
            numbered(area.value || EXAMPLE, bad).map(([number, wrong]) =>
                el("span", { class: wrong ? "bad" : "" }, number),
            ),
        );
    const go = (mistake) => {
        const at = offset(area.value, mistake.line, mistake.column || 1);
        area.focus();
        area.setSelectionRange(at, at + 1);
        area.scrollTop = Math.max(0, (mistake.line - 4) * 20);
    };
    const told = (answer) => {
        const errors = answer.errors ?? [];
        lines(new Set(errors.map((one) => one.line)));
        put.disabled = !mayOperate || errors.length > 0;
        show(
            said,
            errors.length
                ? el(
                      "ul",
                      { class: "mistakes" },
                      errors.map((one) =>
                          el(
                              "li",
                              null,
                              one.line
                                  ? el(
                                        "button",
                                        { type: "button", class: "quiet place", onclick: () => go(one) },
                                        `${one.line}:${one.column}`,
                                    )
                                  : null,
                              ` ${one.message}`,
                              one.help ? el("p", { class: "muted small" }, one.help) : null,
                          ),
                      ),
                  )
                : el(
                      "p",
                      { class: "good" },
                      `✓ ${plural((answer.rules ?? []).length, "rule")} understood: ${(answer.rules ?? []).map((one) => one.rule ?? one.name ?? one).join(", ")}`,
                  ),
        );
    };
    const check = async () => {
        const turn = (asked += 1);
        if (!area.value.trim()) {
            lines();
            put.disabled = true;
            show(
                said,
                el(
                    "p",
                    { class: "muted" },
                    "Write or paste a rule; it is checked as you write. The rule language: docs/rules.md.",
                ),
            );
            return;
        }
        try {
            const answer = await send("POST", "rules/check", {
                files: [{ name: name.value || "mine.rhai", text: area.value }],
            });
            if (turn === asked) {
                told(answer);
            }
        } catch (error) {
            show(
                said,
                el(
                    "p",
                    { class: "error" },
                    error.status === 404
                        ? "This box does not check rules over the network."
                        : [error.message, error.help].filter(Boolean).join(": "),
                ),
            );
        }
    };
    area.addEventListener("input", () => {
        lines();
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
    put.addEventListener("click", () => upload(name.value, area.value, said, put));
    signal.addEventListener("abort", () => clearTimeout(timer));
    const file = el("input", {
        type: "file",
        id: "rule-upload",
        accept: ".rhai,text/plain",
        onchange: async (event) => {
            const [chosen] = event.target.files;
            if (chosen) {
                name.value = chosen.name;
                area.value = await chosen.text();
                area.dispatchEvent(new Event("input"));
            }
        },
    });
    queueMicrotask(check);
    choices(name, area, signal);
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
                el("label", { class: "button" }, "Open a file …", file),
                put,
            ),
        ),
        el("div", { class: "code" }, gutter, area),
        said,
        el("p", { class: "muted small" }, "Tab indents; Shift+Tab leaves the text."),
    );
}

async function upload(name, text, said, put) {
    put.disabled = true;
    try {
        await send("PUT", `rules/files/${encodeURIComponent(name)}`, text);
        show(said, el("p", { class: "good" }, `✓ ${name} is in force.`));
    } catch (error) {
        const why =
            error.status === 403
                ? "This token may only read."
                : error.status === 404 || error.status === 405
                  ? "This box takes no rules over the network: put the file into its rules folder, and `referee rules reload`."
                  : error.message;
        show(
            said,
            el("p", { class: "error" }, why),
            error.errors.map((one) =>
                el("p", null, el("code", null, `${one.file}:${one.line}:${one.column}`), ` ${one.message}`),
            ),
        );
        put.disabled = false;
    }
}

// The operator's own files, to go on with.
async function choices(name, area, signal) {
    const answer = await maybe("rules/files", signal).catch(() => null);
    const files = answer?.items ?? answer?.files ?? [];
    if (!files.length || !name.isConnected) {
        return;
    }
    const list = el(
        "datalist",
        { id: "rule-files" },
        files.map((one) => el("option", { value: one.name ?? one })),
    );
    name.setAttribute("list", "rule-files");
    name.after(list);
    name.addEventListener("change", async () => {
        if (files.some((one) => (one.name ?? one) === name.value) && !area.value.trim()) {
            area.value = (await maybe(`rules/files/${encodeURIComponent(name.value)}`, signal)) ?? "";
            area.dispatchEvent(new Event("input"));
        }
    });
}
