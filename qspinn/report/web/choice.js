"use strict";
// All texts of records go in through textContent and setAttribute: none is ever read as HTML.
const data = JSON.parse(document.getElementById("data").textContent);
const SVG = "http://www.w3.org/2000/svg";
const TOLERANCE = 1.5e-7; // as qspinn.selection.target: accuracies come as float32
const STATES = { front: "on the front", dominated: "dominated", dropped: "misses the target" };
const at = (id) => document.getElementById(id);
const percent = (x, d = 2) => (100 * x).toFixed(d).replace(/^-(0\.0*)$/, "$1");
const whole = (x) => Math.round(x).toLocaleString("en-US");
const significant = (x) => (Math.abs(x) < 10 ? x.toFixed(2) : Math.abs(x) < 100 ? x.toFixed(1) : x.toFixed(0));

function memory(bits) {
  const bytes = bits / 8;
  if (Math.abs(bytes) < 128) return `${whole(bits)} bits`;
  if (Math.abs(bytes) < 1024) return `${whole(bytes)} B`;
  const power = Math.abs(bytes) < 1000 * 1024 ? 1 : Math.abs(bytes) < 1000 * 1024 ** 2 ? 2 : 3;
  return `${significant(bytes / 1024 ** power)} ${"KMG"[power - 1]}iB`;
}
function energy(nanojoules) {
  for (const [unit, factor] of [["nJ", 1], ["uJ", 1e3], ["mJ", 1e6]])
    if (Math.abs(nanojoules / factor) < 1000) return `${significant(nanojoules / factor)} ${unit}`;
  return `${significant(nanojoules / 1e9)} J`;
}
const beside = (drop) => `${percent(Math.abs(drop))} points ${drop < 0 ? "above" : "below"} 32-bit`;

function make(parent, name, attributes = {}, text = null, space = null) {
  const node = space ? document.createElementNS(space, name) : document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) node.setAttribute(key, value);
  if (text !== null) node.textContent = text;
  parent.append(node);
  return node;
}
const draw = (parent, name, attributes, text = null) => make(parent, name, attributes, text, SVG);

// The definition of qspinn.selection: smaller and more accurate; equal points are all on it.
function paretoFront(points) {
  const front = [];
  for (const p of [...points].sort((a, b) => a.bits - b.bits || b.accuracy - a.accuracy)) {
    const last = front[front.length - 1];
    if (!last || p.accuracy > last.accuracy || (p.accuracy === last.accuracy && p.bits === last.bits)) front.push(p);
  }
  return front;
}

// What is chosen under bounds: states and rewards of all points are set, the winner is returned.
const bounds = { ...data.bounds, mu: data.mu };
const asMade = () => Object.keys(bounds).every((name) => bounds[name] === (name === "mu" ? data.mu : data.bounds[name]));

function misses(p) {
  const reasons = p.hard ? [p.hard] : [];
  if (bounds.max_drop !== null) {
    if (p.drop === null) reasons.push("no 32-bit baseline");
    else if (p.drop > bounds.max_drop + TOLERANCE) reasons.push(`loses ${percent(p.drop)} points`);
  }
  for (const [name, place] of [["flash", "flash"], ["ram", "RAM"]]) {
    if (bounds[name] === null) continue;
    if (p[name] === null) reasons.push(`${place} not known`);
    else if (p[name] > bounds[name]) reasons.push(`needs ${memory(p[name])} of ${place}`);
  }
  return reasons.join("; ");
}

function choose() {
  if (asMade()) {
    data.points.forEach((p) => { p.state = p.made; p.why = p.made_why; p.reward = p.made_reward; });
    return data.winner === null ? null : data.points[data.winner];
  }
  const kept = [];
  for (const p of data.points) {
    p.why = misses(p);
    p.state = p.why ? "dropped" : "dominated";
    p.reward = p.why ? undefined : p.accuracy - bounds.mu * p.share;
    if (!p.why) kept.push(p);
  }
  let best = null;
  for (const p of paretoFront(kept)) {
    p.state = "front";
    if (best === null || p.reward > best.reward || (p.reward === best.reward && (p.bits < best.bits || (p.bits === best.bits && p.path < best.path)))) best = p;
  }
  return best;
}
