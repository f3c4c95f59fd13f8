// The parts of the sidebar, each made from what a link knows. Everything is text.

import { bytes, make, paint, seconds } from "./dom.js";
import { look } from "./palette.js";

const RUNNING = "running";

function name(link, member) {
  const shown = look(member, link.connected ? link.parties : link.remembered, link.coordinator);
  return paint(make("span", { class: "badge" },
    make("span", { class: "mark", text: shown.mark, "aria-hidden": "true" }), make("span", { text: member })), shown);
}

export function table(heads, rows, numbers = []) {
  const cell = (tag, text, i) => make(tag, { class: numbers.includes(i) ? "number" : undefined, text });
  return make("table", {},
    make("thead", {}, make("tr", {}, ...heads.map((text, i) => cell("th", text, i)))),
    make("tbody", {}, ...rows.map((row) => make("tr", {}, ...row.map((text, i) => cell("td", text, i))))));
}

// A part that unfolds, and stays as it was when it is drawn anew.
function folded(open, key, head, ...body) {
  const details = make("details", { open: open.has(key), "data-key": key },
    make("summary", { "data-key": `${key}/summary` }, ...[head].flat()), ...body);
  details.addEventListener("toggle", () => (details.open ? open.add(key) : open.delete(key)));
  return details;
}

export function members(link) {
  const shown = link.federation.members.filter((member) => member.kind !== "hub");
  const { advice } = link.federation;
  return make("div", {}, advice && make("div", { class: "bad", role: "alert", text: advice }),
    make("ul", {}, ...shown.map((member) => make("li", { "data-member": member.name },
    make("div", { class: "line" },
      member.kind === "analyst" ? make("span", { text: member.name }) : name(link, member.name),
      make("span", { class: "end", text: member.up ? "up" : "down", "data-up": String(member.up) })),
    make("div", { class: "muted", text: [
      member.name === link.federation.me.split("#")[0] ? `${member.kind}, you` : member.kind,
      member.mode && `mode ${member.mode}`,
      member.version && `fednb ${member.version}`,
      member.up && member.ms !== null && `${member.ms < 10 ? member.ms : Math.round(member.ms)}\u00a0ms`,
    ].filter(Boolean).join(" · ") }),
    member.why && make("div", { class: "bad", text: member.why })))));
}

export function tables(link, open) {
  if (!link.tables.length) return make("div", { class: "muted", text: "No party has told of tables yet." });
  return make("ul", {}, ...link.tables.map((each) => make("li", {},
    folded(open, `table/${each.member}/${each.name}`,
      [name(link, each.member), make("span", { text: ` ${each.name}` }),
        make("span", { class: "muted", text: ` ${each.rows.toLocaleString("en")} rows` })],
      table(["column", "type", "role"], each.columns.map((column) => [column.name, column.dtype, column.role])),
      each.more > 0 && make("div", { class: "muted", text: `and ${each.more} more columns` })))));
}

export function runs(link, open, { show, cancel }) {
  if (!link.runs.length) return make("div", { class: "muted", text: "No runs yet." });
  return make("ul", {}, ...link.runs.map((run) => {
    const news = link.progress.get(run.run);
    const going = run.status === RUNNING;
    const progress = going && news && !news.over ? news.progress : null;
    return make("li", { "data-run": run.run, "data-status": run.status },
      make("div", { class: "line" },
        make("button", { class: "link", type: "button", text: run.title, "data-key": `run/${run.run}`,
          title: "Open this run beside the notebook", onclick: () => show(run.run, run.title) }),
        make("span", { class: "end", text: run.status === "ok" ? seconds(run.seconds) : run.status })),
      progress && make("progress", { max: 1, value: progress.done === null ? undefined : progress.done,
        "aria-label": `Progress of ${run.title}` }),
      make("div", { class: "muted", text: progress ? progress.figures.join(" · ") : [
        new Date(run.started * 1000).toLocaleTimeString(), run.members.join(", "),
        run.bytes > 0 && bytes(run.bytes),
        run.estimate !== null && `expected ${seconds(run.estimate)}`,
        !run.mine && `by ${run.by}`].filter(Boolean).join(" · ") }),
      run.error && make("div", { class: run.status === "failed" ? "bad" : "muted", text: run.error }),
      going && run.mine && make("div", { class: "actions" },
        make("button", { class: "button", type: "button", text: "Cancel", "data-key": `cancel/${run.run}`,
          "aria-label": `Cancel ${run.title}`, onclick: () => cancel(run.run) })));
  }));
}

export function alignments(link, open) {
  const found = link.runs.filter((run) => run.overlap);
  if (!found.length) return make("div", { class: "muted", text: "No tables have been aligned yet." });
  return make("ul", {}, ...found.map((run) => {
    const { matched, ids, duplicates, notes } = run.overlap;
    const share = (count) => (count ? `${((100 * matched) / count).toFixed(1)} %` : "");
    const count = (value) => Number(value).toLocaleString("en");
    return make("li", {}, folded(open, `alignment/${run.run}`,
      [make("span", { text: `${count(matched)} ids in common` }), make("span", { class: "muted", text: ` ${run.title}` })],
      table(["party", "ids", "found", "twice"],
        Object.keys(ids).map((party) => [party, count(ids[party]), share(ids[party]), count(duplicates[party] || 0)]), [1, 2, 3]),
      ...notes.map((note) => make("div", { class: "muted", text: note }))));
  }));
}

// What left members for the selected cell, and for the runs that it began.
export function receipts(link, cell) {
  const news = cell && link.cells.get(cell);
  const lines = news ? [...news.receipts, ...news.runs.flatMap((run) => {
    const known = link.progress.get(run);
    return known ? known.receipts : [];
  })] : [];
  if (!lines.length) {
    return make("div", { class: "muted", text: news ? "Nothing has left a member yet." : "The selected cell has run at no member." });
  }
  return make("div", {}, table(["from → to", "what", "count", "size"],
    lines.map((line) => [line.to ? `${line.member} → ${line.to}` : line.member, line.what, line.messages, bytes(line.bytes)]), [2, 3]),
  ...[...new Set(lines.map((line) => `${line.member}: ${line.rule}${line.entry === null ? "" : `; audit log, entry ${line.entry}`}`))]
    .map((text) => make("div", { class: "muted", text })));
}
