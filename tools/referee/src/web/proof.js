// The packets that prove an incident: the ladder, the plot, and how to have them in Wireshark.

import { maybe, query } from "./api.js";
import { command, el, show } from "./dom.js";
import { ladder } from "./ladder-view.js";
import { sequence } from "./sequence-view.js";
import { count, endpoint, plural, whose } from "./words.js";

export async function packets(place, incident, wanted, signal) {
    const answer = await maybe(
        `incidents/${encodeURIComponent(incident.id)}/packets${query({ flow: wanted })}`,
        signal,
    );
    if (!answer || !answer.packets?.length) {
        show(place, keepsPackets(incident) ? panel(missing(incident, Date.now())) : null);
        return;
    }
    const flow = answer.flows.find((one) => one.flow_id === answer.flow_id);
    const ends = endsOf(answer);
    const choose = (id) => (location.hash = `#/incident/${incident.id}${query({ flow: id })}`);
    const kept = answer.cut
        ? `${count(answer.packets.length)} of ${count(answer.total ?? flow?.packets)} packets`
        : plural(answer.packets.length, "packet");
    const tcp = answer.packets.some((p) => p.class === "tcp");
    show(
        place,
        el(
            "section",
            { class: "panel" },
            el("div", { class: "titlerow" }, el("h2", null, "What happened on the wire"), picker(answer, choose)),
            el(
                "p",
                { class: "muted small" },
                `${kept}, times in seconds since the first${answer.cut ? "; all of them are in the download" : ""}.`,
            ),
            ladder(answer.packets, ends, [answer.tap].flat().join(", "), signal),
        ),
        tcp
            ? el(
                  "section",
                  { class: "panel" },
                  el("h2", null, "Time and sequence"),
                  sequence(answer.packets, ends, signal),
              )
            : null,
    );
}

// Some are to be there: flows were recorded for it, and nothing says that they are gone.
const keepsPackets = (incident) =>
    (incident.flow_ids ?? []).length > 0 && (incident.captured !== false || incident.state === "open");

const panel = (...words) =>
    el("section", { class: "panel" }, el("h2", null, "Packets"), el("p", { class: "muted" }, ...words));

// Within so many milliseconds of the verdict they are on the disk, if ever.
const SOON = 60_000;

// Why there are no packets, `now` being the time in milliseconds.
export function missing(incident, now) {
    const open = incident.state === "open";
    const flows = (incident.flow_ids ?? []).length > 0;
    if (!flows) {
        const whole = `This is about a ${whose(incident)} as a whole`;
        return open
            ? `${whole}: where its rule keeps packets, they are of flows that show it from the verdict on. None is kept so far.`
            : `${whole}: no single flow was recorded for it.`;
    }
    return open && now - incident.first_ns / 1e6 < SOON
        ? "None have been written yet; they come within seconds of the verdict, where its rule keeps packets."
        : "Nothing of its flows is kept: its rule asks for no packets, the store’s limit may have been reached, or the box was too busy to keep them (see the books).";
}

function endsOf(answer) {
    const { flow } = answer;
    return flow
        ? { client: endpoint(flow.src, flow.sport), server: endpoint(flow.dst, flow.dport) }
        : { client: "client", server: "server" };
}

function picker(answer, choose) {
    if (answer.flows.length < 2) {
        return null;
    }
    const words = (one) =>
        `${one.flow ? `${endpoint(one.flow.src, one.flow.sport)} → ${endpoint(one.flow.dst, one.flow.dport)}` : one.flow_id} (${count(one.packets)})`;
    return el(
        "label",
        { class: "picker" },
        el("span", { class: "offscreen" }, "Flow"),
        el(
            "select",
            { id: "flow", onchange: (event) => choose(event.target.value) },
            answer.flows.map((one) =>
                el("option", { value: one.flow_id, selected: one.flow_id === answer.flow_id ? "" : null }, words(one)),
            ),
        ),
    );
}

// With the store's folder as the server wrote it. The store knows an incident once it has closed, its flows before.
function proofCommand(incident, flow) {
    const told = incident.proof ?? `referee captures get --incident ${incident.id} -w - | wireshark -k -i -`;
    const whole = told.includes("-w -") ? told : `${told.replace(/ -w \S+$/, "")} -w - | wireshark -k -i -`;
    return flow ? whole.replace(/--incident \S+/, `--flow ${flow}`) : whole;
}

export function wireshark(incident, flow) {
    const flows = incident.flow_ids ?? [];
    const open = incident.state === "open";
    if (!keepsPackets(incident)) {
        return none(incident);
    }
    const shown = open ? (flow ?? flows[0]) : null;
    const whole = incident.capture ?? `/api/v1/captures/download${query({ incident: incident.id })}`;
    const href = shown ? `/api/v1/captures/download${query({ flow: shown })}` : whole;
    const label = shown ? "Download this flow’s packets" : "Download the packets";
    return el(
        "section",
        { class: "panel" },
        el("h2", null, "Open in Wireshark"),
        el(
            "p",
            null,
            el("a", { class: "button primary", href, download: `${shown ?? incident.id}.pcapng` }, label),
            " ",
            el("span", { class: "muted small" }, "pcapng"),
        ),
        shown && flows.length > 1
            ? el("p", { class: "muted" }, "Those of all its flows together can be had once it has closed.")
            : null,
        el("p", { class: "muted" }, "Or on the box, straight into Wireshark:"),
        command(proofCommand(incident, shown)),
        el(
            "p",
            { class: "muted small" },
            "Wireshark’s own list of interfaces has this incident too, where Referee’s package or ",
            el("code", null, "referee extcap install"),
            " has put it there.",
        ),
    );
}

function none(incident) {
    const host = incident.scope === "flow" ? null : (incident.subject?.host ?? incident.subject?.dst);
    const kept = host ? [" See ", el("a", { href: `#/captures${query({ host })}` }, "what is kept of its flows"), "."] : [];
    return panel(missing(incident, Date.now()), ...kept);
}
