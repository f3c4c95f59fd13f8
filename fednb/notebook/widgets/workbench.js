// The workbench for bins: features on the left, best first; the chosen one's bins on the right, and its edges, which
// can be moved. The kernel sends one object, `snapshot`; a change goes back as a message, and the parties count anew.
// Whatever comes from another member is set as text or as a number, never as markup.

const SVG = "http://www.w3.org/2000/svg";
const WIDTH = 460, HEIGHT = 200, LEFT = 40, RIGHT = 40, TOP = 16, MIDDLE = 126, BOTTOM = 186;

function make(kind, className, text) {
  const element = document.createElement(kind);
  if (className) element.className = "fednb-bench-" + className;
  if (text !== undefined) element.textContent = text;
  return element;
}

function draw(kind, attributes, text) {
  const element = document.createElementNS(SVG, kind);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, String(value));
  if (text !== undefined) element.textContent = text;
  return element;
}

const percent = (share) => (100 * share).toFixed(1) + " %";
const called = (bin, k) => (bin.holds === "values" ? `bin ${k}` : bin.holds);

// Share of rows as bars, rate of positives as a line, weights of evidence as bars below.
function chart(feature) {
  const svg = draw("svg", { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, width: WIDTH, height: HEIGHT, role: "img" });
  const bins = feature.bins, step = (WIDTH - LEFT - RIGHT) / Math.max(1, bins.length);
  const most = Math.max(...bins.map((bin) => bin.share), 1e-9);
  const top = 1.25 * Math.max(...bins.map((bin) => bin.rate), 1e-9);
  const reach = Math.max(...bins.map((bin) => Math.abs(bin.woe)), 1e-9);
  const x = (k) => LEFT + step * (k + 0.5);
  const y = (rate) => MIDDLE - 12 - (MIDDLE - 12 - TOP) * rate / top;
  const zero = (MIDDLE + BOTTOM) / 2 + 6, half = (BOTTOM - MIDDLE) / 2 - 4;
  const words = bins.map((bin, k) => `${called(bin, k)}: ${percent(bin.share)} of rows, rate ${percent(bin.rate)}, ` +
    `weight ${bin.woe.toFixed(3)}`);
  svg.append(draw("title", {}, `${feature.name} by bin. ${words.join("; ")}`));
  svg.append(draw("text", { x: 2, y: 10, class: "fednb-bench-axis" }, "rate of positives (line), share of rows (bars)"));
  svg.append(draw("text", { x: 2, y: MIDDLE + 6, class: "fednb-bench-axis" }, "weight of evidence"));
  svg.append(draw("line", { x1: LEFT, x2: WIDTH - RIGHT, y1: zero, y2: zero, class: "fednb-bench-grid" }));
  bins.forEach((bin, k) => {
    const high = (MIDDLE - 12 - TOP) * bin.share / most, wide = 0.8 * step;
    svg.append(draw("rect", { x: x(k) - wide / 2, y: MIDDLE - 12 - high, width: wide, height: high,
      class: "fednb-bench-share", fill: feature.colour }));
    const long = half * Math.abs(bin.woe) / reach;
    svg.append(draw("rect", { x: x(k) - wide / 2, y: bin.woe >= 0 ? zero - long : zero, width: wide, height: long,
      class: bin.woe >= 0 ? "fednb-bench-good" : "fednb-bench-bad" }));
    if (bins.length <= 12) svg.append(draw("text", { x: x(k), y: HEIGHT - 2, "text-anchor": "middle",
      class: "fednb-bench-axis" }, bin.ordinary ? String(k) : bin.holds.slice(0, 9)));
  });
  const line = bins.map((bin, k) => [x(k), y(bin.rate), bin.ordinary]);
  const path = line.filter((point) => point[2]).map((point, i) => `${i ? "L" : "M"}${point[0]},${point[1]}`).join("");
  if (path) svg.append(draw("path", { d: path, class: "fednb-bench-rate" }));
  line.forEach(([cx, cy], k) => {
    svg.append(draw("circle", { cx, cy, r: 3, class: "fednb-bench-dot" }));
    if (bins.length <= 12) svg.append(draw("text", { x: cx, y: cy - 6, "text-anchor": "middle",
      class: "fednb-bench-axis" }, percent(bins[k].rate)));
  });
  return svg;
}

