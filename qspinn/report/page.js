"use strict";
// All texts of records go in through textContent and setAttribute: none is ever read as HTML.
const data = JSON.parse(document.getElementById("data").textContent);
const SVG = "http://www.w3.org/2000/svg";
const at = (id) => document.getElementById(id);
const percent = (x, d = 2) => (100 * x).toFixed(d).replace(/^-(0\.0*)$/, "$1");
const whole = (x) => Math.round(x).toLocaleString("en-US");
const FILTERS = ["scheme", "rounding", "network", "data", "state"];
const SHAPES = ["circle", "square", "triangle", "diamond", "cross"];
const STATES = { front: "on the front", dominated: "dominated", dropped: "misses the target" };
const MOST_ROWS = 200;
data.points.forEach((p, i) => { p.index = i; });
const distinct = (name) => [...new Set(data.points.map((p) => p[name]))].sort();
const roundings = distinct("rounding");
const shapeOf = (p) => SHAPES[roundings.indexOf(p.rounding) % SHAPES.length];
let visible = [], placed = [], sortBy = null, ascending = true;

function make(parent, name, attributes = {}, text = null, space = null) {
  const node = space ? document.createElementNS(space, name) : document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) node.setAttribute(key, value);
  if (text !== null) node.textContent = text;
  parent.append(node);
  return node;
}
const draw = (parent, name, attributes, text = null) => make(parent, name, attributes, text, SVG);

function shape(kind, x, y, r) {
  if (kind === "square") return `M${x - r} ${y - r}h${2 * r}v${2 * r}h${-2 * r}z`;
  if (kind === "triangle") return `M${x} ${y - r * 1.2}l${r * 1.2} ${r * 2.1}h${-r * 2.4}z`;
  if (kind === "diamond") return `M${x} ${y - r * 1.4}l${r * 1.4} ${r * 1.4}l${-r * 1.4} ${r * 1.4}l${-r * 1.4} ${-r * 1.4}z`;
  if (kind === "cross") return `M${x - r} ${y - r}l${2 * r} ${2 * r}M${x - r} ${y + r}l${2 * r} ${-2 * r}`;
  return `M${x - r} ${y}a${r} ${r} 0 1 0 ${2 * r} 0a${r} ${r} 0 1 0 ${-2 * r} 0z`;
}

const ACCURACY = `${data.chosen_by} accuracy`;
const within = (p) => (p.interval === null ? "" : ` [${percent(p.interval[0])}, ${percent(p.interval[1])}]`);

function describe(p) {
  const spread = p.std === null ? "" : ` ± ${percent(p.std)}`;
  return [
    ["run", p.path], ["scheme", p.scheme === "none" ? "none (32-bit)" : p.scheme],
    ["rounding", p.rounding], ["word lengths", p.words], ["network", p.network], ["data", p.data],
    ["seeds", p.seeds.join(", ")], [ACCURACY, `${percent(p.accuracy)}%${spread}${within(p)}`],
    ["drop", p.drop === null ? "-" : `${percent(p.drop)} points`],
    ["footprint", `${whole(p.bits)} bits, ${p.reduction.toFixed(1)}x smaller`],
    ["quantised", p.quantized === "-" ? "-" : `${p.quantized} (parameters / states)`],
    ["reward", p.reward === undefined ? "-" : p.reward.toFixed(4)],
    ["state", p.why ? `${STATES[p.state]}: ${p.why}` : STATES[p.state] + (p.index === data.winner ? ", winner" : "")],
  ];
}

function showTip(p, x, y) {
  const tip = at("tip"), list = document.createElement("dl");
  for (const [term, value] of describe(p)) { make(list, "dt", {}, term); make(list, "dd", {}, value); }
  tip.replaceChildren(list);
  tip.hidden = false;
  const box = at("chart").getBoundingClientRect();
  const scale = box.width / 960, left = x * scale, top = y * scale;
  tip.style.left = `${left > box.width / 2 ? Math.max(0, left - tip.offsetWidth - 14) : left + 14}px`;
  tip.style.top = `${Math.max(0, top - tip.offsetHeight / 2)}px`;
  const picked = at("picked");
  if (picked) { picked.setAttribute("cx", x); picked.setAttribute("cy", y); picked.style.display = ""; }
}
function hideTip() { at("tip").hidden = true; const p = at("picked"); if (p) p.style.display = "none"; }

// The definition of qspinn.selection: smaller and more accurate; equal points are all on it.
function paretoFront(points) {
  const front = [];
  for (const p of [...points].sort((a, b) => a.bits - b.bits || b.accuracy - a.accuracy)) {
    const last = front[front.length - 1];
    if (!last || p.accuracy > last.accuracy || (p.accuracy === last.accuracy && p.bits === last.bits)) front.push(p);
  }
  return front;
}

