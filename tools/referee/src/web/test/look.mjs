// Every page, wide and narrow, dark and light: checks on what is in it, and pictures for eyes.
// node look.mjs OUT_FOLDER [STORE_URL INCIDENT...]: with a store's page, given as a link that logs in, and its incidents.
// Scenes of a run come from serve.mjs. LOOK=checks leaves the pictures out.

import { spawn } from "node:child_process";
import { mkdirSync } from "node:fs";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";

import { Browser } from "./browser.mjs";

const HERE = dirname(fileURLToPath(import.meta.url));
const [out, store, ...incidents] = process.argv.slice(2);
const pictures = process.env.LOOK !== "checks";
const started = [];
let faults = 0;

function fault(name, words) {
    faults += 1;
    console.error(`FAULT: ${name}: ${words}`);
}

// A server with made-up answers; its address.
function scene(name) {
    const child = spawn(process.execPath, [join(HERE, "serve.mjs"), "--scene", name, "--port", "0"]);
    started.push(child);
    return new Promise((done) => child.stdout.on("data", (text) => done(String(text).trim())));
}

const VALUES = "/\\b(undefined|NaN|null|Infinity)\\b|\\[object/";
// What no page may have: values that aren't there, text wider than the screen, two things of one name, a field without one.
const UNSOUND = `(() => {
    const found = [];
    const text = document.body.innerText;
    const wrong = text.match(${VALUES});
    if (wrong) found.push("text has " + text.slice(Math.max(0, wrong.index - 40), wrong.index + 20));
    document.querySelectorAll("svg *").forEach((node) => [...node.attributes].forEach((one) => /NaN|undefined|Infinity/.test(one.value) && found.push(node.tagName + " " + one.name + "=" + one.value.slice(0, 40))));
    if (document.documentElement.scrollWidth > innerWidth + 1) found.push("wider than the screen: " + document.documentElement.scrollWidth);
    const ids = [...document.querySelectorAll("[id]")].map((node) => node.id);
    ids.forEach((id, i) => ids.indexOf(id) !== i && found.push("two of id " + id));
    document.querySelectorAll("input:not([hidden]), select, textarea").forEach((node) => !node.labels?.length && !node.getAttribute("aria-label") && !node.getAttribute("aria-describedby") && found.push("no label: " + node.id));
    document.querySelectorAll("button, a[href]").forEach((node) => !(node.textContent.trim() || node.getAttribute("aria-label")) && found.push("no words: " + node.outerHTML.slice(0, 60)));
    return found.slice(0, 5);
})()`;

