// The audit report, in a panel of its own: what the logs of one's own members say and whether they are whole, and the
// receipts that came with this notebook's cells and runs.

import { bytes, make } from "./dom.js";
import { receipts, table } from "./sections.js";

// Draws into `node` until what is returned is called. `inboxes` knows which notebooks' kernels have opened a home.
export function drawReport(node, panel, link, inboxes) {
  const owners = () => [...new Set(inboxes.all.map((each) => each.link))];
  const stops = new Map();
  const heard = (kind) => { if (["cell", "run", "audit", "lost"].includes(kind)) draw(); };
  const follow = () => {
    for (const each of [link, ...owners()]) if (!stops.has(each)) stops.set(each, each.listen(heard));
    for (const each of owners()) each.ask("verify");
  };
  const draw = () => {
    const logs = new Map(owners().flatMap((each) => (each.audit ? each.audit.logs.map((log) => [log.home, { log, at: each.audit.checked }]) : [])));
    node.replaceChildren(
      make("div", { class: "top" }, make("h2", { text: "Audit report" }),
        make("button", { class: "button end", type: "button", text: "Check again", onclick: follow })),
      ...(owners().length ? [...logs.values()].map(own) : [make("p", { class: "muted", text: "The audit log of a member is its owner's: "
        + "where you own one, open its home with %fed inbox HOME, and it is checked here." })]),
      ...(owners().length && !logs.size ? [make("p", { role: "status", text: "Checking." })] : []),
      ...notebook(panel, link));
  };
  follow();
  draw();
  return () => { for (const stop of stops.values()) stop(); };
}

// One's own member.
function own({ log, at }) {
  const count = (value) => value.toLocaleString("en");
  return make("section", { "aria-label": `Audit log of ${log.member}`, "data-log": log.member },
    make("h3", { text: `Audit log of ${log.member}` }),
    log.problems.length
      ? make("div", { role: "alert" }, make("p", { class: "bad", text: "This log does not verify. What it says cannot be relied on." }),
        make("ul", {}, ...log.problems.map((text) => make("li", { class: "bad", text }))))
      : make("p", { class: "good", role: "status", text: "The log verifies: nothing was edited, deleted, inserted or cut off." }),
    ...log.notes.map((text) => make("div", { text })),
    make("div", { class: "muted", text: `Checked at ${new Date(at * 1000).toLocaleString()} in ${log.home}.` }),
    make("div", { class: "muted", text: `Against a log that was written anew as a whole, hold it against the heads that other members keep: `
      + `fednb audit verify ${log.home} --witness FILE. fednb audit export ${log.home} makes a page of all of it.` }),
    make("h4", { text: "What has left" }),
    log.left.length ? table(["to", "what", "rule", "messages", "values", "size"],
      log.left.map((each) => [each.to, each.what, each.rule, count(each.messages), count(each.values), bytes(each.bytes)]), [3, 4, 5])
      : make("div", { class: "muted", text: "Nothing." }));
}

// What came with this notebook's cells and runs, whoever holds the logs.
function notebook(panel, link) {
  const cells = panel.content.widgets.filter((cell) => link.cells.has(cell.model.id));
  for (const cell of cells) {
    for (const run of link.cells.get(cell.model.id).runs) if (!link.progress.has(run)) link.ask("look", { run });
  }
  const first = (cell) => cell.model.sharedModel.getSource().trim().split("\n").slice(0, 3).join("\n");
  return [
    make("h3", { text: `Receipts of ${panel.title.label}` }),
    make("p", { class: "muted", text: "What members say has left them for each cell and run since the kernel started, and where that stands in "
      + "their logs." }),
    ...cells.map((cell) => make("section", {}, make("pre", { text: first(cell) }), receipts(link, cell.model.id))),
    !cells.length && make("p", { text: "No cell of this notebook has run at a member yet." }),
  ].filter(Boolean);
}
