// The owner's inbox in the sidebar: what an analyst asks for, how it differs from what was approved before, what it says
// on invented rows, and the decision. All of it came from an analyst, and all of it is text.

import { make } from "./dom.js";
import { key } from "./inboxes.js";

const ONCE = "1", WEEK = "7"; // times and days, unless the owner says otherwise

// Draws the inboxes into `node`, and keeps what the owner is typing.
export class InboxView {
  // `actions`: look(link, command) shows an inbox under a cell of its notebook
  constructor(node, inboxes, actions) {
    this._node = node;
    this._inboxes = inboxes;
    this._actions = actions;
    this._open = new Set();
    this._rows = new Map(); // request -> { state, node }: one that has not changed stays as it is, half-typed reason and all
    this._shape = "";
  }

  draw() {
    const all = this._inboxes.all;
    const shape = JSON.stringify(all.map(({ inbox }) => [inbox, inbox.requests.map((each) => this._state(inbox, each))]));
    if (shape === this._shape) return;
    this._shape = shape;
    const rows = new Map();
    const sections = all.map(({ link, inbox }) => make("section",
      { "aria-label": `Inbox of ${inbox.member}`, "data-section": "inbox", "data-home": inbox.home },
      make("h3", { text: inbox.requests.length ? `Inbox of ${inbox.member} (${inbox.requests.length})` : `Inbox of ${inbox.member}`,
        title: inbox.home }),
      inbox.wrong ? make("div", { class: "muted", text: inbox.wrong })
        : !inbox.requests.length && make("div", { class: "muted", text: "Nothing waits for you." }),
      make("ul", {}, ...inbox.requests.map((request) => {
        const id = key(inbox.home, request.id), state = this._state(inbox, request), before = this._rows.get(id);
        const row = before && before.state === state && before.link === link ? before
          : { state, link, node: this._row(link, inbox, request) };
        rows.set(id, row);
        return row.node;
      }))));
    this._rows = rows;
    this._node.replaceChildren(...sections);
  }

  _state(inbox, request) {
    const id = key(inbox.home, request.id);
    return JSON.stringify([request, this._inboxes.cases.get(id), this._inboxes.tried.get(id)]);
  }

  _row(link, inbox, request) {
    const id = key(inbox.home, request.id);
    const details = make("details", { open: this._open.has(id), "data-key": id },
      make("summary", { "data-key": `${id}/summary` }, make("strong", { text: request.analyst }),
        make("span", { text: ` ${request.reason}` }),
        make("span", { class: "muted", text: ` ${new Date(request.asked * 1000).toLocaleString()}` })));
    const about = { home: inbox.home, request: request.id };
    const look = () => { if (!this._inboxes.cases.has(id)) link.ask("open", about); };
    details.addEventListener("toggle", () => {
      if (details.open) { this._open.add(id); look(); } else this._open.delete(id);
    });
    const known = this._inboxes.cases.get(id);
    details.append(...(known ? read(known) : [make("div", { class: "muted", text: "Reading it." })]));
    if (request.state === "pending") {
      if (known) details.append(...this._decision(link, about, id, request));
    } else {
      details.append(make("div", { text: "It has run. What it said may be data, so it is not shown here: look at it, and release it, in "
        + "the inbox under a cell." }), make("div", { class: "actions" }, make("button", { class: "button", type: "button",
        text: "Look at what it said", "data-key": `${id}/look`, onclick: () => this._actions.look(link, inbox.command) })));
    }
    return make("li", { "data-request": request.id, "data-state": request.state }, details);
  }

  _decision(link, about, id, request) {
    const tried = this._inboxes.tried.get(id);
    const label = (text, field) => make("label", { class: "muted" }, make("span", { text: `${text} ` }), field);
    const number = (name, value, max) => make("input", { type: "number", min: 1, max, value, "data-key": `${id}/${name}` });
    const times = number("times", ONCE, 1000), days = number("days", WEEK, 366);
    const why = make("input", { type: "text", maxlength: 4000, placeholder: "Why; the analyst is told",
      "aria-label": `Why ${request.analyst}'s cell is denied`, "data-key": `${id}/why` });
    const missing = make("div", { class: "bad", role: "alert" });
    const button = (text, name, onclick) => make("button", { class: "button", type: "button", text, "data-key": `${id}/${name}`,
      "aria-label": `${text}: ${request.reason}, asked by ${request.analyst}`, onclick });
    const whole = (field, max) => Number.isInteger(field.valueAsNumber) && field.valueAsNumber >= 1 && field.valueAsNumber <= max;
    return [
      make("div", { class: "actions" },
        button("Approve", "approve", () => {
          missing.textContent = whole(times, 1000) && whole(days, 366) ? "" : "Approve it for 1 to 1000 times and 1 to 366 days.";
          if (!missing.textContent) link.ask("approve", { ...about, uses: times.valueAsNumber, days: days.valueAsNumber });
        }), label("times", times), label("days", days)),
      make("div", { class: "actions" }, why, button("Deny", "deny", () => {
        missing.textContent = why.value.trim() ? "" : "Say why: the analyst is told.";
        if (missing.textContent) why.focus();
        else link.ask("deny", { ...about, why: why.value });
      })),
      missing,
      make("div", { class: "actions" }, button("Dry run", "try", () => link.ask("try", about)),
        make("span", { class: "muted", text: "in the sandbox, on invented rows" })),
      // last: what comes later must not move a button away from under the mouse
      tried && make("div", { class: "mock", role: "status" },
        make("strong", { text: tried.over ? "On invented rows, none of them real:" : "Running on invented rows." }),
        tried.over && make("pre", { class: tried.failed ? "bad" : undefined, text: tried.text, tabindex: 0,
          "aria-label": "What it says on invented rows" })),
    ].filter(Boolean);
  }
}

// The request itself: what stands in it, then all of its text, then what is new in it.
function read(known) {
  const line = (title, words, kind) => make("div", { class: words.length ? kind : "muted", text: `${title}: ${words.join(", ") || "none"}` });
  const code = make("pre", { class: "code", tabindex: 0, "aria-label": "The cell" },
    ...known.code.replace(/\n$/, "").split("\n").map((text) => make("span", { class: "codeline", text: `${text}\n` })));
  const signs = { "+": "added", "-": "removed" };
  return [
    code,
    line("Imports", known.imports), line("Tables", known.tables), line("Texts in brackets", known.columns),
    line("Says", known.outputs), line("Look at", known.attention, "bad"),
    known.before && !known.difference.length && make("div", { class: "muted", text: `The same text as ${known.before}, approved before.` }),
    !known.before && make("div", { class: "muted", text: "Nothing of this analyst's was approved before." }),
    known.before && known.difference.length > 0 && make("div", { text: `Difference to ${known.before}, approved before:` }),
    known.before && known.difference.length > 0 && make("pre", { class: "code", tabindex: 0, "aria-label": "Difference" },
      ...known.difference.map((text) => make("span", { class: signs[text[0]] || "same", text: `${text}\n` }))),
  ].filter(Boolean);
}
