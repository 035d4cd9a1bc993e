// The controls, what they show, and the words for it.

import { DENSITIES, OwnColumn, parseColumn } from "./densities.js";
import { Picture } from "./draw.js";
import { flowMatching, N_INDEPENDENT, N_TIMES, unitsOf } from "./flow.js";
import { mean } from "./numerics.js";
import { between, judge, stepsBack } from "./solve.js";
import { DELTA, Model, N_PATHS, N_STEPS, NOISES, noiseOf, pathAt, varianceOf } from "./sde.js";
import { fromAddress, OWN, SIZES, START, toAddress } from "./state.js";

const N_TEST = 10000, N_LINES = 19, N_SDE_LINES = 12, SECONDS = 5;  // of a play from 0 to 1
const MASS_TOLERANCE = 0.01;
const NAMES = { euler: "Euler", rk2: "rk2", rk4: "rk4" };
const element = id => document.getElementById(id);
const digits = (value, n = 4) => {
  if (!Number.isFinite(value)) return value > 0 ? "∞" : "−∞";
  const text = Math.abs(value) < 1e4 ? value.toFixed(n) : value.toExponential(2);
  return text.replace("-", "−").replace("e+", "e");
};
const short = value => String(Number(value.toPrecision(3))).replace("-", "−");

let state = { ...START }, own = null, problems = [];
const constants = { DELTA, N_INDEPENDENT, N_TIMES };
const shown = { timings: [], densities: DENSITIES, start: START, constants };  // for a console, tests
window.page = shown;

/** The value of f, computed anew only where the key is another one than before. */
function remembered() {
  let last, value;
  return (key, f) => {
    const now = JSON.stringify(key);
    if (now !== last) [value, last] = [f(), now];
    return value;
  };
}
const sampled = remembered(), matched = remembered(), stepped = remembered();
const modelled = remembered(), drawn = remembered(), simulated = remembered();

/** What is chosen, or a mixture of Gaussians where only such can be shown. */
function densityShown() {
  const chosen = state.density === OWN ? own : DENSITIES.get(state.density);
  return state.view === "ode" || chosen.isMixtureOfGaussians ? chosen : DENSITIES.get(START.density);
}

// ---- the ODE

function solveFlow() {
  const { n, seed, coupling, penalty, T, method, count } = state, density = densityShown();
  const data = [density.name, own?.values.length, own?.version, n, seed];
  const sample = sampled(data, () => {
    const y = density.sample(n, seed, 0), units = unitsOf(y);
    const inUnits = v => (v - units.loc) / units.scale;
    const quadrature = density.quadrature, test = density.sample(N_TEST, seed, 1);
    const expected = density.logP && mean(test.map(v => density.logP(v)));
    const [x, nodes] = [y, quadrature[0]].map(values => values.map(inUnits));
    return { y, test, expected, units, quadrature, x, nodes };
  });
  const fit = [...data, coupling, penalty];
  const drift = matched(fit, () => flowMatching(sample.x, coupling, penalty));
  const key = [...fit, T, method, count];
  return stepped(key, () => {
    const solved = stepsBack(drift, sample.nodes, T, method, count), { scale } = sample.units;
    const logQ = solved.logP?.[T].map(value => value - Math.log(scale));
    const found = logQ ? judge(density, sample.quadrature, logQ, sample.test) : null;
    return { key, density, sample, drift, solved, logQ, found };
  });
}

/** Where a density is worth showing: the range of its bulk. */
function rangeOf({ density, sample: { y, quadrature: [nodes] } }) {
  if (density.support) {
    const p = nodes.map(v => Math.exp(density.logP(v))), least = 2e-3 * Math.max(...p);
    const seen = nodes.filter((_, i) => p[i] > least), margin = 0.06 * (seen.at(-1) - seen[0]);
    return [seen[0] - margin, seen.at(-1) + margin];
  }
  const margin = 0.08 * (y.at(-1) - y[0]);
  return [y[0] - margin, y.at(-1) + margin];
}

