const SHAPES = ["circle", "square", "triangle", "diamond", "cross"];
const distinct = (name) => [...new Set(data.points.map((p) => p[name]))].sort();
const roundings = distinct("rounding");
const shapeOf = (p) => SHAPES[roundings.indexOf(p.rounding) % SHAPES.length];
const ACCURACY = `${data.chosen_by} accuracy`;
const MOST_NUMBERS = 40; // of the front, beside its points
let visible = [], placed = [], winner = null;

function shape(kind, x, y, r) {
  if (kind === "square") return `M${x - r} ${y - r}h${2 * r}v${2 * r}h${-2 * r}z`;
  if (kind === "triangle") return `M${x} ${y - r * 1.2}l${r * 1.2} ${r * 2.1}h${-r * 2.4}z`;
  if (kind === "diamond") return `M${x} ${y - r * 1.4}l${r * 1.4} ${r * 1.4}l${-r * 1.4} ${r * 1.4}l${-r * 1.4} ${-r * 1.4}z`;
  if (kind === "cross") return `M${x - r} ${y - r}l${2 * r} ${2 * r}M${x - r} ${y + r}l${2 * r} ${-2 * r}`;
  return `M${x - r} ${y}a${r} ${r} 0 1 0 ${2 * r} 0a${r} ${r} 0 1 0 ${-2 * r} 0z`;
}

const spread = (p) => (p.std === null ? "" : ` ± ${percent(p.std)}`);
const within = (p) => (p.interval === null ? "" : ` [${percent(p.interval[0])}, ${percent(p.interval[1])}]`);

function describe(p) {
  const known = (x, text) => (x === null ? "-" : text(x));
  return [
    ["candidate", `#${p.number} ${p.title}`], ["run", p.path], ["word lengths", p.words],
    ["network", `${p.network} on ${p.data}`], ["seeds", p.seeds.join(", ")],
    [ACCURACY, `${percent(p.accuracy)}%${spread(p)}${within(p)}`],
    ["drop", known(p.drop, (x) => `${percent(x)} points`)],
    ["footprint", `${whole(p.bits)} bits, ${p.reduction.toFixed(1)}x smaller`],
    ["flash / RAM", `${known(p.flash, memory)} / ${known(p.ram, memory)}`],
    ["energy", known(p.energy, (x) => `${energy(x)} per sample`)],
    ["classified alike", known(p.agreement, (x) => `${percent(x, 1)}%`)],
    ["quantised", p.quantized === "-" ? "-" : `${p.quantized} (parameters / states)`],
    ["reward", p.reward === undefined ? "-" : p.reward.toFixed(4)],
    ["state", p.why ? `${STATES[p.state]}: ${p.why}` : STATES[p.state] + (p === winner ? ", winner" : "")],
  ].filter(([, value]) => value !== "-" && value !== "- / -");
}

function showTip(p, x, y) {
  const tip = at("tip"), list = document.createElement("dl");
  for (const [term, value] of describe(p)) { make(list, "dt", {}, term); make(list, "dd", {}, value); }
  tip.replaceChildren(list);
  tip.hidden = false;
  const width = at("chart").clientWidth;
  tip.style.left = `${x > width / 2 ? Math.max(0, x - tip.offsetWidth - 14) : Math.min(x + 14, width - tip.offsetWidth)}px`;
  tip.style.top = `${Math.max(0, y - tip.offsetHeight / 2)}px`;
  const picked = at("picked");
  if (picked) { picked.setAttribute("cx", x); picked.setAttribute("cy", y); picked.style.display = ""; }
}
function hideTip() { at("tip").hidden = true; const p = at("picked"); if (p) p.style.display = "none"; }

function ticks(low, high, count) {
  const raw = (high - low) / count, base = 10 ** Math.floor(Math.log10(raw));
  const step = [1, 2, 5, 10].map((m) => m * base).find((s) => s >= raw);
  const found = [];
  for (let t = Math.ceil(low / step); t * step <= high * (1 + 1e-12); t++) found.push(t * step);
  return found;
}
// Sizes at which an axis has ticks: halves and doubles of a byte, closer ones where they are few.
function sizeTicks(low, high, most) {
  let found = [];
  for (let e = Math.ceil(Math.log2(low)); e <= Math.log2(high); e++) found.push(2 ** e);
  if (found.length < 4) found = [...found, ...found.map((t) => 1.5 * t), ...found.map((t) => 0.75 * t)].filter((t) => t >= low && t <= high);
  found = [...new Set(found)].sort((a, b) => a - b);
  if (found.length < 2) return ticks(low, high, 4);
  while (found.length > most) found = found.filter((_, i) => i % 2 === 0);
  return found;
}