function table(feature) {
  const found = make("table", "table"), head = make("thead"), body = make("tbody"), row = make("tr");
  found.append(make("caption", "", `Bins of ${feature.name}`));
  for (const name of ["bin", "holds", "cells", "rows", "positives", "rate", "WOE", "IV"]) {
    const cell = make("th", "", name);
    cell.scope = "col";
    row.append(cell);
  }
  head.append(row);
  feature.bins.forEach((bin, k) => {
    const line = make("tr"), first = make("th", "", String(k));
    first.scope = "row";
    line.append(first);
    for (const text of [bin.holds, bin.cells, bin.rows, bin.positives, percent(bin.rate), bin.woe.toFixed(4),
      bin.iv.toFixed(4)]) line.append(make("td", "", String(text)));
    body.append(line);
  });
  found.append(head, body);
  return found;
}

function starts(feature) {
  const found = [];
  let cell = 0;
  for (const bin of feature.bins.filter((each) => each.ordinary)) {
    if (cell) found.push(cell);
    cell += bin.cells;
  }
  return { at: found, cells: cell };
}

function render({ model, el }) {
  const root = make("div", "root"), head = make("div", "head"), body = make("div", "body");
  const title = make("b", "title"), undo = make("button", "button", "Undo"), note = make("div", "note");
  const list = make("div", "list"), side = make("div", "side");
  undo.type = "button";
  undo.title = "Takes the last recount back; nothing is counted for that.";
  note.setAttribute("role", "status");
  note.setAttribute("aria-live", "polite");
  list.setAttribute("role", "listbox");
  list.setAttribute("aria-label", "Features, by information value");
  list.tabIndex = 0;
  head.append(title, undo);
  body.append(list, side);
  root.append(head, note, body);
  el.append(root);

  let chosen = "", drawn = "";  // the feature that is shown, and for which state its edges were drawn
  let edges = new Set();  // cells at which a bin shall begin
  const id = "fednb-bench-" + Math.random().toString(36).slice(2);

  const features = () => (model.get("snapshot") || {}).features || [];
  const feature = () => features().find((each) => each.name === chosen) || features()[0];
  const send = (message) => { if (!model.get("busy")) model.send(message); };
  const onUndo = () => send({ kind: "undo" });
  undo.addEventListener("click", onUndo);

  function choose(name, focus) {
    chosen = name;
    update();
    if (focus) list.focus();
  }

  list.addEventListener("keydown", (event) => {
    const all = features(), at = all.findIndex((each) => each.name === chosen);
    const to = { ArrowDown: at + 1, ArrowUp: at - 1, Home: 0, End: all.length - 1 }[event.key];
    if (to === undefined || !all[to]) return;
    event.preventDefault();
    event.stopPropagation();  // the notebook would go to another cell
    choose(all[to].name, true);
  });

  function options() {
    const all = features(), most = Math.max(...all.map((each) => each.iv), 1e-9);
    list.replaceChildren(...all.map((each, k) => {
      const option = make("div", "option"), bar = make("div", "bar"), name = make("span", "name");
      const mark = make("span", "mark", `${each.mark} `);
      mark.style.color = each.colour;
      name.append(mark, make("span", "", each.name));
      bar.style.width = `${Math.max(1, 60 * each.iv / most)}px`;
      bar.style.background = each.colour;
      option.id = `${id}-${k}`;
      option.setAttribute("role", "option");
      option.setAttribute("aria-selected", String(each.name === chosen));
      option.setAttribute("aria-label", `${each.name}, information value ${each.iv.toFixed(4)}` +
        (each.dropped ? `, left out: ${each.dropped}` : ""));
      option.dataset.dropped = String(Boolean(each.dropped));
      if (each.dropped) option.title = `left out: ${each.dropped}`;
      option.append(name, bar, make("span", "iv", each.iv.toFixed(4)));
      option.addEventListener("click", () => choose(each.name, true));
      if (each.name === chosen) list.setAttribute("aria-activedescendant", option.id);
      return option;
    }));
    const current = list.querySelector("[aria-selected=true]");
    if (current && current.scrollIntoView && document.activeElement === list) {
      current.scrollIntoView({ block: "nearest" });
    }
  }

  // The cells of the fit in a row; between two neighbours a switch: is there an edge?
  function strip(shown) {
    const now = starts(shown), box = make("div", "strip");
    box.setAttribute("role", "group");
    box.setAttribute("aria-label", `Edges between the cells of ${shown.name}`);
    const fill = (focus) => {
      box.replaceChildren();
      for (let cell = 0; cell < now.cells; cell++) {
        if (cell) {
          const edge = make("button", "edge", edges.has(cell) ? "|" : "·");
          edge.type = "button";
          edge.dataset.cell = String(cell);
          edge.setAttribute("role", "switch");
          edge.setAttribute("aria-checked", String(edges.has(cell)));
          edge.setAttribute("aria-label", `edge before cell ${cell}`);
          edge.title = "Click or press space: an edge here or none. Left and right move an edge.";
          edge.disabled = model.get("busy");
          edge.addEventListener("click", () => {
            if (!edges.delete(cell)) edges.add(cell);
            fill(cell);
          });
          edge.addEventListener("keydown", (event) => {
            const to = cell + ({ ArrowLeft: -1, ArrowRight: 1 }[event.key] || 0);
            if (to === cell || to < 1 || to >= now.cells) return;
            event.preventDefault();
            event.stopPropagation();
            if (edges.has(cell) && !edges.has(to)) {
              edges.delete(cell);
              edges.add(to);
            }
            fill(to);
          });
          box.append(edge);
        }
        box.append(make("span", "cell", String(cell)));
      }
      const moved = [...edges].sort((a, b) => a - b).join() !== now.at.join();
      recount.disabled = reset.disabled = !moved || model.get("busy");
      if (focus !== undefined) {
        const there = box.querySelector(`[data-cell="${focus}"]`);
        if (there) there.focus();
      }
    };
    const recount = make("button", "button", "Recount"), reset = make("button", "button", "Reset");
    recount.type = reset.type = "button";
    recount.title = "Every member counts the new bins, a passive party's under encryption.";
    recount.addEventListener("click", () =>
      send({ kind: "recut", feature: shown.name, cells: [...edges].sort((a, b) => a - b) }));
    reset.addEventListener("click", () => { edges = new Set(now.at); fill(); });
    fill();
    const row = make("div", "row");
    row.append(box, recount, reset);
    return row;
  }

  function values(shown) {
    const row = make("form", "row"), label = make("label", "label", "or cut at values "), input = make("input", "input");
    const cut = make("button", "button", "Cut and recount");
    input.type = "text";
    input.placeholder = "25, 40";
    input.value = shown.edges.join(", ");
    input.setAttribute("aria-label", `Values at which a new bin of ${shown.name} begins, with commas between them`);
    input.disabled = cut.disabled = model.get("busy");
    cut.type = "submit";
    row.addEventListener("submit", (event) => {
      event.preventDefault();
      const parts = input.value.split(/[\s,;]+/).filter((part) => part !== "");
      const numbers = parts.map(Number);
      const wrong = !numbers.length || numbers.some((number) => !Number.isFinite(number));
      input.setAttribute("aria-invalid", String(wrong));
      if (wrong) tell("write numbers with commas between them, such as 25, 40", true);
      else send({ kind: "recut", feature: shown.name, edges: numbers });
    });
    input.addEventListener("keydown", (event) => event.stopPropagation());
    label.append(input);
    row.append(label, cut);
    return row;
  }

  function tell(text, wrong) {
    note.textContent = text;
    note.dataset.wrong = String(Boolean(wrong));
  }

  function update() {
    const snapshot = model.get("snapshot"), busy = model.get("busy");
    if (!snapshot || !snapshot.features) return;
    const shown = feature();
    title.textContent = `Weight of evidence for ${snapshot.label} · ${snapshot.rows.toLocaleString("en")} rows · ` +
      `${snapshot.features.length} features`;
    undo.disabled = busy || !snapshot.steps;
    root.setAttribute("aria-busy", String(busy));
    tell(model.get("note"), model.get("wrong"));
    if (!shown) { list.replaceChildren(); side.replaceChildren(make("div", "", "No feature was binned.")); return; }
    chosen = shown.name;
    options();
    const state = JSON.stringify([chosen, shown.bins]);
    if (state !== drawn) edges = new Set(starts(shown).at);
    drawn = state;
    const focused = side.contains(document.activeElement) ? document.activeElement.dataset.cell : undefined;
    const parts = [make("div", "heading", `${shown.name}: information value ${shown.iv.toFixed(4)}`)];
    if (shown.dropped) parts.push(make("div", "muted", `left out: ${shown.dropped}`));
    if (shown.bins.length) parts.push(chart(shown), strip(shown));
    if (shown.own) parts.push(values(shown));
    parts.push(table(shown));
    side.replaceChildren(...parts);
    const again = focused === undefined ? null : side.querySelector(`[data-cell="${focused}"]`);
    if (again) again.focus();
  }

  const changes = ["change:snapshot", "change:busy", "change:wrong"];
  const onNote = () => tell(model.get("note"), model.get("wrong"));
  for (const change of changes) model.on(change, update);
  model.on("change:note", onNote);
  update();
  return () => {
    undo.removeEventListener("click", onUndo);
    for (const change of changes) model.off(change, update);
    model.off("change:note", onNote);
  };
}

export default { render };
