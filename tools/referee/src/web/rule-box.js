// The rule files of the box: what is written can be saved there, and what is there be opened. What was written and not saved
// outlives a look at another page, and is asked about before the window is closed.

import { get, maybe, send } from "./api.js";
import { el, show } from "./dom.js";
import { plural } from "./words.js";

// What stands in the text area; `saved` is how the box has it, as far as is known.
export const draft = { name: "mine.rhai", text: "", saved: "" };

export const unsaved = () => draft.text !== draft.saved && draft.text.trim() !== "";

// Whether a mistake is one of this file: the box names it with its folder.
export const ofFile = (mistake, name) => mistake.file === name || mistake.file.endsWith(`/${name}`);

function leaving(event) {
    if (unsaved()) {
        event.preventDefault();
    }
}

// What the box can do for the editor: `told` shows mistakes at their lines, and words.
export function box({ name, area, told, mayOperate, live, signal }) {
    const state = el("span", { id: "rule-state", class: "muted small", role: "status" });
    const save = el("button", { id: "rule-save", type: "button", class: "primary", hidden: true }, "Save to the box");
    const remove = el("button", { id: "rule-delete", type: "button", class: "quiet", hidden: true }, "Delete from the box");
    const open = el("select", { id: "rule-open", "aria-label": "Open a file of the box", hidden: true });
    const where = el("p", { class: "muted small", id: "rule-where" });
    const files = { folder: null, writable: false, items: [] };
    let wrong = 0;
    const look = () => {
        [draft.name, draft.text] = [name.value, area.value];
        state.textContent = unsaved() ? "not saved" : "";
        save.hidden = !(mayOperate && live && files.writable);
        save.disabled = !area.value.trim() || wrong > 0;
        const own = files.items.some((one) => one.name === name.value.trim() && !one.shipped);
        remove.hidden = save.hidden || !own;
    };
    const list = async () => {
        Object.assign(files, (live && (await maybe("rules/files", signal))) || {});
        where.textContent = words(files, mayOperate, live);
        open.hidden = files.items.length === 0;
        const option = (one) => el("option", { value: one.name }, one.shipped ? `${one.name} (shipped)` : one.name);
        show(open, el("option", { value: "" }, "Open from the box …"), files.items.map(option));
        look();
    };
    const fill = (file, text) => {
        [name.value, area.value] = [file, text];
        area.dispatchEvent(new Event("input"));
    };
    open.addEventListener("change", async () => {
        const file = open.value;
        open.value = "";
        if (!file || (unsaved() && !window.confirm(`What is written in ${draft.name} is not saved. Leave it?`))) {
            return;
        }
        try {
            const text = String((await get(`rules/files/${encodeURIComponent(file)}`, signal)) ?? "");
            draft.saved = text;
            fill(file, text);
        } catch (error) {
            told(error.errors ?? [], failed(error));
        }
    });
    const change = async (verb, text, saved, words) => {
        save.disabled = remove.disabled = true;
        try {
            const done = await send(verb, `rules/files/${encodeURIComponent(name.value.trim())}`, text);
            draft.saved = saved;
            told([], el("p", { class: "good" }, `✓ ${words} ${plural(done.rules, "rule")} in force.`));
            await list();
        } catch (error) {
            told(error.errors ?? [], failed(error));
        }
        remove.disabled = false;
        look();
    };
    save.addEventListener("click", () => change("PUT", area.value, area.value, "Saved."));
    remove.addEventListener("click", async () => {
        if (window.confirm(`Delete ${name.value.trim()} from the box? Its rules are no longer in force then.`)) {
            await change("DELETE", undefined, "", "Deleted; the text is still here.");
        }
    });
    area.addEventListener("input", look);
    name.addEventListener("input", look);
    window.addEventListener("beforeunload", leaving, { signal });
    list().catch(() => {});
    return {
        state,
        save,
        remove,
        open,
        where,
        checked: (mistakes) => {
            wrong = mistakes;
            look();
        },
    };
}

const failed = (error) => el("p", { class: "error" }, [error.message, error.help].filter(Boolean).join(". "));

function words({ folder, writable }, mayOperate, live) {
    if (!live) {
        return "No run is under way here that it could be saved to.";
    }
    if (!folder) {
        return "The run has no rules folder of its own ([rules] dir names one), so nothing can be saved to the box.";
    }
    if (!mayOperate) {
        return `The rules are in ${folder}. This token may only read them.`;
    }
    return writable
        ? `Saved, it is in ${folder} and in force at once, if all rules there are without mistakes.`
        : `The run can’t write to ${folder}: give that folder to its user for rules to be saved from here.`;
}
