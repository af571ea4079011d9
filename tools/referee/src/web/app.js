// The frame around the pages: header, banner, which page is shown, login. Begins everything.

import { Problem, follow, get, known, link, maybe } from "./api.js";
import { el, show, state } from "./dom.js";
import { clock, span } from "./words.js";
import * as books from "./books.js";
import * as captures from "./captures.js";
import * as incident from "./incident.js";
import * as incidents from "./incidents.js";
import * as login from "./login.js";
import * as now from "./now.js";
import * as rules from "./rules.js";
import * as traffic from "./traffic.js";

const PAGES = {
    "": ["Now", now],
    incidents: ["Incidents", incidents],
    incident: [null, incident],
    rules: ["Rules", rules],
    traffic: ["Traffic", traffic],
    books: ["Books", books],
    captures: ["Captures", captures],
    login: [null, login],
};
const STALE_MS = 12000;

const main = document.getElementById("main");
const top = document.getElementById("top");
const banner = document.getElementById("banner");
const box = { version: null, health: null };
let leaving = new AbortController();
let nextTry = 0;

function route() {
    const [path, words] = location.hash.replace(/^#\/?/, "").split("?");
    const [name, ...rest] = path.split("/");
    return {
        name: name in PAGES ? name : "",
        argument: decodeURIComponent(rest.join("/")),
        options: new URLSearchParams(words ?? ""),
    };
}

async function enter() {
    leaving.abort();
    leaving = new AbortController();
    const at = route();
    const [title, page] = PAGES[at.name];
    header(at.name);
    document.title = title && at.name ? `${title} · Referee` : "Referee";
    show(main, el("p", { class: "loading" }, "Loading …"));
    await page.enter({ main, at, box, signal: leaving.signal });
}

async function look() {
    [box.version, box.health] = await Promise.all([get("version"), maybe("health")]);
    header(route().name);
}

async function open() {
    const { signal } = leaving;
    try {
        if (!box.version && route().name !== "login") {
            await look();
        }
        await enter();
    } catch (error) {
        if (!leaving.signal.aborted || !signal.aborted) {
            failed(error);
        }
    }
}

function failed(error) {
    if (error instanceof DOMException && error.name === "AbortError") {
        return;
    }
    const problem = error instanceof Problem ? error : null;
    if (problem?.status === 401) {
        return;
    }
    if (!problem) {
        console.error(error);
    }
    const again = el("button", { type: "button", onclick: () => open() }, "Try again");
    show(
        main,
        state(
            problem?.status === 404
                ? "There is no such thing here."
                : problem?.status === 0
                  ? "Referee does not answer."
                  : "That did not work.",
            el("p", null, error.message),
            problem?.help ? el("p", { class: "muted" }, problem.help) : null,
            problem?.status === 0
                ? el(
                      "p",
                      { class: "muted" },
                      "Is it running? On its host: ",
                      el("code", null, "systemctl status referee"),
                      ", ",
                      el("code", null, "referee status"),
                      ".",
                  )
                : null,
            el("p", null, again),
        ),
    );
}

function header(current) {
    const links = Object.entries(PAGES)
        .filter(([, [title]]) => title)
        .map(([name, [title]]) =>
            el(
                "a",
                {
                    href: `#/${name}`,
                    "aria-current":
                        name === current || (name === "incidents" && current === "incident") ? "page" : null,
                },
                title,
            ),
        );
    show(
        top,
        el("a", { class: "brand", href: "#/" }, el("span", { class: "flag", "aria-hidden": "true" }), "Referee"),
        el("nav", { "aria-label": "Pages" }, links),
        el("div", { class: "standing" }, standing(), themeButton()),
    );
}

function standing() {
    const { version, health } = box;
    if (!version) {
        return null;
    }
    const taps = (version.interfaces ?? []).map((one) => one.name).join(", ");
    const [mark, words] = document.documentElement.classList.contains("stale")
        ? ["bad", "no answer from"]
        : !version.live
        ? ["idle", "store only"]
        : ({ ok: ["ok", "watching"], degraded: ["warn", "degraded"], failing: ["bad", "failing"] }[health?.status] ?? [
              "ok",
              "watching",
          ]);
    const troubles = (health?.checks ?? [])
        .filter((check) => check.status !== "ok")
        .map((check) => check.what)
        .join("; ");
    return el(
        "span",
        { class: `dot ${mark}`, title: troubles || version.hostname || "" },
        words,
        taps ? el("b", null, ` ${taps}`) : null,
    );
}

function themeButton() {
    const dark = () => getComputedStyle(document.documentElement).getPropertyValue("--is-dark").trim() === "1";
    const button = el("button", { type: "button", class: "theme", id: "theme", title: "Dark or light" }, "◐");
    button.setAttribute("aria-label", "Change between dark and light");
    button.addEventListener("click", () => {
        const theme = dark() ? "light" : "dark";
        document.documentElement.dataset.theme = theme;
        try {
            localStorage.setItem("theme", theme);
        } catch {
            // Not remembered, then.
        }
    });
    return button;
}

function stale(is) {
    const { classList } = document.documentElement;
    if (classList.contains("stale") !== is) {
        classList.toggle("stale", is);
        const dot = top.querySelector(".dot");
        dot?.replaceWith(standing());
    }
}

// Says so when what is shown has grown old.
function watch() {
    const age = Date.now() - known.answeredAt;
    if (!known.answeredAt || (!known.silent && age < STALE_MS) || route().name === "login") {
        show(banner);
        stale(false);
        return;
    }
    stale(true);
    const wait = Math.max(0, Math.ceil((nextTry - Date.now()) / 1000));
    show(
        banner,
        el(
            "p",
            null,
            el("strong", null, `No answer for ${span(Math.round(age / 1000))}. `),
            `What is shown is as of ${clock(known.answeredAt * 1e6)} UTC. `,
            known.silent ? (wait ? `Next try in ${wait}\u202fs.` : "Trying …") : "",
        ),
    );
}

async function arrive() {
    await login.redeem();
    await open();
}

async function begin() {
    link.addEventListener("login", () => {
        if (route().name !== "login") {
            login.after(location.hash);
            location.hash = "#/login";
        }
    });
    link.addEventListener("retry", (event) => (nextTry = Date.now() + event.detail));
    // Also a link pasted into a tab that is here already: that loads nothing anew.
    window.addEventListener("hashchange", arrive);
    await arrive();
    follow();
    setInterval(watch, 1000);
    setInterval(() => look().catch(() => {}), 10000);
}

begin();
