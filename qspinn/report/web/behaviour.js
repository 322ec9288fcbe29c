// How the winner fires, layer by layer, beside its 32-bit twin on the same samples.
const MOST_LAYERS = 60;

function drawBehaviour(drift) {
  at("behaviour").hidden = drift === null;
  if (drift === null) return;
  const layers = drift.layers || [], count = drift.samples === undefined ? "the" : whole(drift.samples);
  const parts = drift.agreement === null ? [] : [`${percent(drift.agreement, 1)}% of ${count} samples get the same class from both networks.`];
  if (drift.first_layer) parts.push(`The first layer to differ is ${drift.first_layer}.`);
  else if (layers.length) parts.push("All spikes are the same.");
  at("behaves").textContent = [...parts, ...(drift.notes || []).map((note) => `${note}.`)].join(" ");
  for (const line of drift.warnings || []) make(at("warnings"), "li", {}, line);
  if (!layers.length) return;
  drawRates(layers.slice(0, MOST_LAYERS));
  const share = (x) => `${percent(x, 1)}%`;
  const rows = layers.map((l) => [l.layer, `${l.neurons}`, `${percent(l.reference_rate)}% → ${percent(l.rate)}%`,
    `${share(l.reference_silent)} → ${share(l.silent)}`, `${share(l.reference_saturated)} → ${share(l.saturated)}`,
    l.rate_distance.toFixed(4), l.first_step === null ? "same" : `step ${l.first_step}, neuron ${l.first_neuron.join(",")}`]);
  simpleTable(at("drift"), ["layer", "neurons", "firing rate", "silent", "saturated", "distance of rates", "first difference"], rows, [1, 2, 3, 4, 5]);
}

function drawRates(layers) {
  const row = 34, W = 720, left = 190, H = 34 + row * layers.length;
  const label = layers.map((l) => `${l.layer}: ${percent(l.reference_rate)}% before, ${percent(l.rate)}% after`).join("; ");
  const svg = draw(at("rates"), "svg", { viewBox: `0 0 ${W} ${H}`, role: "img", "aria-label": `Firing rates. ${label}` });
  const most = Math.max(1e-9, ...layers.flatMap((l) => [l.rate, l.reference_rate])), X = (r) => left + (r / most) * (W - left - 120);
  draw(svg, "text", { x: left, y: 16 }, "spikes per neuron and step: outline 32-bit, filled quantised");
  layers.forEach((l, i) => {
    const y = 26 + row * i, name = l.layer || "the network";
    draw(svg, "text", { x: left - 8, y: y + 17, "text-anchor": "end" }, name.length > 26 ? `…${name.slice(-25)}` : name);
    draw(svg, "rect", { class: "after", x: left, y: y + 6, width: X(l.rate) - left, height: 14 });
    draw(svg, "rect", { class: "before", x: left, y: y + 3, width: X(l.reference_rate) - left, height: 20 });
    draw(svg, "text", { x: Math.max(X(l.rate), X(l.reference_rate)) + 6, y: y + 17 }, `${percent(l.reference_rate)}% → ${percent(l.rate)}%`);
  });
}
