// The live picture of a run. The kernel sends one object, `snapshot`, a few times a second; it is drawn anew each time.
// Whatever comes from another member is set as text or as a number, never as markup.

const SVG = "http://www.w3.org/2000/svg";
const WIDTH = 400, HEIGHT = 170, LEFT = 52, RIGHT = 10, TOP = 20, BOTTOM = 24;

function make(kind, className, text) {
  const element = document.createElement(kind);
  if (className) element.className = "fednb-" + className;
  if (text !== undefined) element.textContent = text;
  return element;
}

function draw(kind, attributes, text) {
  const element = document.createElementNS(SVG, kind);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, String(value));
  if (text !== undefined) element.textContent = text;
  return element;
}

function label(value) {
  if (value === 0) return "0";
  const size = Math.abs(value);
  return size >= 1e5 || size < 1e-3 ? value.toExponential(0) : String(Number(value.toPrecision(3)));
}

function ticks(low, high, log, most) {
  if (log) {
    const first = Math.ceil(low - 1e-9), last = Math.floor(high + 1e-9);
    const step = Math.max(1, Math.ceil((last - first + 1) / 5));
    const found = [];
    for (let power = first; power <= last; power += step) found.push(power);
    return found.length > 1 ? found : [low, high];
  }
  const rough = (high - low) / most || 1;
  const unit = 10 ** Math.floor(Math.log10(rough));
  const step = unit * ([1, 2, 5, 10].find((factor) => factor * unit >= rough) || 10);
  const found = [];
  for (let value = Math.ceil(low / step) * step; value <= high + step * 1e-9; value += step) found.push(value);
  return found;
}

function chart(shown) {
  const svg = draw("svg", { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, width: WIDTH, height: HEIGHT, role: "img" });
  const scale = shown.log ? Math.log10 : (value) => value;
  const dashed = shown.dashed || [];
  const points = shown.curves.concat(dashed).flat();
  const heights = points.map((point) => scale(point[1])), steps = points.map((point) => point[0]);
  let low = Math.min(...heights), high = Math.max(...heights);
  if (shown.log) { low = Math.min(low, high - 1); } else if (low === high) { low -= 0.5; high += 0.5; }
  const first = Math.min(...steps), last = Math.max(shown.last, ...steps, first + 1);
  const x = (step) => LEFT + (WIDTH - LEFT - RIGHT) * (step - first) / (last - first);
  const y = (value) => TOP + (HEIGHT - TOP - BOTTOM) * (high - value) / (high - low);
  svg.append(draw("title", {}, `${shown.metric} by iteration`));
  svg.append(draw("text", { x: LEFT, y: 11, class: "fednb-axis" }, shown.metric));
  for (const at of ticks(low, high, shown.log, 3)) {
    svg.append(draw("line", { x1: LEFT, x2: WIDTH - RIGHT, y1: y(at), y2: y(at), class: "fednb-grid" }));
    svg.append(draw("text", { x: LEFT - 6, y: y(at) + 3, "text-anchor": "end", class: "fednb-axis" },
      label(shown.log ? 10 ** at : at)));
  }
  for (const at of ticks(first, last, false, 6)) {
    svg.append(draw("text", { x: x(at), y: HEIGHT - 8, "text-anchor": "middle", class: "fednb-axis" }, label(at)));
  }
  for (const curve of shown.curves.concat(dashed)) {
    if (!curve.length) continue;
    const held = dashed.includes(curve) ? " fednb-held" : "";
    const path = curve.map((point, i) => `${i ? "L" : "M"}${x(point[0])},${y(scale(point[1]))}`).join("");
    svg.append(draw("path", { d: path, class: "fednb-curve" + held }));
    const end = curve[curve.length - 1];
    svg.append(draw("circle", { cx: x(end[0]), cy: y(scale(end[1])), r: 3, class: "fednb-dot" }));
  }
  return svg;
}

function member(shown) {
  const block = make("div", "member"), head = make("div", "row");
  const name = make("b", "", `${shown.mark} `);
  name.style.color = shown.colour;
  head.append(name, make("b", "", shown.name), make("span", "muted", shown.role), make("span", "traffic", shown.traffic));
  block.append(head, make("div", shown.waits ? "waits" : "doing", shown.doing), make("div", "muted", shown.operations));
  return block;
}

function render({ model, el }) {
  const root = make("div", "run"), head = make("div", "row"), bar = make("div", "bar"), filled = make("div", "filled");
  const title = make("b", "title"), state = make("span", "state"), cancel = make("button", "cancel", "Cancel run");
  const figures = make("div", "figures"), body = make("div", "body"), plot = make("div", "plot"), list = make("div", "members");
  cancel.type = "button";
  cancel.title = "Ends the run at every member. Interrupting the cell does the same.";
  head.append(title, state, cancel);
  bar.append(filled);
  body.append(plot, list);
  root.append(head, bar, figures, body);
  el.append(root);

  let asked = 0;  // when the button was first pressed: one press in passing ends nothing
  let patience;
  const onClick = () => {
    if (Date.now() - asked < 4000) {
      model.send({ kind: "cancel" });
      return;
    }
    asked = Date.now();
    cancel.textContent = "Press again to cancel";
    patience = setTimeout(update, 4000);
  };
  cancel.addEventListener("click", onClick);

  function update() {
    const shown = model.get("snapshot");
    if (!shown || !shown.title) return;
    const note = model.get("note");
    title.textContent = shown.title;
    state.textContent = note || shown.silent || shown.state;
    root.dataset.quiet = String(Boolean(shown.silent));
    bar.dataset.known = String(shown.done !== null);
    filled.style.width = shown.done === null ? "100%" : `${100 * shown.done}%`;
    figures.replaceChildren(...shown.figures.map((text) => make("span", "figure", text)));
    plot.replaceChildren(...(shown.curves.flat().length ? [chart(shown)] : []));
    list.replaceChildren(...shown.members.map(member));
    cancel.disabled = Boolean(note);
    if (Date.now() - asked >= 4000) cancel.textContent = "Cancel run";
  }
  model.on("change:snapshot", update);
  model.on("change:note", update);
  update();
  return () => {
    clearTimeout(patience);
    cancel.removeEventListener("click", onClick);
    model.off("change:snapshot", update);
    model.off("change:note", update);
  };
}

export default { render };