async function seen(browser, name, url, ...wanted) {
    console.log(name);
    const dark = (theme) => url.replace(/\?[^#]*|$/, `?still&theme=${theme}`);
    for (const width of [1280, 390, 360]) {
        await browser.size(width, width === 1280 ? 900 : 800);
        for (const theme of width === 360 ? ["light"] : ["light", "dark"]) {
            if (!(await browser.go(dark(theme)))) {
                fault(name, "it does not come to an end of loading");
                return;
            }
            for (const selector of wanted) {
                const there = selector.startsWith("text:")
                    ? `document.body.innerText.includes(${JSON.stringify(selector.slice(5))})`
                    : `document.querySelector(${JSON.stringify(selector)})`;
                if (!(await browser.until(there))) {
                    fault(name, `${width} ${theme}: there is no ${selector}`);
                    return;
                }
            }
            (await browser.run(UNSOUND)).forEach((words) => fault(name, `${width} ${theme}: ${words}`));
            browser.faults.forEach((words) => fault(name, `console: ${words}`));
            if (pictures && width !== 360) {
                await browser.picture(join(out, `${name}-${theme}-${width}.png`));
            }
        }
    }
}

// What a keyboard can do with the diagrams and the editor.
async function used(browser, base) {
    console.log("keyboard");
    await browser.size(1280, 900);
    await browser.go(`${base.replace(/\?[^#]*/, "?still&theme=light")}#/incident/28808d82ef6aaaae`);
    const expect = async (what, expression) => (await browser.until(expression)) || fault("keyboard", what);
    await expect("a ladder with folds", "document.querySelector('[data-fold]')");
    const before = await browser.run("document.querySelectorAll('.ladder [data-n]').length");
    await browser.run("document.getElementById('ladder').focus()");
    for (let i = 0; i < 3; i += 1) {
        await browser.press("ArrowDown");
    }
    await expect("the third packet's header", "/Packet 3/.test(document.querySelector('.details').innerText)");
    await browser.run(
        "document.querySelector('[data-fold]').dispatchEvent(new MouseEvent('click', { bubbles: true }))",
    );
    await expect("an opened fold", `document.querySelectorAll('.ladder [data-n]').length > ${before}`);
    await browser.run("document.getElementById('sequence').focus()");
    await browser.press("+");
    await expect(
        "a closer look",
        "[...document.querySelectorAll('.quiet')].some((one) => one.innerText === 'Show all' && !one.hidden)",
    );
    if (pictures) {
        await browser.picture(join(out, "keyboard-light-1280.png"));
    }
    await browser.go(`${base.replace(/\?[^#]*/, "?still&theme=dark")}#/rules`);
    await browser.run("document.getElementById('rule-text').focus()");
    await browser.ask("Input.insertText", { text: 'rule "mine" on rst\nwhen flow.oops\nthen {}\n' });
    await expect("the mistake's place", "document.querySelector('.place')?.innerText === '2:11'");
    await browser.run("document.querySelector('.place').click()");
    await expect(
        "the caret at the mistake",
        "document.activeElement.id === 'rule-text' && document.activeElement.selectionStart === 29",
    );
    await saving(browser);
    if (pictures) {
        await browser.picture(join(out, "editor-dark-1280.png"));
    }
    browser.faults.forEach((words) => fault("keyboard", words));
}

async function saving(browser) {
    const expect = async (what, condition) => {
        if (!(await browser.until(condition))) {
            fault("saving", `not found: ${what}`);
        }
    };
    const write = (text) =>
        browser.run(`{
            const area = document.getElementById("rule-text");
            area.value = ${JSON.stringify(text)};
            area.dispatchEvent(new Event("input"));
        }`);
    const [state, save] = ["document.getElementById('rule-state').innerText", "document.getElementById('rule-save')"];
    const understood = "document.getElementById('rule-said').innerText.includes('understood')";
    await write('rule "mine" on rst\nwhen flow.late\nthen {}\n');
    await expect("that it is not saved", `${state} === 'not saved' && ${understood} && !${save}.disabled`);
    await browser.run(`${save}.click()`);
    await expect("the box's refusal at its line", "document.querySelector('.gutter .bad')?.innerText === '2'");
    await expect("that it is still not saved", `${state} === 'not saved'`);
    await write('rule "mine" on rst\nwhen flow.rst_seen\nthen {}\n');
    await expect("the mistake gone", `${understood} && !${save}.disabled`);
    await browser.run(`${save}.click()`);
    const said = (words) => `document.getElementById('rule-said').innerText.includes('${words}')`;
    await expect("that it is saved", `${said("Saved")} && !${state}`);
    const remove = "document.getElementById('rule-delete')";
    await expect("that it can be deleted again", `!${remove}.hidden`);
    await browser.run("window.confirm = () => true");
    await browser.run(`${remove}.click()`);
    await expect("that it is deleted", `${said("Deleted")} && ${remove}.hidden && ${state} === 'not saved'`);
    // Who leaves with something unsaved is asked first.
    await write("");
}

async function gone(browser, base) {
    console.log("gone");
    await browser.size(1280, 900);
    await browser.go(base.replace(/\?[^#]*/, "?still&theme=light"));
    if (
        !(await browser.until(
            "/No answer for .*What is shown is as of/.test(document.getElementById('banner').innerText)",
        ))
    ) {
        fault("gone", "nobody says that there is no answer");
    }
    if (pictures) {
        await browser.picture(join(out, "gone-light-1280.png"));
    }
}

async function all(browser) {
    if (store) {
        await browser.go(store);
        const home = store.replace(/#.*/, "");
        await seen(browser, "store-now", `${home}#/`, "text:in this store", ".card");
        await seen(browser, "store-incidents", `${home}#/incidents`, ".line");
        for (const incident of incidents) {
            const [id, kind] = incident.split(":");
            const rst = kind.startsWith("rst_") ? ["svg .rst.foreign", "svg .rst .origin"] : [];
            await seen(
                browser,
                `store-${kind}`,
                `${home}#/incident/${id}`,
                `text:${id}`,
                "svg.ladder",
                "svg.sequence",
                "text:wireshark -k -i -",
                "text:Download the packets",
                ...rst,
            );
        }
        await seen(browser, "store-captures", `${home}#/captures`, "table.flows");
        await seen(browser, "store-rules", `${home}#/rules`, "text:Write a rule");
        await seen(browser, "store-traffic", `${home}#/traffic`, "text:No traffic is being watched");
        await seen(browser, "store-books", `${home}#/books`, "text:no books of a store");
    }
    const live = await scene("live");
    await seen(browser, "live-now", live, "text:things are broken now", "svg.spark", "text:packets kept");
    await seen(browser, "live-incident", `${live}#/incident/28808d82ef6aaaae`, "[data-fold]", "svg .again");
    await seen(browser, "live-storm", `${live}#/incident/3a44cfbc3ed2b7ac`, "svg .rst", "text:this flow’s packets");
    await seen(browser, "live-rules", `${live}#/rules`, ".pill.shadow", ".pill.off", "text:mine.rhai:12:9");
    await seen(browser, "live-traffic", `${live}#/traffic`, ".curve.a", "svg.distribution .bucket");
    await seen(browser, "live-books", `${live}#/books`, "text:balances");
    await seen(browser, "live-captures", `${live}#/captures`, "text:Capture on demand");
    await seen(browser, "live-nothing", `${live}#/incident/0000000000000000`, "text:There is no such thing here");
    await used(browser, live);
    const hostile = await scene("hostile");
    for (const [name, place] of [
        ["now", ""],
        ["incident", "#/incident/1fbd5c4e4df9d78b"],
        ["incidents", "#/incidents"],
    ]) {
        await seen(browser, `hostile-${name}`, `${hostile}${place}`, "text:<img src=x onerror=");
        if (await browser.run("document.title === 'owned' || document.querySelector('main img, main script')")) {
            fault("hostile", "text has become markup");
        }
    }
    await seen(browser, "healthy", await scene("healthy"), "text:Healthy.", "text:nothing a person needs to look at");
    await seen(browser, "silent", await scene("silent"), "text:No packets come: is the mirror on?");
    await seen(browser, "login", await scene("login"), "text:Sign in");
    await gone(browser, await scene("gone"));
}

mkdirSync(out, { recursive: true });
const browser = await Browser.start();
try {
    await all(browser);
} finally {
    started.forEach((child) => child.kill());
    await browser.stop();
}
console.log(faults ? `${faults} faults` : "All as it should be.", pictures ? `Pictures: ${out}` : "");
process.exit(faults ? 1 : 0);
