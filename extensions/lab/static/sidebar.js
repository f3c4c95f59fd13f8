// The sidebar "Federation": what the current notebook's kernel tells, section by section. A section is drawn anew only
// when what it shows has changed; what was unfolded stays so, and the keyboard's focus stays where it was.

import { make, perFrame } from "./dom.js";
import { InboxView } from "./inbox.js";
import { alignments, members, receipts, runs, tables } from "./sections.js";

const SECTIONS = {
  members: { title: "Members", draw: (link) => members(link), of: (link) => [link.federation] },
  tables: { title: "Tables", draw: (link, open) => tables(link, open), of: (link) => [link.tables, link.parties] },
  runs: {
    title: "Runs",
    draw: (link, open, actions) => runs(link, open, actions),
    of: (link) => [link.runs, link.runs.map((run) => run.status === "running" && link.progress.get(run.run))],
  },
  alignments: { title: "Alignments", draw: (link, open) => alignments(link, open), of: (link) => [link.runs.filter((run) => run.overlap)] },
  receipts: {
    title: "Receipts of the selected cell",
    draw: (link, open, actions, cell) => receipts(link, cell),
    of: (link, cell) => [cell, link.cells.get(cell), ((link.cells.get(cell) || {}).runs || []).map((run) => link.progress.get(run))],
  },
};

export class Sidebar {
  // `actions`: connect, demo, refresh, cancel(run), show(run, title), look(link, command)
  constructor(node, inboxes, actions) {
    this._node = node;
    this._actions = actions;
    this._open = new Set();
    this._link = null;
    this._name = "";
    this._cell = "";
    this._drawn = {};
    this.later = perFrame(() => this.draw()); // news come in bursts
    this._body = make("div", { class: "body" });
    this._where = make("div", { class: "muted" });
    this._note = make("div", { class: "muted", role: "status" });
    const inbox = make("div"); // first, and whatever notebook is in front: somebody waits
    this._inbox = new InboxView(inbox, inboxes, actions);
    node.replaceChildren(
      make("div", { class: "top" }, make("h2", { text: "Federation" }),
        make("button", { class: "link end", type: "button", text: "Refresh", onclick: () => actions.refresh() })),
      this._note, inbox, this._where, this._body);
    this._shape = null; // "nothing", "away" or "connected"
    this.draw();
  }

  // Show this notebook; null when there is none.
  follow(link, name) {
    if (this._stop) this._stop();
    this._link = link;
    this._name = name;
    this._shape = null;
    this._note.textContent = "";
    this._stop = link && link.listen((kind, news) => {
      if (kind === "note") this.say(news);
      this.later();
    });
    this.draw();
  }

  // An answer in words.
  say({ text, failed }) {
    this._note.textContent = text;
    this._note.classList.toggle("fednb-lab-bad", Boolean(failed));
  }

  select(cell) {
    this._cell = cell;
    const news = this._link && this._link.cells.get(cell);
    for (const run of news ? news.runs : []) {
      if (!this._link.progress.has(run)) this._link.ask("look", { run });
    }
    this.later();
  }

  draw() {
    this._keepingFocus(() => this._inbox.draw());
    const shape = !this._link ? "nothing" : this._link.connected ? "connected" : this._link.loaded ? "away" : "without";
    const advice = shape === "connected" ? "" : this._advice(shape);
    if (shape !== this._shape || advice !== this._said) this._keepingFocus(() => this._build(shape, advice));
    if (shape !== "connected") return;
    for (const [key, section] of Object.entries(SECTIONS)) {
      const state = JSON.stringify(section.of(this._link, this._cell));
      if (this._drawn[key] === state) continue;
      this._drawn[key] = state;
      this._keepingFocus(() => this._places[key].replaceChildren(
        section.draw(this._link, this._open, this._actions, this._cell)));
    }
  }

  _advice(shape) {
    if (shape === "nothing") return "Open a notebook to see its federation.";
    return (this._link.federation && this._link.federation.advice)
      || (shape === "away" ? "Run %fed connect in a cell." : "Its kernel has not loaded fednb: run %load_ext fednb and %fed connect.");
  }

  _build(shape, advice) {
    this._shape = shape;
    this._said = advice;
    this._drawn = {};
    this._where.textContent = this._link ? this._name : "";
    if (shape === "connected") {
      this._places = {};
      this._body.replaceChildren(...Object.entries(SECTIONS).map(([key, { title }]) => {
        this._places[key] = make("div");
        return make("section", { "aria-label": title, "data-section": key }, make("h3", { text: title }), this._places[key]);
      }));
      return;
    }
    this._body.replaceChildren(
      make("p", {}, make("strong", { text: "Not connected" })),
      make("p", { text: advice }),
      make("div", { class: "actions" },
        shape !== "nothing" && make("button", { class: "button", type: "button", text: "Connect", "data-key": "connect",
          onclick: () => this._actions.connect() }),
        make("button", { class: "button", type: "button", text: "Start the demo federation", "data-key": "demo",
          onclick: () => this._actions.demo() })));
  }

  _keepingFocus(work) {
    const focused = this._node.contains(document.activeElement) && document.activeElement.dataset.key;
    work();
    if (!focused || this._node.contains(document.activeElement)) return;
    const again = [...this._node.querySelectorAll("[data-key]")].find((each) => each.dataset.key === focused);
    if (again) again.focus({ preventScroll: true });
  }
}