function ticks(low, high, count) {
  const raw = (high - low) / count, base = 10 ** Math.floor(Math.log10(raw));
  const step = [1, 2, 5, 10].map((m) => m * base).find((s) => s >= raw);
  const found = [];
  for (let t = Math.ceil(low / step); t * step <= high * (1 + 1e-12); t++) found.push(t * step);
  return found;
}
function binaryTicks(low, high) {
  const found = [];
  for (let e = Math.ceil(Math.log2(low)); e <= Math.log2(high); e++) found.push(2 ** e);
  return found;
}
const BINARY = [[2 ** 30, "Gi"], [2 ** 20, "Mi"], [2 ** 10, "Ki"]], DECIMAL = [[1e9, "G"], [1e6, "M"], [1e3, "k"]];
function shortBits(x, units) {
  for (const [unit, name] of units) if (x >= unit) return `${+(x / unit).toPrecision(3)} ${name}`;
  return `${+x.toPrecision(3)}`;
}

function drawChart() {
  const svg = at("plot"), box = { left: 70, right: 940, top: 18, bottom: 450 };
  svg.replaceChildren();
  hideTip();
  placed = [];
  if (!visible.length) { draw(svg, "text", { x: 480, y: 240, "text-anchor": "middle" }, "no run passes these filters"); return; }
  const all = at("all-accuracies"), isFar = (p) => data.lowest_shown !== null && !all.checked && p.accuracy < data.lowest_shown;
  const near = visible.filter((p) => !isFar(p)), shown = near.length ? near : visible;
  const bits = shown.map((p) => p.bits), rights = shown.flatMap((p) => [p.accuracy - (p.std || 0), p.accuracy + (p.std || 0)]);
  const extent = (v) => v.reduce((m, x) => [Math.min(m[0], x), Math.max(m[1], x)], [Infinity, -Infinity]);
  let [x0, x1] = extent(bits), [y0, y1] = extent(rights);
  x0 *= 0.88; x1 *= 1.14;
  const pad = Math.max((y1 - y0) * 0.06, 0.001);
  y0 -= pad; y1 += pad;
  const X = (b) => box.left + (Math.log(b / x0) / Math.log(x1 / x0)) * (box.right - box.left);
  const Y = (a) => box.bottom - ((a - y0) / (y1 - y0)) * (box.bottom - box.top);
  const isBinary = binaryTicks(x0, x1).length > 1, across = isBinary ? binaryTicks(x0, x1) : ticks(x0, x1, 4);
  for (const t of across) {
    draw(svg, "path", { class: "grid", d: `M${X(t)} ${box.top}V${box.bottom}` });
    draw(svg, "text", { x: X(t), y: box.bottom + 18, "text-anchor": "middle" }, shortBits(t, isBinary ? BINARY : DECIMAL));
  }
  for (const t of ticks(100 * y0, 100 * y1, 6)) {
    draw(svg, "path", { class: "grid", d: `M${box.left} ${Y(t / 100)}H${box.right}` });
    draw(svg, "text", { x: box.left - 8, y: Y(t / 100) + 4, "text-anchor": "end" }, `${+t.toFixed(6)}%`);
  }
  draw(svg, "text", { x: (box.left + box.right) / 2, y: 490, "text-anchor": "middle" }, "footprint (bits, logarithmic)");
  draw(svg, "text", { x: -(box.top + box.bottom) / 2, y: 14, "text-anchor": "middle", transform: "rotate(-90)" }, ACCURACY);
  const front = paretoFront(visible.filter((p) => p.state !== "dropped")), onFront = new Set(front);
  draw(svg, "path", { class: "front", id: "front", d: front.map((p, i) => `${i ? "L" : "M"}${X(p.bits)} ${Y(p.accuracy)}`).join("") });
  if (shown.length < visible.length) draw(svg, "text", { x: box.left + 4, y: box.bottom - 6, id: "below" }, `${whole(visible.length - shown.length)} far below`);
  const few = shown.length <= 1000;
  for (const p of [...shown].sort((a, b) => onFront.has(a) - onFront.has(b) || a.bits - b.bits)) {
    const x = X(p.bits), y = Y(p.accuracy), isFront = onFront.has(p);
    if (p.std && (few || isFront)) draw(svg, "path", { class: `bar ${p.scheme}`, d: `M${x} ${Y(p.accuracy - p.std)}V${Y(p.accuracy + p.std)}` });
    const attributes = { class: `mark ${p.scheme}${isFront ? "" : " hollow"}`, d: shape(shapeOf(p), x, y, few || isFront ? 5 : 3) };
    const node = draw(svg, "path", isFront ? { ...attributes, tabindex: 0, role: "img", "aria-label": describe(p).map((pair) => pair.join(" ")).join(", ") } : attributes);
    if (isFront) { node.addEventListener("focus", () => showTip(p, x, y)); node.addEventListener("blur", hideTip); }
    if (p.index === data.winner) draw(svg, "circle", { class: "ring", cx: x, cy: y, r: 11 });
    placed.push([x, y, p]);
  }
  draw(svg, "circle", { class: "picked", id: "picked", r: 9, cx: 0, cy: 0, style: "display:none" });
}

