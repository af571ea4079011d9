// A browser without a screen, driven through a pipe: goes to places, presses keys, takes pictures, hears what goes wrong.

import { spawn } from "node:child_process";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";

const FLAGS = [
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--hide-scrollbars",
    "--ignore-certificate-errors",
    "--remote-debugging-pipe",
];
const PATIENCE_MS = 30000;

const sleep = (ms) => new Promise((done) => setTimeout(done, ms));

export class Browser {
    static async start() {
        const browser = new Browser();
        browser.profile = mkdtempSync(join(tmpdir(), "referee-browser-"));
        const program = process.env.CHROMIUM ?? "chromium";
        browser.child = spawn(program, [...FLAGS, `--user-data-dir=${browser.profile}`, "about:blank"], {
            stdio: ["ignore", "ignore", "ignore", "pipe", "pipe"],
        });
        browser.child.on("error", (error) => browser.fail(error));
        browser.child.on("exit", () => browser.fail(new Error(`${program} has ended`)));
        browser.waiting = new Map();
        browser.number = 0;
        browser.faults = [];
        browser.listen(browser.child.stdio[4]);
        const { targetInfos } = await browser.ask("Target.getTargets");
        const { targetId } = targetInfos.find((one) => one.type === "page");
        browser.session = (await browser.ask("Target.attachToTarget", { targetId, flatten: true })).sessionId;
        for (const domain of ["Page", "Runtime", "Log"]) {
            await browser.ask(`${domain}.enable`);
        }
        return browser;
    }

    fail(error) {
        this.waiting?.forEach(({ refuse }) => refuse(error));
        this.waiting?.clear();
    }

    listen(pipe) {
        let rest = "";
        pipe.setEncoding("utf8");
        pipe.on("data", (part) => {
            const messages = (rest + part).split("\0");
            rest = messages.pop();
            messages.forEach((text) => this.take(JSON.parse(text)));
        });
    }

    take(message) {
        const waiting = this.waiting.get(message.id);
        if (waiting) {
            this.waiting.delete(message.id);
            if (message.error) {
                waiting.refuse(new Error(`${waiting.method}: ${message.error.message}`));
            } else {
                waiting.done(message.result);
            }
        } else if (message.method === "Runtime.exceptionThrown") {
            const { exceptionDetails: what } = message.params;
            this.faults.push(what.exception?.description ?? what.text);
        } else if (
            message.method === "Runtime.consoleAPICalled" &&
            ["error", "warning", "assert"].includes(message.params.type)
        ) {
            this.faults.push(message.params.args.map((one) => one.value ?? one.description).join(" "));
        } else if (message.method === "Log.entryAdded") {
            const { level, source, text } = message.params.entry;
            // What isn't there in a store alone is asked for all the same, and the browser notes each such answer.
            if (level === "error" && source !== "network") {
                this.faults.push(text);
            }
        }
    }

    ask(method, params = {}) {
        const id = (this.number += 1);
        this.child.stdio[3].write(`${JSON.stringify({ id, method, params, sessionId: this.session })}\0`);
        return new Promise((done, refuse) => this.waiting.set(id, { done, refuse, method }));
    }

    async run(expression) {
        const { result, exceptionDetails } = await this.ask("Runtime.evaluate", {
            expression,
            returnByValue: true,
            awaitPromise: true,
        });
        if (exceptionDetails) {
            throw new Error(exceptionDetails.exception?.description ?? exceptionDetails.text);
        }
        return result.value;
    }

    // Waits until an expression holds; says whether it came to that.
    async until(expression) {
        const end = Date.now() + PATIENCE_MS;
        while (Date.now() < end) {
            if (await this.run(`Boolean(${expression})`).catch(() => false)) {
                return true;
            }
            await sleep(50);
        }
        return false;
    }

    size(width, height) {
        return this.ask("Emulation.setDeviceMetricsOverride", {
            width,
            height,
            deviceScaleFactor: 1,
            mobile: width < 500,
        });
    }

    // A page in full, once nothing is loading any more.
    async go(url) {
        this.faults = [];
        await this.ask("Page.navigate", { url: "about:blank" });
        // A page that asks before it is left is not gone at once, and the next would wait for it for ever.
        await this.until("location.href === 'about:blank'");
        await this.ask("Page.navigate", { url });
        return this.settled();
    }

    async settled() {
        const there = await this.until(
            "document.readyState === 'complete' && document.querySelector('main') && !document.querySelector('.loading')",
        );
        await this.run("new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))");
        return there;
    }

    async press(key) {
        const code = { Enter: 13, ArrowDown: 40, ArrowUp: 38, Tab: 9 }[key] ?? key.charCodeAt(0);
        const text = key === "Enter" ? "\r" : key.length === 1 ? key : undefined;
        await this.ask("Input.dispatchKeyEvent", {
            type: text ? "keyDown" : "rawKeyDown",
            key,
            windowsVirtualKeyCode: code,
            text,
        });
        await this.ask("Input.dispatchKeyEvent", { type: "keyUp", key, windowsVirtualKeyCode: code });
    }

    async picture(path) {
        await this.run("scrollTo(0, 0)");
        const { cssContentSize } = await this.ask("Page.getLayoutMetrics");
        const clip = {
            x: 0,
            y: 0,
            width: cssContentSize.width,
            height: Math.min(cssContentSize.height, 6000),
            scale: 1,
        };
        const { data } = await this.ask("Page.captureScreenshot", { captureBeyondViewport: true, clip });
        writeFileSync(path, Buffer.from(data, "base64"));
    }

    stop() {
        this.child.removeAllListeners("exit");
        this.child.kill();
        return new Promise((done) => this.child.on("exit", done)).then(() =>
            rmSync(this.profile, { recursive: true, force: true }),
        );
    }
}
