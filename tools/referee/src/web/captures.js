// What packets are kept, and asking for more of them.

import { get, maybe, operates, query, repeat, send } from "./api.js";
import { REASONS } from "./books.js";
import { el, field, show } from "./dom.js";
import { bytes, count, endpoint, plural, span, when } from "./words.js";

const PAGE = 25;

export async function enter({ main, at, box, signal }) {
    const asked = Object.fromEntries(
        ["host", "incident", "flow", "community_id", "since", "until"].map((name) => [
            name,
            at.options.get(name) ?? "",
        ]),
    );
    const list = el("div");
    const more = el("p");
    let seen = [];
    const load = async (after) => {
        const answer = await get(`captures${query({ ...asked, order: "newest", limit: PAGE, after })}`, signal);
        seen = after ? [...seen, ...answer.items] : answer.items;
        show(list, table(seen, asked));
        show(more, answer.next ? el("button", { type: "button", onclick: () => load(answer.next) }, "More") : null);
    };
    const demands = el("div");
    const mayOperate = await operates(signal);
    show(
        main,
        el("h1", null, "Captures"),
        box.version?.live ? demand(demands, mayOperate, signal) : null,
        el("h2", null, "Kept"),
        form(asked),
        list,
        more,
    );
    await load();
    if (box.version?.live) {
        await listDemands(demands, signal);
        repeat(3000, () => listDemands(demands, signal), signal);
    }
}

function form(asked) {
    const input = (name, label, hint) => field("of", name, label, { value: asked[name], hint });
    const node = el(
        "form",
        { class: "filter", role: "search" },
        input("host", "Host", "10.0.0.1"),
        input("incident", "Incident", "id"),
        input("flow", "Flow", "id, 16 digits"),
        input("community_id", "Community ID", "1:…"),
        input("since", "Since", "15m, or a time"),
        input("until", "Until", "1m"),
        el("button", { type: "submit" }, "Find"),
    );
    node.addEventListener("submit", (event) => {
        event.preventDefault();
        location.hash = `#/captures${query(Object.fromEntries(new FormData(node)))}`;
    });
    return node;
}

function table(flows, asked) {
    if (!flows.length) {
        return el(
            "p",
            { class: "none" },
            Object.values(asked).some(Boolean)
                ? "Nothing kept is like that."
                : "No packets are kept: nothing has happened that a rule records.",
        );
    }
    const whole = Object.values(asked).some(Boolean)
        ? el(
              "p",
              null,
              el(
                  "a",
                  { class: "button", href: `/api/v1/captures/download${query(asked)}`, download: "referee.pcapng" },
                  "Download all of these",
              ),
          )
        : null;
    const row = (one) =>
        el(
            "tr",
            null,
            el(
                "td",
                { "data-name": "Flow" },
                ...whose(one),
            ),
            el("td", { "data-name": "From" }, when(one.first_ns)),
            el("td", { "data-name": "Over", class: "number" }, span((one.last_ns - one.first_ns) / 1e9)),
            el("td", { "data-name": "Packets", class: "number" }, count(one.packets)),
            el("td", { "data-name": "Size", class: "number" }, bytes(one.bytes)),
            el(
                "td",
                { "data-name": "Incidents" },
                (one.incidents ?? [])
                    .slice(0, 3)
                    .map((id) => [el("a", { href: `#/incident/${id}?flow=${one.flow_id}` }, id.slice(0, 8)), " "]),
            ),
            el(
                "td",
                { "data-name": "" },
                el(
                    "a",
                    {
                        href: `/api/v1/captures/download${query({ flow: one.flow_id })}`,
                        download: `${one.flow_id}.pcapng`,
                    },
                    "Download",
                ),
            ),
        );
    return [
        whole,
        el(
            "div",
            { class: "scroll" },
            el(
                "table",
                { class: "flows cards-on-phone" },
                el(
                    "thead",
                    null,
                    el(
                        "tr",
                        null,
                        ["Flow", "From", "Over", "Packets", "Size", "Incidents", ""].map((name) =>
                            el(
                                "th",
                                { scope: "col", class: ["Over", "Packets", "Size"].includes(name) ? "number" : null },
                                name,
                            ),
                        ),
                    ),
                ),
                el("tbody", null, flows.map(row)),
            ),
        ),
    ];
}

