// Where a token is asked for. The token goes into one request and is not kept here: the cookie that comes back is HttpOnly.

import { send, tell } from "./api.js";
import { command, el, show } from "./dom.js";

let wanted = "#/";
let why = null;

export function after(hash) {
    wanted = hash.startsWith("#/login") ? "#/" : hash || "#/";
}

export function refused(message) {
    why = message;
}

const LINK = /^#code=([^&]+)(?:&to=(.*))?$/;

// Signs in by the link that `referee web` printed, if the address is one, and goes where it leads.
export async function redeem(place = location, past = history, ask = send) {
    const link = place.hash.match(LINK);
    if (!link) {
        return;
    }
    const go = (hash) => past.replaceState(null, "", `${place.pathname}${place.search}${hash}`);
    // Whatever comes of it, the code is used up.
    go("#/");
    try {
        await ask("POST", "session", { code: link[1] });
        why = null;
        tell("signedin");
        go(`#${link[2] ?? "/"}`);
    } catch (error) {
        refused(error.message);
        go("#/login");
    }
}

export async function enter({ main }) {
    const field = el("input", {
        id: "token",
        type: "password",
        name: "token",
        autocomplete: "current-password",
        required: true,
        spellcheck: "false",
    });
    const said = el("p", { class: "error", role: "alert" }, why ?? "");
    const form = el(
        "form",
        { class: "login" },
        el("input", { type: "text", name: "username", autocomplete: "username", hidden: true, value: "token" }),
        el("label", { for: "token" }, "Token"),
        field,
        el("button", { type: "submit", class: "primary" }, "Sign in"),
        said,
    );
    form.addEventListener("submit", async (event) => {
        event.preventDefault();
        said.textContent = "";
        why = null;
        try {
            await send("POST", "session", { token: field.value.trim() });
            tell("signedin");
            location.hash = wanted;
        } catch (error) {
            said.textContent =
                error.status === 429
                    ? "Too many attempts. Wait a minute."
                    : error.status === 401
                      ? "This token is not known here."
                      : error.message;
            field.select();
        }
    });
    show(
        main,
        el(
            "section",
            { class: "state narrow" },
            el("h1", null, "Sign in"),
            el("p", null, "This box shows packets to those who have a token, or a link made on the box itself."),
            form,
            el("h2", null, "No token at hand?"),
            el("p", null, "On the box, this prints a link that is good for a minute:"),
            command("referee web"),
            el(
                "p",
                null,
                "And this makes a token for a person or a program, to be entered in ",
                el("code", null, "referee.toml"),
                ":",
            ),
            command("referee token NAME --role read"),
        ),
    );
    field.focus();
}
