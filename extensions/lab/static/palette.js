// How members are drawn: the looks of fednb/notebook/palette.py, so that a party has one colour in cells and figures.

const PARTIES = [
  { fill: "#0072b2", ink: "#00639c", inkDark: "#5cb6ec", mark: "●" },
  { fill: "#c27a00", ink: "#8f5a00", inkDark: "#f0ad2e", mark: "■" },
  { fill: "#009e73", ink: "#007353", inkDark: "#2fc79a", mark: "▲" },
  { fill: "#b8578f", ink: "#9a3f74", inkDark: "#e29bc3", mark: "◆" },
  { fill: "#d55e00", ink: "#ab4b00", inkDark: "#ff9a52", mark: "▼" },
  { fill: "#7d7a00", ink: "#666400", inkDark: "#cfcb3f", mark: "★" },
];
const COORDINATOR = { fill: "#6b7280", ink: "#4b5563", inkDark: "#aab2bf", mark: "○" };
const UNKNOWN = { fill: "#8a8a8a", ink: "#5a5a5a", inkDark: "#b5b5b5", mark: "?" };

// The look of `name`. Parties take their colours in the order of their names, as they do in every figure.
export function look(name, parties, coordinator = "coordinator") {
  if (name === coordinator) return COORDINATOR;
  const position = parties.indexOf(name);
  return position < 0 ? UNKNOWN : PARTIES[position % PARTIES.length];
}
