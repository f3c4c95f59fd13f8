// A run in a panel of its own: the very widget that stands under a cell, fed from the link instead of a comm of its own.

import { default as widget } from "./training.js";
import { make } from "./dom.js";

// What the widget knows as its model: two values, their changes, and one message.
class Model {
  constructor(cancel) {
    this._values = { snapshot: {}, note: "" };
    this._listeners = new Map();
    this._cancel = cancel;
  }

  get(name) { return this._values[name]; }
  set(name, value) {
    this._values[name] = value;
    for (const listener of this._listeners.get(`change:${name}`) || []) listener();
  }
  on(event, listener) { this._listeners.set(event, [...(this._listeners.get(event) || []), listener]); }
  off(event, listener) { this._listeners.set(event, (this._listeners.get(event) || []).filter((each) => each !== listener)); }
  send(message) {
    if (message.kind !== "cancel") return;
    this.set("note", "cancelling");
    this._cancel();
  }
}

// Draws the run into `node` until what is returned is called.
export function drawRun(node, link, run) {
  const waiting = make("p", { text: "Waiting for news of this run." });
  const model = new Model(() => link.ask("cancel", { run }));
  const place = make("div");
  node.replaceChildren(waiting, place);
  let clean = null;
  const update = () => {
    const news = link.progress.get(run);
    if (!news) return;
    if (!clean) {
      waiting.remove();
      clean = widget.render({ model, el: place });
    }
    model.set("snapshot", news.progress);
    if (news.over) model.set("note", news.progress.state === "ok" ? "done" : news.progress.state);
  };
  const stop = link.listen((kind, news) => { if (kind === "run" && news.run === run) update(); });
  update();
  if (!link.progress.has(run)) link.ask("look", { run });
  return () => {
    stop();
    if (clean) clean();
  };
}