function drawFlow(flow) {
  const { density, sample, solved, logQ } = flow, { loc, scale } = sample.units, { t, T } = state;
  const inData = values => values.map(x => loc + scale * x), range = rangeOf(flow);
  const heights = [Math.min(range[0], loc - 3.2 * scale), Math.max(range[1], loc + 3.2 * scale)];
  const map = new Picture(element("map"), { x: [0, 1], y: heights, xLabel: "t", yLabel: "state" });
  const times = Array.from({ length: T + 1 }, (_, k) => k / T);
  if (logQ) {
    const peak = Math.max(0.45 / scale, ...logQ.map(Math.exp));
    map.map(share => {
      const [x, p] = between(solved, share);
      return [inData(x), p.map(value => value / scale)];
    }, peak, flow.key);
  }
  const path = i => inData(Float64Array.from(solved.states, states => states[i]));
  for (const i of linesOf(sample, N_LINES)) map.line(times, path(i), "path", { width: 1 });
  for (const i of solved.fold?.states ?? []) map.line(times, path(i), "bound", { width: 0.6 });
  map.line([t, t], heights, "moment", { width: 2 });
  map.finish();

  const [nodes] = sample.quadrature, truth = density.logP && nodes.map(y => Math.exp(density.logP(y)));
  const q = logQ?.map(Math.exp), tallest = Math.max(...(truth ?? []), 0.3 / scale, ...quantileOf(q));
  const curve = new Picture(element("curve"), {
    x: range, y: [0, 1.08 * tallest], xLabel: "y", yLabel: "density",
  });
  curve.histogram(sample.y, range, 100, "data");
  if (truth) curve.line(nodes, truth, "truth", { width: 1.2 });
  if (q) curve.line(nodes, q, "model", { width: 2, dash: [6, 3] });
  if (q && t < 1) {
    const [x, p] = between(solved, t);
    curve.line(inData(x), p.map(value => value / scale), "moment", { width: 2 });
  }
  curve.finish();
}

/** A height that all but a few values keep below: a spike must not flatten all else. */
const quantileOf = q => q ? [Float64Array.from(q).sort()[Math.floor(0.99 * q.length)]] : [];

/** Which nodes the paths through so many quantiles of the data end at. */
function linesOf({ y, quadrature: [nodes] }, n) {
  const found = new Set();
  for (let k = 0; k < n; k++) {
    const at = y[Math.floor((k + 0.5) / n * y.length)];
    let i = 0;
    while (i < nodes.length - 1 && nodes[i + 1] - at < at - nodes[i]) i++;
    found.add(i);
  }
  return found;
}

function wordsOfFlow({ solved: { fold }, found, sample: { expected } }) {
  const { T, method, count, coupling } = state;
  if (fold) {
    const way = coupling === "sorted"
      ? "Take more steps, or a larger penalty." : "Take more steps, or sorted pairs.";
    return [true, `The ${NAMES[method]} step of size ${short(1 / T)} back from t = ${short(fold.t)} `
      + `folds the line: its slope is ${short(fold.r)} somewhere, and it must be positive. Two `
      + `values of y lead to one x, so there is no density, no mass and no KL. ${way}`];
  }
  const above = found.final > expected
    ? " The final log-likelihood is above the expected one, which no density is on average." : "";
  if (Math.abs(found.mass - 1) > MASS_TOLERANCE) {
    const way = count === "trace" ? "take more steps, or count by map" : "take more steps";
    return [true, `The mass is ${digits(found.mass, 3)}, not 1: this is no density, and its `
      + `log-likelihood is none to quote.${above} To mend it, ${way}.`];
  }
  const one = "The mass is one to within 0.01.";
  if (found.normalizedKl === undefined) return [false, `${one} The truth is unknown, so there is no KL.`];
  const how = coupling === "sorted"
    ? "Sorted pairs: no two paths of the regression cross, so those of the flow are nearly straight."
    : "Independent pairs: the paths of the regression cross, so those of the flow have to bend.";
  return [false, `${one} ${how}${found.mass > 1.0005 ? above : ""}`];
}

