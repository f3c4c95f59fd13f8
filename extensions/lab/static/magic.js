// The line of a cell that says where it runs: read, and written anew with its options kept.

const HEAD = /^((?:[ \t]*\n)*)%%(party|coordinator)(?=[ \t\n]|$)([^\n]*)/;
const TAKES_VALUE = new Set(["--timeout", "-o", "--output", "--ask"]);

// { kind: "party" | "coordinator", names: [...], options: "--timeout 5", start, end } or null for a cell of this kernel
export function parse(source) {
  if (!source.includes("%%")) return null;
  const found = HEAD.exec(source);
  if (!found) return null;
  const [all, before, kind, line] = found;
  const names = [], options = [];
  let value = false;
  for (const word of line.match(/(?:[^\s"']|"[^"]*"?|'[^']*'?)+/g) || []) {
    if (value || word.startsWith("-")) {
      options.push(word);
      value = !value && TAKES_VALUE.has(word);
    } else if (kind === "party") {
      names.push(...word.split(",").filter(Boolean));
    }
  }
  return { kind, names, options: options.join(" "), start: before.length, end: all.length };
}

// Who runs the cell: `all` stands for every party.
export function members(magic, parties, coordinator) {
  if (magic.kind === "coordinator") return [coordinator];
  if (magic.names.length === 1 && magic.names[0] === "all") return parties.length ? parties : ["all"];
  return [...new Set(magic.names)];
}

// The cell as it is sent with one more option on its magic's line, where it has a magic and not that option.
export function withOption(source, option) {
  const magic = parse(source);
  if (!magic || magic.options.split(" ").includes(option)) return source;
  return `${source.slice(0, magic.end).trimEnd()} ${option}${source.slice(magic.end)}`;
}

// What replaces source.slice(start, end) so that the cell runs at `names`: [] is this kernel.
export function rewritten(source, names, coordinator) {
  const magic = parse(source);
  const start = magic ? magic.start : 0;
  let end = magic ? magic.end : 0;
  if (!names.length) {
    if (magic && source[end] === "\n") end += 1;
    return { start, end, text: "" };
  }
  const head = names.length === 1 && names[0] === coordinator ? "%%coordinator" : `%%party ${names.join(",")}`;
  const options = magic && magic.options ? ` ${magic.options}` : "";
  return { start, end, text: head + options + (magic ? "" : "\n") };
}
