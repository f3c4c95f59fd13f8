// Elements whose content is text. Names of parties, tables and columns come from other members: they are set with
// textContent and setAttribute, and nothing in this extension parses markup.

// make("li", { class: "x", text: "y", onclick: f }, child, ...); null and false children are left out
export function make(tag, given = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(given)) {
    if (value === undefined || value === null || value === false) continue;
    if (name === "text") element.textContent = String(value);
    else if (name === "class") element.className = value.split(" ").map((each) => `fednb-lab-${each}`).join(" ");
    else if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else element.setAttribute(name, value === true ? "" : String(value));
  }
  element.append(...children.filter((child) => child !== null && child !== undefined && child !== false));
  return element;
}

// The colours of a member, for the style sheet to choose from by theme.
export function paint(element, look) {
  element.style.setProperty("--fednb-lab-fill", look.fill);
  element.style.setProperty("--fednb-lab-ink", look.ink);
  element.style.setProperty("--fednb-lab-ink-dark", look.inkDark);
  return element;
}

// `work`, at most once a frame however often it is asked for: typing must not wait for it.
export function perFrame(work) {
  let due = false;
  return () => {
    if (due) return;
    due = true;
    requestAnimationFrame(() => {
      due = false;
      work();
    });
  };
}

export function seconds(value) {
  if (value < 9.95) return `${value.toFixed(1)} s`;
  const whole = Math.round(value);
  if (whole < 60) return `${whole} s`;
  const two = (part) => String(part).padStart(2, "0");
  const [hours, minutes] = [Math.floor(whole / 3600), Math.floor(whole / 60) % 60];
  return hours ? `${hours}:${two(minutes)}:${two(whole % 60)}` : `${minutes}:${two(whole % 60)}`;
}

export function bytes(count) {
  for (const unit of ["B", "kB", "MB"]) {
    if (count < 999.5) return unit === "B" || count >= 99.5 ? `${count.toFixed(0)}\u00a0${unit}` : `${+count.toPrecision(3)}\u00a0${unit}`;
    count /= 1000;
  }
  return `${+count.toPrecision(3)} GB`;
}