function drawChart() {
  const svg = at("plot"), W = Math.max(300, Math.min(at("chart").clientWidth, 1160)), H = W < 600 ? 340 : 470;
  for (const [name, value] of Object.entries({ viewBox: `0 0 ${W} ${H}`, width: W, height: H })) svg.setAttribute(name, value);
  const box = { left: 70, right: W - 16, top: 16, bottom: H - 48 };
  svg.replaceChildren();
  hideTip();
  placed = [];
  if (!visible.length) { draw(svg, "text", { x: W / 2, y: H / 2, "text-anchor": "middle" }, "no candidate passes these filters"); return; }
  const all = at("all-accuracies"), isFar = (p) => data.lowest_shown !== null && !all.checked && p.accuracy < data.lowest_shown;
  const near = visible.filter((p) => !isFar(p)), shown = near.length ? near : visible;
  const front = paretoFront(visible.filter((p) => p.state !== "dropped")), onFront = new Set(front);
  const reach = (p) => (onFront.has(p) && p.interval ? p.interval : [p.accuracy - (p.std || 0), p.accuracy + (p.std || 0)]);
  const bits = shown.map((p) => p.bits), rights = shown.flatMap(reach);
  const extent = (v) => v.reduce((m, x) => [Math.min(m[0], x), Math.max(m[1], x)], [Infinity, -Infinity]);
  let [x0, x1] = extent(bits), [y0, y1] = extent(rights);
  x0 *= 0.88; x1 *= 1.14;
  const pad = Math.max((y1 - y0) * 0.06, 0.001);
  y0 -= pad; y1 += pad;
  const X = (b) => box.left + (Math.log(b / x0) / Math.log(x1 / x0)) * (box.right - box.left);
  const Y = (a) => Math.max(box.top, Math.min(box.bottom, box.bottom - ((a - y0) / (y1 - y0)) * (box.bottom - box.top)));
  for (const t of sizeTicks(x0, x1, W / 90)) {
    draw(svg, "path", { class: "grid", d: `M${X(t)} ${box.top}V${box.bottom}` });
    draw(svg, "text", { x: X(t), y: box.bottom + 18, "text-anchor": "middle" }, memory(t));
  }
  for (const t of ticks(100 * y0, 100 * y1, 6)) {
    draw(svg, "path", { class: "grid", d: `M${box.left} ${Y(t / 100)}H${box.right}` });
    draw(svg, "text", { x: box.left - 8, y: Y(t / 100) + 4, "text-anchor": "end" }, `${+t.toFixed(6)}%`);
  }
  const baselines = [...new Set(shown.map((p) => p.baseline))];
  if (baselines.length === 1 && baselines[0] !== null) {
    const lines = [["32-bit", baselines[0]]];
    if (bounds.max_drop !== null) lines.push(["target", baselines[0] - bounds.max_drop]);
    for (const [text, a] of lines) if (a > y0 && a < y1) {
      draw(svg, "path", { class: "bound", d: `M${box.left} ${Y(a)}H${box.right}` });
      draw(svg, "text", { x: box.right - 4, y: Y(a) - 5, "text-anchor": "end" }, text);
    }
  }
  draw(svg, "text", { x: (box.left + box.right) / 2, y: H - 10, "text-anchor": "middle" }, "footprint (logarithmic)");
  draw(svg, "text", { x: -(box.top + box.bottom) / 2, y: 12, "text-anchor": "middle", transform: "rotate(-90)" }, ACCURACY);
  draw(svg, "path", { class: "front", id: "front", d: front.map((p, i) => `${i ? "L" : "M"}${X(p.bits)} ${Y(p.accuracy)}`).join("") });
  if (shown.length < visible.length) draw(svg, "text", { x: box.left + 4, y: box.bottom - 6, id: "below" }, `${whole(visible.length - shown.length)} far below`);
  const few = shown.length <= 1000;
  for (const p of [...shown].sort((a, b) => onFront.has(a) - onFront.has(b) || a.bits - b.bits)) {
    const x = X(p.bits), y = Y(p.accuracy), isFront = onFront.has(p);
    const range = reach(p);
    if (range[0] < range[1] && (few || isFront)) draw(svg, "path", { class: `bar ${p.scheme}`, d: `M${x} ${Y(range[0])}V${Y(range[1])}` });
    const attributes = { class: `mark ${p.scheme}${isFront ? "" : " hollow"}`, d: shape(shapeOf(p), x, y, few || isFront ? 5 : 3) };
    const node = draw(svg, "path", isFront ? { ...attributes, tabindex: 0, role: "img", "aria-label": describe(p).map((pair) => pair.join(" ")).join(", ") } : attributes);
    if (isFront) { node.addEventListener("focus", () => showTip(p, x, y)); node.addEventListener("blur", hideTip); }
    if (isFront && front.length <= MOST_NUMBERS) draw(svg, "text", { class: "number", x: x - 8, y: y - 8, "text-anchor": "end" }, `${p.number}`);
    if (p === winner) draw(svg, "circle", { class: "ring", cx: x, cy: y, r: 11 });
    placed.push([x, y, p]);
  }
  draw(svg, "circle", { class: "picked", id: "picked", r: 9, cx: 0, cy: 0, style: "display:none" });
}

function hover(event) {
  const box = at("plot").getBoundingClientRect();
  const x = event.clientX - box.left, y = event.clientY - box.top;
  let best = null, nearest = 18 ** 2;
  for (const item of placed) {
    const distance = (item[0] - x) ** 2 + (item[1] - y) ** 2;
    if (distance <= nearest) { nearest = distance; best = item; }
  }
  if (best) showTip(best[2], best[0], best[1]); else hideTip();
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
