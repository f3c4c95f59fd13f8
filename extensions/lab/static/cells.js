// Cells show where they run: a coloured edge, and above the cell a badge for each member with the state of the cell
// there. Both follow the text as it is typed and the kernel's news as they come.

import { make, paint, perFrame, seconds } from "./dom.js";
import { members, parse } from "./magic.js";
import { look } from "./palette.js";

const ACTIVE = new Set(["waiting", "pending", "running"]);
const FIRST = 400; // characters of a cell that can hold its magic line: longer ones are looked at in full

// The state of a cell in a few words. `passed`: seconds since the news came; `invented`: it runs on invented rows, here.
export function summary(places, passed, invented = false) {
  const shown = inWords(places, passed);
  return invented ? { ...shown, text: `dry run on invented rows: ${shown.text}` } : shown;
}

function inWords(places, passed) {
  const where = (state) => places.filter((place) => place.state === state).map((place) => place.member);
  const names = (list) => list.join(", ");
  const longest = Math.max(0, ...places.map((place) => place.seconds + (ACTIVE.has(place.state) ? passed : 0)));
  const time = seconds(longest);
  const active = places.filter((place) => ACTIVE.has(place.state));
  if (where("refused").length) return { state: "refused", text: `refused by ${names(where("refused"))}`, time: "" };
  if (where("pending").length) return { state: "pending", text: `pending approval at ${names(where("pending"))}`, time };
  if (active.length) {
    const running = where("running");
    if (!running.length) return { state: "queued", text: "queued", time };
    const count = places.length > 1 ? ` on ${active.length} of ${places.length}` : "";
    return { state: "running", text: `running${count}`, time };
  }
  for (const [state, words] of [["died", "no kernel any more at"], ["error", "failed at"], ["interrupted", "interrupted at"]]) {
    if (where(state).length) return { state, text: `${words} ${names(where(state))}`, time };
  }
  return { state: "ok", text: "done in", time };
}

// Marks the cells of one notebook.
export class CellMarks {
  constructor(panel, link) {
    this._panel = panel;
    this._link = link;
    this._marks = new Map(); // cell widget -> its mark
    this.written = []; // names in magics, when cells came or went last
    this._timer = null;
    this._stopListening = link.listen((kind, news) => this._heard(kind, news));
    this._scan = () => this.scan();
    panel.content.modelContentChanged.connect(this._scan);
    this.scan();
  }

  dispose() {
    this._stopListening();
    clearInterval(this._timer);
    if (!this._panel.content.isDisposed) this._panel.content.modelContentChanged.disconnect(this._scan);
    for (const mark of this._marks.values()) mark.dispose();
    this._marks.clear();
  }

  // Look for cells that came or went.
  scan() {
    const cells = this._panel.content.widgets.filter((cell) => cell.model.type === "code");
    if (cells.length === this._marks.size && cells.every((cell) => this._marks.has(cell))) return;
    const present = new Set(cells);
    for (const [cell, mark] of this._marks) {
      if (!present.has(cell)) { mark.dispose(); this._marks.delete(cell); }
    }
    for (const cell of cells) {
      if (!this._marks.has(cell)) this._marks.set(cell, new Mark(cell, this._link, this));
    }
    const before = this.written.join();
    this.written = [...new Set([...this._marks.values()].flatMap((mark) => mark.names))].sort();
    if (this.written.join() !== before) for (const mark of this._marks.values()) mark.draw();
  }

  // Whose names decide on colours: the federation's, else the last one's, else those in the notebook's own text.
  get parties() {
    const { connected, parties, remembered, coordinator } = this._link;
    if (connected) return parties;
    return remembered.length ? remembered : this.written.filter((name) => name !== coordinator && name !== "all");
  }

  queued(cell, yes) {
    const mark = this._marks.get(cell);
    if (!mark) return;
    mark.queued = yes;
    mark.draw();
    this._tick();
  }

  _heard(kind, news) {
    if (kind === "cell") {
      for (const [cell, mark] of this._marks) {
        if (cell.model.id === news.cell) { mark.queued = false; mark.draw(); }
      }
    } else if (kind === "federation" || kind === "lost") {
      for (const mark of this._marks.values()) {
        if (kind === "lost") mark.queued = false;
        mark.follow(true);
      }
    }
    this._tick();
  }

  // Seconds pass while a cell runs somewhere; else nothing does.
  _tick() {
    const active = () => [...this._marks.values()].filter((mark) => mark.active);
    if (!this._timer && active().length) {
      this._timer = setInterval(() => {
        const running = active();
        for (const mark of running) mark.time();
        if (!running.length) { clearInterval(this._timer); this._timer = null; }
      }, 1000);
    }
  }
}