function hover(event) {
  const box = at("plot").getBoundingClientRect(), scale = 960 / box.width;
  const x = (event.clientX - box.left) * scale, y = (event.clientY - box.top) * scale;
  let best = null, nearest = 18 ** 2;
  for (const item of placed) {
    const distance = (item[0] - x) ** 2 + (item[1] - y) ** 2;
    if (distance <= nearest) { nearest = distance; best = item; }
  }
  if (best) showTip(best[2], best[0], best[1]); else hideTip();
}

const COLUMNS = [
  ["state", (p) => (p.index === data.winner ? "winner" : STATES[p.state])],
  ["scheme", (p) => p.scheme], ["rounding", (p) => p.rounding], ["word lengths", (p) => p.words],
  ["seeds", (p) => p.seeds.length, 1], [ACCURACY, (p) => p.accuracy, 1, (p) => `${percent(p.accuracy)}%${p.std === null ? "" : ` ± ${percent(p.std)}`}${within(p)}`],
  ["drop (points)", (p) => p.drop, 1, (p) => (p.drop === null ? "-" : percent(p.drop))],
  ["footprint (bits)", (p) => p.bits, 1, (p) => whole(p.bits)], ["reduction", (p) => p.reduction, 1, (p) => `${p.reduction.toFixed(1)}x`],
  ["quantised", (p) => p.quantized_least, 1, (p) => p.quantized],
  ["reward", (p) => (p.reward === undefined ? null : p.reward), 1, (p) => (p.reward === undefined ? "-" : p.reward.toFixed(4))],
  ["run", (p) => p.path],
];

function drawRows() {
  const table = at("rows"), head = document.createElement("thead"), body = document.createElement("tbody");
  const line = make(head, "tr");
  COLUMNS.forEach(([name, value, number], i) => {
    const sorted = sortBy === i ? (ascending ? "ascending" : "descending") : "none";
    const cell = make(line, "th", { scope: "col", "aria-sort": sorted, ...(number ? { class: "number" } : {}) });
    const arrow = sorted === "none" ? "" : ascending ? " ▲" : " ▼";
    make(cell, "button", { type: "button" }, name + arrow).addEventListener("click", () => {
      ascending = sortBy === i ? !ascending : true; sortBy = i; drawRows();
    });
  });
  const order = [...visible];
  if (sortBy !== null) {
    const value = COLUMNS[sortBy][1], sign = ascending ? 1 : -1;
    order.sort((a, b) => { const u = value(a), v = value(b);
      if (u === null || v === null) return (u === null) - (v === null);
      return sign * (u < v ? -1 : u > v ? 1 : 0); });
  }
  for (const p of order.slice(0, MOST_ROWS)) {
    const row = make(body, "tr", p.index === data.winner ? { class: "winner" } : {});
    for (const [, value, number, text] of COLUMNS) make(row, "td", number ? { class: "number" } : {}, text ? text(p) : value(p));
  }
  table.replaceChildren(head, body);
  at("more").textContent = order.length > MOST_ROWS ? `The first ${MOST_ROWS} of ${whole(order.length)}; selection.csv has all.` : "";
}

function simpleTable(table, names, rows, numbers = []) {
  const line = make(make(table, "thead"), "tr"), body = make(table, "tbody");
  names.forEach((name, i) => make(line, "th", { scope: "col", ...(numbers.includes(i) ? { class: "number" } : {}) }, name));
  for (const cells of rows) { const row = make(body, "tr"); cells.forEach((c, i) => make(row, "td", numbers.includes(i) ? { class: "number" } : {}, c)); }
}

