const FILTERS = ["scheme", "rounding", "network", "data", "state"];

function chosenAnew() {
  winner = choose();
  sayChoice(winner);
  update();
}

function update() {
  const wanted = {};
  for (const name of FILTERS) {
    const boxes = [...document.querySelectorAll(`input[name="${name}"]`)];
    wanted[name] = boxes.length ? new Set(boxes.filter((box) => box.checked).map((box) => box.value)) : null;
  }
  visible = data.points.filter((p) => FILTERS.every((name) => wanted[name] === null || wanted[name].has(p[name])));
  at("count").textContent = `${whole(visible.length)} of ${whole(data.points.length)} shown` +
    (data.left_out ? `; ${whole(data.left_out)} more, none of them on the front, are only in selection.csv` : "");
  drawChart();
  drawRows();
}

function beginFilters() {
  for (const name of FILTERS) {
    const values = name === "state" ? Object.keys(STATES) : distinct(name);
    if (values.length < 2) continue;
    const set = make(at("filters"), "fieldset");
    make(set, "legend", {}, name);
    for (const value of values) {
      const label = make(set, "label"), box = make(label, "input", { type: "checkbox", name, value });
      box.checked = true;
      label.append(` ${name === "state" ? STATES[value] : value}`);
      box.addEventListener("change", update);
    }
  }
  if (data.lowest_shown === null) return;
  const set = make(at("filters"), "fieldset");
  make(set, "legend", {}, "picture");
  const label = make(set, "label");
  make(label, "input", { type: "checkbox", name: "picture", value: "all", id: "all-accuracies" }).addEventListener("change", drawChart);
  label.append(" with what lies far below the target");
}

function beginLegend() {
  const legend = at("legend");
  const key = (text, attributes) => { const svg = draw(legend, "svg", { class: "key", viewBox: "0 0 16 16", "aria-hidden": "true" }); draw(svg, "path", attributes); legend.append(` ${text}   `); };
  for (const scheme of distinct("scheme")) key(scheme === "none" ? "none (32-bit)" : scheme.toUpperCase(), { class: `mark ${scheme}`, d: shape("circle", 8, 8, 5) });
  for (const rounding of roundings) key(rounding, { class: "mark none hollow", d: shape(shapeOf({ rounding }), 8, 8, 5) });
  legend.append("filled: on the front, with its 95% confidence interval; hollow: not on it, with the standard deviation over seeds; ring: the winner");
}

function begin() {
  data.points.forEach((p) => { p.made = p.state; p.made_why = p.why; p.made_reward = p.reward; });
  at("by").textContent = data.chosen_by;
  at("headline").textContent = data.headline.replaceAll("-bit", "\u2011bit");
  for (const line of data.details) make(at("details"), "li", {}, line);
  at("terms").textContent = `Target: ${data.target}. Reward: ${data.reward}. Hypervolume of the front: ${data.hypervolume.toFixed(4)} (reference: the 32-bit footprint, accuracy 0). A candidate is off the front when another is at least as small and as accurate, and better in one; the line is the front of what the filters show.`;
  at("common").textContent = data.common ? `All quantised candidates: ${data.common}.` : "";
  beginSliders();
  beginFilters();
  beginLegend();
  at("plot").addEventListener("pointermove", hover);
  at("plot").addEventListener("pointerleave", hideTip);
  document.addEventListener("keydown", (event) => { if (event.key === "Escape") hideTip(); });
  let width = 0;
  new ResizeObserver(() => { if (at("chart").clientWidth !== width) { width = at("chart").clientWidth; drawChart(); } }).observe(at("chart"));
  const mu = (x) => (x === null ? "no end" : `${+x.toPrecision(4)}`);
  simpleTable(at("choices"), ["candidate", "from mu", "to mu"], data.choices.map((c) => [c.name, mu(c.from_mu), mu(c.to_mu)]), [1, 2]);
  at("share").textContent = data.summary.length ? data.summary[0] + (data.summary.length > 1 ? "; what is not, and why, stands below the table" : "") : "";
  list("summary", "quantized", data.summary);
  drawHeat();
  drawBehaviour(data.fidelity);
  list("work", "energy", data.work);
  list("model", "device", data.device);
  const formats = Object.entries(data.formats);
  at("formats").hidden = !formats.length;
  simpleTable(at("tensors"), ["tensor", "role", "format", "rounding", "overflow"], formats.map(([path, f]) => [path, f.role, f.format, f.rounding, f.overflow]));
  at("significance").hidden = !data.significance.length;
  for (const curve of data.significance) drawCurve(at("curves"), curve);
  list("notes", "remarks", [...data.notes, ...data.problems]);
  chosenAnew();
}
begin();