// Two ends; of a capture on demand, what was asked for.
function whose(one) {
    const small = (words) => el("span", { class: "muted small" }, ` ${words}`);
    if (one.demand) {
        const { expression, flows } = one.demand;
        const many = flows === null ? "very many flows" : plural(flows, "flow");
        return [expression ? el("code", null, expression) : "all packets", small(`on demand, ${many}`)];
    }
    return one.flow
        ? [
              `${endpoint(one.flow.src, one.flow.sport)} → ${endpoint(one.flow.dst, one.flow.dport)}`,
              small(one.flow.proto),
              one.community_id ? el("span", { class: "muted small block" }, el("code", null, one.community_id)) : null,
          ]
        : ["?"];
}

function demand(place, mayOperate, signal) {
    const said = el("p", { class: "error", role: "alert" });
    const node = el(
        "form",
        { class: "filter" },
        field("demand", "expression", "Keep packets that match", { hint: "host 10.0.0.1 and port 443", required: true }),
        field("demand", "last_s", "Of the last (s)", { value: "30" }),
        field("demand", "for_s", "And the next (s)", { value: "60" }),
        el("button", { type: "submit", class: "primary", disabled: !mayOperate }, "Capture"),
        mayOperate ? null : el("p", { class: "muted small" }, "This token may only read."),
        said,
    );
    node.addEventListener("submit", async (event) => {
        event.preventDefault();
        said.textContent = "";
        const wanted = Object.fromEntries(new FormData(node));
        try {
            await send("POST", "captures/demands", {
                expression: wanted.expression,
                last_s: Number(wanted.last_s) || 0,
                for_s: Number(wanted.for_s) || 0,
            });
            await listDemands(place, signal);
        } catch (error) {
            said.textContent =
                error.status === 403
                    ? "This token may only read."
                    : [error.message, error.help].filter(Boolean).join(": ");
        }
    });
    return el(
        "section",
        { class: "panel" },
        el("h2", null, "Capture on demand"),
        el(
            "p",
            { class: "muted" },
            "Out of the packets that are still in memory, and from now on. An expression as tcpdump takes it.",
        ),
        node,
        place,
    );
}

async function listDemands(place, signal) {
    const answer = await maybe("captures/demands", signal);
    const row = (one) => {
        const over = one.state === "done" || one.ended;
        const end = async () => {
            await send("DELETE", `captures/demands/${encodeURIComponent(one.id)}`).catch(() => {});
            await listDemands(place, signal);
        };
        const told = [
            `${count(one.packets)} packets, ${bytes(one.bytes)}`,
            one.refused ? `${count(one.refused)} refused for want of room` : "",
            ...Object.entries(one.unwritten ?? {}).map(
                ([why, lost]) => `${count(lost)} not written: ${REASONS[why] ?? why}`,
            ),
            one.full ? "as much as it may have" : "",
            over ? "done" : "under way",
        ];
        return el(
            "li",
            { class: "demand" },
            el("code", null, one.expression),
            ` ${told.filter(Boolean).join(", ")} `,
            el(
                "a",
                {
                    href: one.capture ?? `/api/v1/captures/download${query({ flow: one.id })}`,
                    download: `${one.id}.pcapng`,
                },
                "Download",
            ),
            " ",
            over ? null : el("button", { type: "button", class: "quiet", onclick: end }, "End"),
        );
    };
    const items = answer?.items ?? [];
    show(place, items.length ? el("ul", { class: "lines" }, items.map(row)) : null);
}
