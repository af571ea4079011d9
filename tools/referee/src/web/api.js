// Asks Referee, and keeps track of whether it answers. Knows nothing of what is drawn.

const BASE = "/api/v1/";

// An answer that is not what was asked for: problem+json, or silence (status 0).
export class Problem extends Error {
    constructor(status, body) {
        super(body?.detail ?? body?.title ?? (status ? `Referee answered ${status}` : "no answer"));
        this.status = status;
        this.name = String(body?.type ?? "")
            .split("/")
            .pop();
        this.help = body?.help ?? null;
        this.errors = body?.errors ?? [];
    }

    get noRun() {
        return this.name === "no-run";
    }
}

// What the whole page is to know: "answered", "silent" (seconds until the next try), "login", and events of the run.
export const link = new EventTarget();
export const known = { answeredAt: 0, silent: false };

export function tell(type, detail) {
    link.dispatchEvent(new CustomEvent(type, { detail }));
}

async function ask(method, path, body, signal) {
    const options = { method, signal, headers: { accept: "application/json, text/plain" }, credentials: "same-origin" };
    // What takes no body is sent none.
    if (body !== undefined) {
        options.body = typeof body === "string" ? body : JSON.stringify(body);
        options.headers["content-type"] = typeof body === "string" ? "text/plain" : "application/json";
    }
    let answer;
    try {
        answer = await fetch(BASE + path, options);
    } catch (error) {
        if (signal?.aborted) {
            throw error;
        }
        known.silent = true;
        tell("silent");
        throw new Problem(0, { detail: "Referee does not answer" });
    }
    known.silent = false;
    known.answeredAt = Date.now();
    tell("answered");
    const text = await answer.text();
    let value = null;
    try {
        value = text ? JSON.parse(text) : null;
    } catch {
        value = answer.ok ? text : null;
    }
    if (!answer.ok) {
        if (answer.status === 401) {
            tell("login");
        }
        throw new Problem(answer.status, value);
    }
    return value;
}

export const get = (path, signal) => ask("GET", path, undefined, signal);
export const send = (method, path, body) => ask(method, path, body);

// The page of metrics, or nothing where there is none.
export async function metrics(signal) {
    const answer = await fetch("/metrics", { signal, credentials: "same-origin" }).catch(() => null);
    return answer?.ok ? answer.text() : "";
}

// A question whose answer may be missing for good reason: no run, an older server, no right to it.
export async function maybe(path, signal) {
    try {
        return await get(path, signal);
    } catch (error) {
        if (error instanceof Problem && [403, 404, 409, 501].includes(error.status)) {
            return null;
        }
        throw error;
    }
}

// Whether whoever looks on may also change things.
export async function operates(signal) {
    const session = await maybe("session", signal);
    return (session?.role?.role ?? session?.role) !== "read";
}

export function query(parameters) {
    const set = Object.entries(parameters).filter(([, value]) => value !== null && value !== undefined && value !== "");
    return set.length ? `?${new URLSearchParams(set)}` : "";
}

const EVENTS = ["incident", "books", "rules", "notice", "gap"];

// The stream of what happens, while somebody looks: a browser has few connections to one host, and hidden pages would
// take them all. `gap` means: ask for everything again.
export function follow() {
    const still = new URLSearchParams(location.search).has("still");
    if (still || !("EventSource" in window)) {
        return;
    }
    let source = null;
    let wait = 1000;
    let timer;
    const close = () => {
        clearTimeout(timer);
        source?.close();
        source = null;
    };
    const open = () => {
        close();
        source = new EventSource(`${BASE}events`);
        EVENTS.forEach((type) => source.addEventListener(type, (event) => happened(type, event.data)));
        source.onopen = () => (wait = 1000);
        source.onerror = () => {
            if (source?.readyState === EventSource.CLOSED) {
                timer = setTimeout(open, wait);
                wait = Math.min(wait * 2, 60000);
            }
        };
    };
    const seen = () => {
        if (document.hidden) {
            close();
        } else {
            tell("gap", null);
            open();
        }
    };
    document.addEventListener("visibilitychange", seen);
    window.addEventListener("pagehide", close);
    link.addEventListener("signedin", open);
    open();
}

function happened(type, data) {
    known.silent = false;
    known.answeredAt = Date.now();
    let detail = null;
    try {
        detail = JSON.parse(data);
    } catch {
        // A gap has nothing to say.
    }
    tell(type, detail);
}

// Runs `work` now and then every so often until the page is left; after a failure later and later.
export function repeat(milliseconds, work, signal) {
    let failures = 0;
    let timer;
    const turn = async () => {
        try {
            await (document.hidden ? null : work());
            failures = 0;
        } catch (error) {
            if (signal.aborted) {
                return;
            }
            failures += 1;
            if (!(error instanceof Problem)) {
                console.error(error);
            }
        }
        if (!signal.aborted) {
            const wait = failures ? Math.min(1000 * 2 ** (failures - 1), 30000) : milliseconds;
            if (failures) {
                tell("retry", wait);
            }
            timer = setTimeout(turn, wait);
        }
    };
    signal.addEventListener("abort", () => clearTimeout(timer));
    return turn();
}
