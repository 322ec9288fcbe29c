// Bounds as sliders: every notch is where the choice may change.
const SLIDERS = [];

function notches(values, bound, none) {
  const found = [...new Set([...values, ...(bound === null ? [] : [bound])])].sort((a, b) => a - b);
  return none ? [...found, null] : found;
}

function slider(name, title, values, text) {
  const box = make(at("sliders"), "div"), id = `slide-${name}`;
  const label = make(box, "label", { for: id }, `${title} `), output = make(label, "output", { for: id });
  const input = make(box, "input", { type: "range", id, min: 0, max: values.length - 1, step: 1 });
  const show = () => {
    input.value = values.indexOf(bounds[name]);
    output.textContent = text(bounds[name]);
    input.setAttribute("aria-valuetext", text(bounds[name]));
  };
  input.addEventListener("input", () => { bounds[name] = values[+input.value]; chosenAnew(); });
  SLIDERS.push(show);
  show();
}

function beginSliders() {
  at("bounds").hidden = data.mu === null || data.points.length < 2;
  if (at("bounds").hidden) return;
  const known = (name) => data.points.map((p) => p[name]).filter((x) => x !== null);
  const drops = known("drop").map((x) => Math.ceil(1000 * x - 1e-6) / 1000).filter((x) => x <= 0.3);
  if (drops.length) slider("max_drop", "accuracy lost at most", notches(drops, bounds.max_drop, true), (x) => (x === null ? "any" : `${percent(x)} points`));
  const learning = data.learning ? " to learn" : "";
  for (const [name, place] of [["flash", "flash"], ["ram", "RAM"]])
    if (known(name).length) slider(name, `${place}${learning} at most`, notches(known(name), bounds[name], true), (x) => (x === null ? "any" : memory(x)));
  const weights = new Set([0, ...data.turns, data.mu]);
  for (let e = -3; e <= 1; e += 0.25) weights.add(+(10 ** e).toPrecision(2));
  slider("mu", "mu, the worth of memory", notches(weights, null, false), (x) => `${+x.toPrecision(3)}`);
  at("reset").addEventListener("click", () => { Object.assign(bounds, data.bounds, { mu: data.mu }); chosenAnew(); at("slide-mu").focus(); });
}

// Test figures are for what select.py chose: who compares them while choosing, chooses by them.
function sayChoice(best) {
  SLIDERS.forEach((show) => show());
  const made = asMade();
  at("reset").hidden = made;
  at("choice").textContent = "";
  at("command").replaceChildren();
  if (made) return;
  const text = best === null ? "Nothing meets these bounds." : `With these bounds: #${best.number} ${best.title}: ${best.reduction.toFixed(1)}x smaller, ${best.drop === null ? `${percent(best.accuracy)}%` : beside(best.drop)} by ${data.chosen_by} accuracy.`;
  at("choice").textContent = text;
  const value = (name) => (bounds[name] === null ? "null" : name === "max_drop" ? +bounds[name].toPrecision(12) : `${bounds[name]}bit`);
  const words = Object.keys(data.bounds).filter((name) => bounds[name] !== data.bounds[name]).map((name) => `target.${name}=${value(name)}`);
  if (bounds.mu !== data.mu) words.push(`reward.mu=${bounds.mu}`);
  make(at("command"), "span", {}, "The same in the terminal, with the figures on test data: ");
  make(at("command"), "code", {}, `python select.py ... ${words.join(" ")}`);
}