function showFlow() {
  const flow = solveFlow(), { found } = flow, { expected } = flow.sample;
  shown.ode = flow;
  drawFlow(flow);
  const none = "–", value = (key, n) => found?.[key] === undefined ? none : digits(found[key], n);
  numbers([
    ["mass", "Mass", value("mass"), found?.mass],
    ["kl", "KL, mass divided out", value("normalizedKl", 5), found?.normalizedKl],
    ["final", "Final log-likelihood", value("final"), found?.final],
    ["expected", "Expected log-likelihood", expected ? digits(expected) : none, expected],
  ]);
  say(...wordsOfFlow(flow));
  caption("map", flow.logQ
    ? "Paths of the flow, by steps back from the data; in colour its density."
    : "Paths, by steps back from the data.", { bound: flow.solved.fold && "folded" });
  caption("curve", "Density at t = 1.", { data: "data", truth: flow.density.logP && "truth",
    model: flow.logQ && "flow", moment: flow.logQ && state.t < 1 && `flow at t = ${short(state.t)}` });
}

// ---- the SDE

function showNoise() {
  const { seed, noise, r, t: u } = state, density = densityShown();
  const model = modelled(density.name, () => new Model(density));
  const integrals = drawn(density.name, () => model.integrals);
  const numbersOfNoise = simulated(seed, () => noiseOf(seed));
  const variance = varianceOf(noise, r), states = model.simulate(variance, numbersOfNoise);
  const bound = model.bound(variance), gap = integrals.expected - bound;
  shown.sde = { density, model, states, noise: numbersOfNoise, bound, gap, ...integrals, pathAt };
  drawNoise(model, states, u);
  drawGap(model, integrals, gap);
  numbers([
    ["gap", "Gap of the bound", digits(gap), gap],
    ["kl", "KL of the density", digits(integrals.kl, 5), integrals.kl],
    ["bound", "ELBO, mean", digits(bound), bound],
    ["expected", "Expected log-likelihood", digits(integrals.expected), integrals.expected],
  ]);
  const best = integrals.expected - model.bound(varianceOf("r", 1));
  const beside = noise === "r" && r === 1 ? ", and no noise makes it tighter"
    : `; with the best noise, r = 1, ${digits(best, 3)} nats`;
  const chosen = state.density === density.name ? "" : `${titleOf(state.density)} is no mixture of `
    + `Gaussians, so its best denoiser is no closed form: ${density.title} is shown. `;
  const size = noise === "r" ? `r = ${short(r)}` : noise === "one" ? "σ = 1" : "σ = √(2β)";
  say(!Number.isFinite(gap), chosen + (Number.isFinite(gap)
    ? `With ${size} the bound lies ${digits(gap, 3)} nats below the truth${beside}. The density is `
      + "the same for every noise."
    : "Without noise, r = 0, this is the ODE that has the same density. Its bound is minus "
      + "infinity: a path with noise and one without have nothing in common."));
  caption("map", `${N_SDE_LINES} paths, from the same random numbers for every noise; in colour the `
    + "density, the same for all.");
  caption("curve", `Density at u = 1: ${N_PATHS} paths in ${N_STEPS} steps.`,
    { data: "ends of the paths", truth: "truth", model: "density of the SDE",
      moment: u < 1 && `at u = ${short(u)}` });
  caption("gap", "How far the bound lies below the truth, by noise.",
    { bound: "σ² = r σ*²", moment: "the noise that is chosen", model: "KL of the density" });
}

const titleOf = key => key === OWN ? "Your column" : DENSITIES.get(key).title;

function drawNoise(model, states, u) {
  const { density, loc, scale } = model, [nodes] = density.quadrature;
  const truth = nodes.map(y => Math.exp(density.logP(y)));
  const range = rangeOf({ density, sample: { y: nodes, quadrature: [nodes] } });
  const heights = [Math.min(range[0], loc - 3.2 * scale), Math.max(range[1], loc + 3.2 * scale)];
  const map = new Picture(element("map"), { x: [0, 1], y: heights, xLabel: "clock u", yLabel: "state" });
  const grid = Float64Array.from({ length: 300 }, (_, i) => heights[0] + (i + 0.5) / 300 * (heights[1] - heights[0]));
  const inUnits = grid.map(y => (y - loc) / scale);
  const marginal = at => inUnits.map(model.marginal(pathAt(at))).map(p => p / scale);
  map.map(share => [grid, marginal(share)], Math.max(0.45 / scale, ...truth), [density.name]);
  const times = states.map((_, k) => k / N_STEPS);
  for (let i = 0; i < N_SDE_LINES; i++) {
    map.line(times, states.map(row => loc + scale * row[i]), "path", { width: 1 });
  }
  map.line([u, u], heights, "moment", { width: 2 });
  map.finish();

  const curve = new Picture(element("curve"), {
    x: range, y: [0, 1.15 * Math.max(...truth)], xLabel: "y", yLabel: "density",
  });
  curve.histogram(states[N_STEPS].map(x => loc + scale * x), range, 48, "data");
  curve.line(nodes, truth, "truth", { width: 1.2 });
  curve.line(nodes, nodes.map(model.modelled), "model", { width: 2, dash: [6, 3] });
  if (u < 1) curve.line(grid, marginal(u), "moment", { width: 2 });
  curve.finish();
}

