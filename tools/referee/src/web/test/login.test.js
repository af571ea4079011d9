// Signing in by a link, whether the page is loaded by it or is there already.

import assert from "node:assert/strict";
import { test } from "node:test";
import { readFileSync } from "node:fs";

import { link } from "../api.js";
import { redeem } from "../login.js";

function tab(hash) {
    const place = { hash, pathname: "/", search: "?still" };
    const past = { replaceState: (_, __, url) => (place.hash = url.slice(url.indexOf("#"))) };
    return { place, past };
}

test("a link signs in once and leads on", async () => {
    const { place, past } = tab("#code=abc&to=/incident/12");
    const asked = [];
    let told = 0;
    link.addEventListener("signedin", () => (told += 1), { once: true });
    await redeem(place, past, async (...what) => asked.push(what));
    assert.deepEqual(asked, [["POST", "session", { code: "abc" }]]);
    assert.deepEqual([place.hash, told], ["#/incident/12", 1]);
    await redeem(place, past, async () => assert.fail("no link any more"));
});

test("a code that is used up leads to the form, and is not tried again", async () => {
    const { place, past } = tab("#code=abc");
    await redeem(place, past, async () => {
        throw new Error("the code is not known");
    });
    assert.equal(place.hash, "#/login");
});

test("the page looks for a link whenever the address changes", () => {
    const app = readFileSync(new URL("../app.js", import.meta.url), "utf8");
    const arrive = app.match(/async function arrive\(\) \{([^}]*)\}/)?.[1] ?? "";
    assert.match(arrive, /await login\.redeem\(\);\s*await open\(\);/);
    assert.match(app, /addEventListener\("hashchange", arrive\)/);
});