class Mark {
  constructor(cell, link, notebook) {
    this._cell = cell;
    this._link = link;
    this._notebook = notebook;
    this._head = ""; // the magic's own text, as last seen
    this.names = [];
    this._strip = null;
    this.queued = false;
    this.active = false;
    this._gone = false;
    const later = perFrame(() => { if (!this._gone) this.follow(); });
    this._follow = (_, change) => { if (change.sourceChange) later(); };
    cell.model.sharedModel.changed.connect(this._follow);
    this.follow(true);
    if (cell.ready) cell.ready.then(() => this.draw()).catch(() => undefined);
  }

  dispose() {
    this._gone = true;
    if (!this._cell.isDisposed && this._cell.model) this._cell.model.sharedModel.changed.disconnect(this._follow);
    this._clear();
  }

  // Take the text in; what stands below the magic line costs nothing.
  follow(anyway = false) {
    const source = this._cell.model.sharedModel.getSource();
    const end = source.indexOf("\n", source.search(/\S/));
    const head = end < 0 || end > FIRST ? source : source.slice(0, end);
    if (head === this._head && !anyway) return;
    this._head = head;
    const magic = parse(head);
    this.names = magic ? members(magic, this._link.parties, this._link.coordinator) : this._attached(head);
    this.draw();
  }

  // In a notebook of one's own party, a cell without a magic runs there.
  _attached(head) {
    const attached = this._link.federation && this._link.federation.attached;
    return attached && head.trim() && !/^\s*%fed\b/.test(head) ? [attached] : [];
  }

  _looks() {
    return this.names.map((name) => look(name, this._notebook.parties, this._link.coordinator));
  }

  draw() {
    const node = this._cell.node;
    if (!this.names.length) return this._clear();
    const looks = this._looks();
    const bands = looks.map((each, i) => `${each.fill} ${i * 14}px ${(i + 1) * 14}px`).join(", ");
    node.classList.add("fednb-lab-cell");
    node.dataset.fednbMembers = this.names.join(",");
    node.style.setProperty("--fednb-lab-edge", `repeating-linear-gradient(180deg, ${bands})`);
    const input = node.querySelector(":scope > .jp-Cell-inputWrapper");
    if (!input) return; // not drawn yet: the cell is outside the view
    if (!this._strip || this._strip.parentNode !== node) {
      this._clearStrip();
      this._strip = make("div", { class: "strip", role: "group" });
      this._words = make("span", { class: "words", role: "status" });
      this._time = make("span", { class: "time", "aria-hidden": "true" });
      node.insertBefore(this._strip, input);
    }
    const unknown = (name) => this._link.connected && !this._known(name);
    this._strip.setAttribute("aria-label", `Runs at ${this.names.join(", ")}`);
    const badges = this.names.map((name, i) =>
      paint(make("span", { class: "badge", title: unknown(name) ? "No member of this federation" : undefined },
        make("span", { class: "mark", text: looks[i].mark, "aria-hidden": "true" }),
        make("span", { class: "name", text: unknown(name) ? `${name} (not known)` : name })), looks[i]));
    this._strip.replaceChildren(...badges, this._words, this._time);
    this.time();
  }

  _known(name) { return name === this._link.coordinator || this._link.parties.includes(name); }

  // The state and its seconds.
  time() {
    if (!this._strip) return;
    const news = this._link.cells.get(this._cell.model.id);
    const same = news && news.places.length === this.names.length
      && news.places.every((place) => this.names.includes(place.member));
    let shown = { state: "", text: "", time: "" };
    if (this.queued) shown = { state: "queued", text: "queued", time: "" };
    else if (same) shown = summary(news.places, (performance.now() - news.at) / 1000, news.invented);
    this.active = ["queued", "running", "pending"].includes(shown.state);
    this._strip.dataset.state = shown.state;
    this._strip.toggleAttribute("data-invented", Boolean(same && news.invented && !this.queued));
    const reasons = same ? news.places.filter((place) => place.reason).map((place) => `${place.member}: ${place.reason}`) : [];
    this._words.title = reasons.join("\n");
    if (this._words.textContent !== shown.text) this._words.textContent = shown.text;
    this._time.textContent = shown.time;
  }

  _clearStrip() {
    if (this._strip) this._strip.remove();
    this._strip = null;
    this.active = false;
  }

  _clear() {
    this._clearStrip();
    const node = this._cell.node;
    node.classList.remove("fednb-lab-cell");
    node.style.removeProperty("--fednb-lab-edge");
    delete node.dataset.fednbMembers;
  }
}