function drawCurve(parent, curve) {
  const svg = draw(parent, "svg", { viewBox: "0 0 360 220", role: "img", "aria-label": `${curve.name}: ` + curve.points.map((p) => `${p.word_length} bits ${percent(p.accuracy)}%`).join(", ") });
  const all = data.significance.flatMap((c) => c.points);
  const xs = all.map((p) => p.word_length), ys = all.map((p) => p.accuracy);
  const x0 = Math.min(...xs), x1 = Math.max(...xs, x0 + 1), y0 = Math.min(...ys) - 0.01, y1 = Math.min(1, Math.max(...ys) + 0.01);
  const X = (w) => 48 + ((w - x0) / (x1 - x0)) * 295, Y = (a) => 180 - ((a - y0) / (y1 - y0)) * 145;
  draw(svg, "text", { x: 180, y: 20, "text-anchor": "middle" }, curve.name);
  for (const t of ticks(100 * y0, 100 * y1, 4)) { draw(svg, "path", { class: "grid", d: `M48 ${Y(t / 100)}H343` }); draw(svg, "text", { x: 42, y: Y(t / 100) + 4, "text-anchor": "end" }, `${+t.toFixed(6)}%`); }
  for (const w of [...new Set(curve.points.map((p) => p.word_length))]) draw(svg, "text", { x: X(w), y: 197, "text-anchor": "middle" }, w);
  draw(svg, "text", { x: 195, y: 214, "text-anchor": "middle" }, "word length (bits)");
  draw(svg, "path", { class: "front", d: curve.points.map((p, i) => `${i ? "L" : "M"}${X(p.word_length)} ${Y(p.accuracy)}`).join("") });
  for (const p of curve.points) if (p.accuracy_std) draw(svg, "path", { class: "bar ptq", d: `M${X(p.word_length)} ${Y(p.accuracy - p.accuracy_std)}V${Y(p.accuracy + p.accuracy_std)}` });
  for (const p of curve.points) draw(svg, "path", { class: "mark ptq", d: shape("circle", X(p.word_length), Y(p.accuracy), 3.5) });
}

function update() {
  const wanted = {};
  for (const name of FILTERS) wanted[name] = new Set([...document.querySelectorAll(`input[name="${name}"]:checked`)].map((box) => box.value));
  visible = data.points.filter((p) => FILTERS.every((name) => wanted[name].has(p[name])));
  at("count").textContent = `${whole(visible.length)} of ${whole(data.points.length)} shown` +
    (data.left_out ? `; ${whole(data.left_out)} more, none of them on the front, are only in selection.csv` : "");
  drawChart();
  drawRows();
}

function begin() {
  at("reason").textContent = data.reason;
  at("terms").textContent = `Target: ${data.target}. Reward: ${data.reward}. Hypervolume of the front: ${data.hypervolume.toFixed(4)} (reference: the 32-bit footprint, accuracy 0). A run is off the front when another is at least as small and as accurate, and better in one; the line is the front of what the filters show.`;
  for (const name of FILTERS) {
    const set = make(at("filters"), "fieldset");
    make(set, "legend", {}, name);
    for (const value of distinct(name)) {
      const label = make(set, "label"), box = make(label, "input", { type: "checkbox", name, value });
      box.checked = true;
      label.append(` ${value}`);
      box.addEventListener("change", update);
    }
  }
  if (data.lowest_shown !== null) {
    const set = make(at("filters"), "fieldset");
    make(set, "legend", {}, "picture");
    const label = make(set, "label");
    make(label, "input", { type: "checkbox", name: "picture", value: "all", id: "all-accuracies" }).addEventListener("change", drawChart);
    label.append(" with what lies far below the target");
  }
  const legend = at("legend");
  const key = (text, attributes) => { const svg = draw(legend, "svg", { class: "key", viewBox: "0 0 16 16", "aria-hidden": "true" }); draw(svg, "path", attributes); legend.append(` ${text}   `); };
  for (const scheme of distinct("scheme")) key(scheme === "none" ? "none (32-bit)" : scheme, { class: `mark ${scheme}`, d: shape("circle", 8, 8, 5) });
  for (const rounding of roundings) key(rounding, { class: "mark none hollow", d: shape(shapeOf({ rounding }), 8, 8, 5) });
  legend.append("filled: on the front; ring: the winner; bars: standard deviation over seeds");
  at("plot").addEventListener("pointermove", hover);
  at("plot").addEventListener("pointerleave", hideTip);
  document.addEventListener("keydown", (event) => { if (event.key === "Escape") hideTip(); });
  const mu = (x) => (x === null ? "no end" : +x.toPrecision(4));
  simpleTable(at("choices"), ["run", "from mu", "to mu"], data.choices.map((c) => [c.path, mu(c.from_mu), mu(c.to_mu)]), [1, 2]);
  at("share").textContent = data.summary.length ? data.summary[0] + (data.summary.length > 1 ? "; what is not, and why, stands below the picture" : "") : "";
  at("quantized").hidden = !data.summary.length;
  for (const line of data.summary) make(at("summary"), "li", {}, line);
  const formats = Object.entries(data.formats);
  at("formats").hidden = !formats.length;
  simpleTable(at("tensors"), ["tensor", "role", "format", "rounding", "overflow"], formats.map(([path, f]) => [path, f.role, f.format, f.rounding, f.overflow]));
  at("significance").hidden = !data.significance.length;
  for (const curve of data.significance) drawCurve(at("curves"), curve);
  const notes = [...data.notes, ...data.problems];
  at("remarks").hidden = !notes.length;
  for (const note of notes) make(at("notes"), "li", {}, note);
  update();
}
begin();
