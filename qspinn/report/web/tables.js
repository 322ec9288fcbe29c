const FEW_ROWS = 25, MOST_ROWS = 500;
const MOST_HEAT_ROWS = 120;
let sortBy = null, ascending = true, mostRows = FEW_ROWS;

const dash = (x, text) => (x === null || x === undefined ? "-" : text(x));
// Name, value to sort by, its text, and whether it is a number; those that no candidate has are left out.
const COLUMNS = [
  ["#", (p) => p.number, (p) => `${p.number}`, true],
  ["candidate", (p) => p.number, null, false],
  [ACCURACY, (p) => p.accuracy, null, true],
  ["drop (points)", (p) => p.drop, (p) => dash(p.drop, percent), true],
  ["footprint", (p) => p.bits, (p) => memory(p.bits), true],
  ["smaller", (p) => p.reduction, (p) => `${p.reduction.toFixed(1)}x`, true],
  ["flash", (p) => p.flash, (p) => dash(p.flash, memory), true],
  ["RAM", (p) => p.ram, (p) => dash(p.ram, memory), true],
  ["energy", (p) => p.energy, (p) => dash(p.energy, energy), true],
  ["alike", (p) => p.agreement, (p) => dash(p.agreement, (x) => `${percent(x, 1)}%`), true],
  ["quantised", (p) => (data.partly ? p.quantized_least : null), (p) => p.quantized, true],
  ["reward", (p) => (p.reward === undefined ? null : p.reward), (p) => dash(p.reward, (x) => x.toFixed(4)), true],
];
const columns = () => COLUMNS.filter(([, value]) => data.points.some((p) => value(p) !== null));

function nameCell(row, p) {
  const cell = make(row, "td", { class: "name", "data-number": p.number });
  const text = p.name || p.title;
  if (p.link === null) make(cell, "span", { title: p.path }, text);
  else make(cell, "a", { href: p.link, title: p.path }, text);
  const seeds = p.seeds.length > 1 ? ` (${p.seeds.length} seeds)` : "";
  const state = p === winner ? "winner" : STATES[p.state];
  make(cell, "span", { class: "soft why" }, `${state}${seeds}${p.why ? `: ${p.why}` : ""}`);
}
function accuracyCell(row, p) {
  const cell = make(row, "td", { class: "number interval", "data-name": ACCURACY });
  make(cell, "span", {}, `${percent(p.accuracy)}%${spread(p)}`);
  if (p.interval) { cell.append(" "); make(cell, "span", { class: "soft" }, within(p).trim()); }
}

function drawRows() {
  const table = at("rows"), head = document.createElement("thead"), body = document.createElement("tbody");
  const line = make(head, "tr"), shown = columns();
  for (const column of shown) {
    const [name, , , number] = column;
    const sorted = sortBy === column ? (ascending ? "ascending" : "descending") : "none";
    const cell = make(line, "th", { scope: "col", "aria-sort": sorted, ...(number ? { class: "number" } : {}) });
    const arrow = sorted === "none" ? "" : ascending ? " ▲" : " ▼";
    make(cell, "button", { type: "button" }, name + arrow).addEventListener("click", () => {
      ascending = sortBy === column ? !ascending : true;
      sortBy = column;
      drawRows();
    });
  }
  const order = [...visible];
  if (sortBy !== null) {
    const value = sortBy[1], sign = ascending ? 1 : -1;
    order.sort((a, b) => { const u = value(a), v = value(b);
      if (u === null || v === null) return (u === null) - (v === null);
      return sign * (u < v ? -1 : u > v ? 1 : 0); });
  } else if (!asMade()) {
    const rank = { front: 0, dominated: 1, dropped: 2 };
    order.sort((a, b) => (a !== winner) - (b !== winner) || rank[a.state] - rank[b.state] || (b.reward || 0) - (a.reward || 0));
  }
  for (const p of order.slice(0, mostRows)) {
    const row = make(body, "tr", { class: p === winner ? "winner" : p.state === "dropped" ? "missed" : "" });
    for (const [name, , text, number] of shown) {
      if (name === "candidate") nameCell(row, p);
      else if (name === ACCURACY) accuracyCell(row, p);
      else make(row, "td", { "data-name": name, ...(number ? { class: "number" } : {}) }, text(p));
    }
  }
  table.replaceChildren(head, body);
  const more = at("more"), next = Math.min(order.length, MOST_ROWS);
  more.replaceChildren();
  if (order.length > mostRows) more.append(`The first ${mostRows} of ${whole(order.length)}${next < order.length ? "; selection.csv has all" : ""}. `);
  if (next > mostRows) make(more, "button", { type: "button" }, `Show ${next < order.length ? `${whole(next)}` : "all"}`).addEventListener("click", () => { mostRows = MOST_ROWS; drawRows(); });
}

function simpleTable(table, names, rows, numbers = []) {
  const line = make(make(table, "thead"), "tr"), body = make(table, "tbody");
  names.forEach((name, i) => make(line, "th", { scope: "col", ...(numbers.includes(i) ? { class: "number" } : {}) }, name));
  for (const cells of rows) { const row = make(body, "tr"); cells.forEach((c, i) => make(row, "td", numbers.includes(i) ? { class: "number" } : {}, c)); }
}

// Bits of each tensor in each candidate of the front: the darker, the more.
function drawHeat() {
  const { tensors, candidates } = data.heat;
  at("layers").hidden = !tensors.length;
  if (!tensors.length) return;
  const table = at("heat"), line = make(make(table, "thead"), "tr"), body = make(table, "tbody");
  make(line, "th", { scope: "col" }, "tensor");
  for (const c of candidates) make(line, "th", { scope: "col", title: c.title, "aria-label": `candidate ${c.number}: ${c.title}` }, `#${c.number}`);
  const most = Math.max(...candidates.flatMap((c) => c.bits.filter((b) => b !== null)));
  tensors.slice(0, MOST_HEAT_ROWS).forEach((name, i) => {
    const row = make(body, "tr");
    make(row, "th", { scope: "row" }, name);
    for (const c of candidates) {
      const bits = c.bits[i], strength = bits === null ? 0 : 0.12 + 0.88 * (bits / most);
      const style = bits === null ? "" : `background:rgba(var(--heat),${strength.toFixed(2)});${strength > 0.55 ? "color:var(--on-heat)" : ""}`;
      make(row, "td", { style }, bits === null ? "-" : `${bits}`);
    }
  });
  if (tensors.length > MOST_HEAT_ROWS) make(make(body, "tr"), "td", { colspan: candidates.length + 1 }, `and ${whole(tensors.length - MOST_HEAT_ROWS)} more tensors`);
}

function list(id, section, lines) {
  at(section).hidden = !lines.length;
  for (const line of lines) make(at(id), "li", {}, line);
}
