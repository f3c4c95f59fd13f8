// The cell's toolbar button: where the cell runs, and a menu to choose another place. It writes the magic's line.

import { make, perFrame } from "./dom.js";
import { members, parse, rewritten, withOption } from "./magic.js";
import { look } from "./palette.js";

// Where the cell runs, as the button says it.
function place(cell) {
  const magic = parse(cell.model.sharedModel.getSource());
  if (!magic) return "This kernel";
  return magic.kind === "coordinator" ? "coordinator" : magic.names.join(", ") || "party?";
}

export function move(cell, link, names) {
  const model = cell.model.sharedModel;
  const { start, end, text } = rewritten(model.getSource(), names, link.coordinator);
  model.updateSource(start, end, text);
}

// Open the menu of one cell at `anchor`.
export function choose(cell, link, anchor, { MenuSvg, CommandRegistry }) {
  const commands = new CommandRegistry();
  const menu = new MenuSvg({ commands });
  menu.addClass("fednb-lab-menu");
  menu.title.label = "Where this cell runs";
  const magic = parse(cell.model.sharedModel.getSource());
  const now = magic ? members(magic, link.parties, link.coordinator) : [];
  let count = 0;
  const item = (label, names, toggled) => {
    const id = `at-${count++}`;
    commands.addCommand(id, { label, isToggleable: true, isToggled: () => toggled, execute: () => move(cell, link, names) });
    menu.addItem({ command: id });
  };
  const marked = (name) => `${look(name, link.parties, link.coordinator).mark} ${name}`;
  item("This kernel", [], !now.length);
  for (const party of link.parties) item(marked(party), [party], now.join() === party);
  if (link.parties.length > 1) item("All parties", ["all"], Boolean(magic) && magic.names.join() === "all");
  item(marked(link.coordinator), [link.coordinator], now.join() === link.coordinator);
  const apart = now.filter((name) => link.parties.includes(name));
  if (apart.length && link.parties.length > 1) {
    menu.addItem({ type: "separator" });
    for (const party of link.parties.filter((each) => apart.join() !== each)) {
      const here = apart.includes(party);
      const names = here ? apart.filter((each) => each !== party) : [...apart, party];
      item(`Also at ${party}`, names, here);
    }
  }
  menu.aboutToClose.connect(() => setTimeout(() => menu.dispose(), 0)); // after the chosen command has run
  const box = anchor.getBoundingClientRect();
  menu.open(box.left, box.bottom);
}

// Whether every member that the cell names invents rows to try cells on.
export function canTry(cell, link) {
  const magic = parse(cell.model.sharedModel.getSource());
  if (!magic || magic.kind !== "party" || !link || !link.federation) return false;
  const names = members(magic, link.parties, link.coordinator);
  return names.length > 0 && names.every((name) => (link.federation.asks || []).includes(name));
}

// Run the cell on invented rows, in this notebook's kernel; its text stays as it is. What it says stands under it.
export async function dryRun(cell, panel, { OutputArea, Notification }) {
  const code = withOption(cell.model.sharedModel.getSource(), "--dry-run");
  cell.outputHidden = false;
  cell.model.trusted = true; // as with any cell that is run
  try {
    await OutputArea.execute(code, cell.outputArea, panel.sessionContext, { cellId: cell.model.id });
  } catch (error) {
    Notification.warning(`The dry run did not end: ${error.message}`, { autoClose: 8000 });
  }
}

// The toolbar's widget for a cell. `of(cell)` is its notebook: a panel and a link, or null.
export function pickerFactory(of, lumino) {
  const { Widget } = lumino;
  return (cell) => {
    const widget = new Widget();
    if (cell.model.type !== "code") {
      widget.hide();
      return widget;
    }
    const button = make("button", { class: "picker", type: "button", "aria-haspopup": "menu",
      title: "Choose where this cell runs", onclick: () => {
        const found = of(cell);
        if (found) choose(cell, found.link, button, lumino);
      } });
    const trial = make("button", { class: "picker", type: "button", text: "Dry run", hidden: true,
      title: "Run the cell here, on rows that the party invents: nothing of it is real", onclick: () => {
        const found = of(cell);
        if (found) dryRun(cell, found.panel, lumino);
      } });
    let listening = null, stop = () => undefined;
    const follow = () => {
      if (widget.isDisposed) return;
      const found = of(cell);
      if (found && found.link !== listening) {
        stop();
        listening = found.link;
        stop = listening.listen((kind) => { if (["federation", "lost"].includes(kind)) later(); });
      }
      trial.hidden = !canTry(cell, found && found.link);
      const text = `${place(cell)} ▾`;
      if (button.textContent === text) return;
      button.textContent = text;
      button.setAttribute("aria-label", `Runs at ${place(cell)}; choose another place`);
    };
    const shared = cell.model.sharedModel;
    const later = perFrame(follow);
    const changed = (_, change) => { if (change.sourceChange) later(); };
    shared.changed.connect(changed);
    widget.disposed.connect(() => { shared.changed.disconnect(changed); stop(); });
    widget.node.append(trial, button);
    follow();
    return widget;
  };
}