function drawGap(model, { expected, kl }, gap) {
  const sizes = Array.from({ length: 65 }, (_, k) => 2 ** (k / 8 - 4));
  const gapOf = (noise, r) => expected - model.bound(varianceOf(noise, r));
  const gaps = sizes.map(r => gapOf("r", r)), [one, root] = ["one", "root"].map(name => gapOf(name));
  const low = 10 ** Math.floor(Math.log10(Math.min(Math.max(kl, 1e-6), ...gaps)));
  const high = 10 ** Math.ceil(Math.log10(Math.max(one, root, ...gaps)));
  const ends = [1 / 16, 16];
  const picture = new Picture(element("gap"), {
    x: ends, y: [low, high], logX: true, logY: true, xLabel: "r", yLabel: "nats",
    xTicks: [0.0625, 0.25, 1, 4, 16],
  });
  picture.line(sizes, gaps, "bound", { width: 2 });
  picture.line(ends, [kl, kl], "model", { width: 2, dash: [6, 3] });
  for (const [value, words] of [[one, "σ = 1"], [root, "σ = √(2β)"]]) {
    picture.line(ends, [value, value], "path", { width: 1, dash: [2, 3] });
    picture.note(words, 1, value);
  }
  if (state.noise !== "r") picture.line(ends, [gap, gap], "moment", { width: 2 });
  else if (state.r >= ends[0]) picture.dot(state.r, gap, "moment");
  picture.finish();
}

// ---- the page

function numbers(rows) {
  const parts = rows.map(([id, name, text, value]) => {
    const row = document.createElement("div");
    const [term, number] = ["dt", "dd"].map(tag => document.createElement(tag));
    term.textContent = name;
    number.textContent = text;
    number.id = `value-${id}`;
    number.dataset.value = value ?? "";
    row.append(term, number);
    return row;
  });
  element("numbers").replaceChildren(...parts);
}

function say(isProblem, text) {
  const words = element("words"), all = [...problems, text].join(" ");
  words.classList.toggle("problem", isProblem || problems.length > 0);
  if (words.textContent !== all) words.textContent = all;
}

function caption(id, text, keys = {}) {
  const parts = Object.entries(keys).filter(([, words]) => words).map(([name, words]) => {
    const key = document.createElement("span");
    key.className = "key";
    key.style.setProperty("--c", `var(--${name})`);
    key.textContent = words;
    return key;
  });
  element(`${id}-caption`).replaceChildren(text, ...parts.flatMap(key => [" ", key]));
}

// Of each slider: from its place to a value of the state, and back.
const SLIDERS = {
  n: [k => SIZES[k], n => SIZES.findIndex(size => size >= n)],
  seed: [k => k, seed => seed],
  penalty: [k => 10 ** k, penalty => Math.round(Math.log10(penalty))],
  T: [k => k, T => T],
  t: [t => t, t => t],
  r: [k => k ? Number((2 ** ((k - 17) / 4)).toPrecision(3)) : 0,
    r => r ? Math.max(1, Math.round(17 + 4 * Math.log2(r))) : 0],
};
const RADIOS = ["view", "coupling", "method", "count", "noise"];

