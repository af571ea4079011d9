// Why there are no packets of an incident. `node --test tools/referee/src/web/test`.

import assert from "node:assert/strict";
import { test } from "node:test";

import { missing } from "../proof.js";

const service = { state: "open", scope: "service", subject: { dst: "10.0.0.1", dport: 80 }, first_ns: 0, flow_ids: [] };

test("packets are promised only where they may come", () => {
    assert.match(missing(service, 1000), /about a service as a whole: where its rule keeps packets/);
    assert.match(missing({ ...service, state: "closed" }, 1000), /no single flow was recorded/);
    const flow = { ...service, scope: "flow", flow_ids: ["1"] };
    assert.match(missing(flow, 5000), /come within seconds/);
    assert.match(missing(flow, 90_000), /its rule asks for no packets/);
});