/** Put the controls where the state is. */
function setControls() {
  for (const [id, [, place]] of Object.entries(SLIDERS)) {
    element(id).value = place(state[id]);
    element(`${id}-out`).textContent = short(state[id]);
    element(id).setAttribute("aria-valuetext", short(state[id]));
  }
  element("n-out").textContent = state.density === OWN
    ? `${shown.ode?.sample.y.length ?? ""} of yours` : state.n;
  for (const name of RADIOS) {
    for (const radio of document.getElementsByName(name)) radio.checked = radio.value === state[name];
  }
  for (const part of document.querySelectorAll(".ode, .sde")) {
    part.hidden = !part.classList.contains(state.view);
  }
  element("t-name").textContent = state.view === "ode" ? "t" : "clock u";
  element("r").disabled = state.noise !== "r";
  const density = densityShown();
  for (const option of element("density").options) {
    const of = option.value === OWN ? own : DENSITIES.get(option.value);
    option.disabled = !of || state.view === "sde" && !of.isMixtureOfGaussians;
  }
  element("density").value = density.name;
  element("formula").textContent = density.formula;
  element("theme").value = state.theme;
  const isDark = state.theme === "auto" ? darkSystem.matches : state.theme === "dark";
  document.documentElement.dataset.theme = isDark ? "dark" : "light";
}

let waiting = false, writing = 0;

/** Take over a change, and draw before the next frame: many changes at once are drawn once. */
function change(part) {
  state = { ...state, ...part };
  problems = [];
  refresh();
}

function refresh() {
  if (waiting) return;
  waiting = true;
  requestAnimationFrame(() => {
    waiting = false;
    const start = performance.now();
    setControls();
    (state.view === "ode" ? showFlow : showNoise)();
    shown.state = state;
    shown.timings.push(performance.now() - start);
    element("time").textContent = `Solved and drawn in ${Math.round(shown.timings.at(-1))} ms.`;
    clearTimeout(writing);  // a browser allows only so many addresses a second
    writing = setTimeout(() => history.replaceState(null, "", toAddress(state)), 150);
  });
}

function readAddress() {
  [state, problems] = fromAddress(location.hash);
  if (state.density === OWN && !own) {
    problems.push("The column of your own is not in the address: paste it again.");
    state.density = START.density;
  }
  refresh();
}

let playing = 0;

function play() {
  const isOn = !playing, button = element("play");
  cancelAnimationFrame(playing);
  playing = 0;
  button.setAttribute("aria-pressed", isOn);
  button.textContent = isOn ? "Stop" : "Play";
  if (!isOn) return;
  const start = performance.now(), from = state.t < 1 ? state.t : 0;
  const frame = now => {
    const t = Math.min(1, from + (now - start) / (1000 * SECONDS));
    change({ t: Math.max(from, Number(t.toFixed(3))) });
    if (t < 1) playing = requestAnimationFrame(frame);
    else play();
  };
  playing = requestAnimationFrame(frame);
}

function useOwn() {
  const problem = element("own-problem");
  problem.textContent = "";
  try {
    const version = (own?.version ?? 0) + 1;
    own = Object.assign(new OwnColumn(parseColumn(element("pasted").value)), { version });
    change({ density: OWN });
  } catch (error) {
    problem.textContent = error.message;
  }
}

function fillDensities() {
  const groups = new Map();
  for (const { name, title, group } of DENSITIES.values()) {
    if (!groups.has(group)) {
      const parent = group ? document.createElement("optgroup") : element("density");
      if (group) parent.label = group;
      groups.set(group, parent);
      if (group) element("density").append(parent);
    }
    groups.get(group).append(new Option(title, name));
  }
  element("density").append(new Option("Your own column", OWN));
}

const darkSystem = matchMedia("(prefers-color-scheme: dark)");
fillDensities();
for (const [id, [value]] of Object.entries(SLIDERS)) {
  element(id).addEventListener("input", () => change({ [id]: value(Number(element(id).value)) }));
}
for (const name of RADIOS) {
  for (const radio of document.getElementsByName(name)) {
    radio.addEventListener("change", () => change({ [name]: radio.value }));
  }
}
for (const id of ["density", "theme"]) {
  element(id).addEventListener("change", () => change({ [id]: element(id).value }));
}
element("play").addEventListener("click", play);
element("use").addEventListener("click", useOwn);
element("copy").addEventListener("click", async () => {
  const address = location.href.split("#")[0] + toAddress(state);
  await navigator.clipboard.writeText(address).catch(() => prompt("The link:", address));
});
darkSystem.addEventListener("change", refresh);
addEventListener("resize", refresh);
addEventListener("hashchange", readAddress);
readAddress();
