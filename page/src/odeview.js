// The ODE's pictures, numbers and words, from what is chosen.

import { Picture } from "./draw.js";
import { flowMatching, unitsOf } from "./flow.js";
import { mean } from "./numerics.js";
import { smoothDensity } from "./smooth.js";
import { between, judge, stepsBack } from "./solve.js";
import { digits, element, rangeOf, remembered, short } from "./words.js";

const N_TEST = 10000, N_LINES = 19;
const MASS_TOLERANCE = 0.01;
const DEVIATIONS = 1.959964;  // of a normal variable, 95 %
const NAMES = { euler: "Euler", rk2: "rk2", rk4: "rk4" };
const sampled = remembered(), smoothed = remembered();
const matched = remembered(), stepped = remembered();

function solveFlow({ n, seed, coupling, penalty, T, method, count, band: shown }, density) {
  const data = [density.name, density.version, n, seed];
  const sample = sampled(data, () => {
    const y = density.sample(n, seed, 0), units = unitsOf(y);
    const inUnits = v => (v - units.loc) / units.scale;
    const quadrature = density.quadrature, test = density.sample(N_TEST, seed, 1);
    const expected = density.logP && mean(test.map(v => density.logP(v)));
    const [x, nodes] = [y, quadrature[0]].map(values => values.map(inUnits));
    return { y, test, expected, units, quadrature, x, nodes };
  });
  const band = shown === "on" && smoothed(data, () => bandOf(sample));
  const fit = [...data, coupling, penalty], key = [...fit, T, method, count];
  const drift = matched(fit, () => flowMatching(sample.x, coupling, penalty));
  const flow = stepped(key, () => {
    const solved = stepsBack(drift, sample.nodes, T, method, count), { scale } = sample.units;
    const logQ = solved.logP?.[T].map(value => value - Math.log(scale));
    const found = logQ ? judge(density, sample.quadrature, logQ, sample.test) : null;
    return { key, density, sample, drift, solved, logQ, found };
  });
  return { ...flow, band };
}

/** Places in the data's units, and the ends of the band there. */
function bandOf({ x, units: { loc, scale } }) {
  const smooth = smoothDensity(x);
  const end = sign => smooth.logP.map(
    (logP, k) => Math.exp(logP + sign * DEVIATIONS * smooth.sd[k]) / scale);
  return { y: smooth.x.map(v => loc + scale * v), low: end(-1), high: end(1) };
}

function drawPaths({ key, density, sample, solved, logQ }, { t, T }) {
  const { loc, scale } = sample.units, inData = values => values.map(x => loc + scale * x);
  const [low, high] = rangeOf(density, sample.y);
  const heights = [Math.min(low, loc - 3.2 * scale), Math.max(high, loc + 3.2 * scale)];
  const map = new Picture(element("map"), { x: [0, 1], y: heights, xLabel: "t", yLabel: "state" });
  if (logQ) {
    const peak = Math.max(0.45 / scale, ...logQ.map(Math.exp));
    map.map(share => {
      const [x, p] = between(solved, share);
      return [inData(x), p.map(value => value / scale)];
    }, peak, key);
  }
  const times = Array.from({ length: T + 1 }, (_, k) => k / T);
  const path = i => inData(Float64Array.from(solved.states, states => states[i]));
  for (const i of linesOf(sample)) map.line(times, path(i), "path", { width: 1 });
  for (const i of solved.fold?.states ?? []) map.line(times, path(i), "bound", { width: 0.6 });
  map.line([t, t], heights, "moment", { width: 2 });
  map.finish();
}

/** Which nodes the paths through evenly spread quantiles of the data end at. */
function linesOf({ y, quadrature: [nodes] }) {
  const found = new Set();
  for (let k = 0; k < N_LINES; k++) {
    const at = y[Math.floor((k + 0.5) / N_LINES * y.length)];
    let i = 0;
    while (i < nodes.length - 1 && nodes[i + 1] - at < at - nodes[i]) i++;
    found.add(i);
  }
  return found;
}

function drawDensity({ density, sample, solved, logQ, band }, { t }) {
  const { loc, scale } = sample.units, [nodes] = sample.quadrature;
  const truth = density.logP && nodes.map(y => Math.exp(density.logP(y))), q = logQ?.map(Math.exp);
  const bulk = q ? [Float64Array.from(q).sort()[Math.floor(0.99 * q.length)]] : [];  // no spikes
  const range = rangeOf(density, sample.y), top = Math.max(...(truth ?? []), 0.3 / scale, ...bulk);
  const curve = new Picture(element("curve"), {
    x: range, y: [0, 1.08 * top], xLabel: "y", yLabel: "density",
  });
  curve.histogram(sample.y, range, 100, "data");
  if (band) curve.area(band.y, band.low, band.high, "band");
  if (truth) curve.line(nodes, truth, "truth", { width: 1.2 });
  if (q) curve.line(nodes, q, "model", { width: 2, dash: [6, 3] });
  if (q && t < 1) {
    const [x, p] = between(solved, t);
    curve.line(x.map(v => loc + scale * v), p.map(v => v / scale), "moment", { width: 2 });
  }
  curve.finish();
}

/** Whether something is wrong, and what is to be said. */
function wordsOf({ solved: { fold }, found, sample: { expected } }, state) {
  const { T, method, count, coupling } = state;
  if (fold) {
    const way = coupling === "sorted" ? "a larger penalty" : "sorted pairs";
    return [true, `The ${NAMES[method]} step of size ${short(1 / T)} back from `
      + `t = ${short(fold.t)} folds the line: its slope is ${short(fold.r)} somewhere, and it must `
      + "be positive. Two values of y lead to one x, so there is no density, no mass and no KL. "
      + `Take more steps, or ${way}.`];
  }
  const above = found.final > expected
    ? " The final log-likelihood is above the expected one, which no density is on average." : "";
  if (Math.abs(found.mass - 1) > MASS_TOLERANCE) {
    const way = count === "trace" ? "take more steps, or count by map" : "take more steps";
    return [true, `The mass is ${digits(found.mass, 3)}, not 1: this is no density, and its `
      + `log-likelihood is none to quote.${above} To mend it, ${way}.`];
  }
  const one = "The mass is one to within 0.01.";
  if (expected === undefined) return [false, `${one} The truth is unknown, so there is no KL.`];
  const how = coupling === "sorted"
    ? "Sorted pairs: no two paths of the regression cross, so the flow has nearly straight ones."
    : "Independent pairs: the paths of the regression cross, so those of the flow have to bend.";
  return [false, `${one} ${how}${found.mass > 1.0005 ? above : ""}`];
}

/** Solve and draw; what was computed, and what the page is to say of it. */
export function showFlow(state, density) {
  const flow = solveFlow(state, density), { found, logQ, sample: { expected } } = flow;
  drawPaths(flow, state);
  drawDensity(flow, state);
  return {
    ...flow,
    numbers: [
      ["mass", "Mass", found?.mass, 4],
      ["kl", "KL, mass divided out", found?.normalizedKl, 5],
      ["final", "Final log-likelihood", found?.final, 4],
      ["expected", "Expected log-likelihood", expected, 4],
    ],
    words: wordsOf(flow, state),
    captions: {
      map: logQ ? ["Paths of the flow, by steps back from the data; in colour its density."]
        : ["Paths, by steps back from the data.", { bound: "folded" }],
      curve: ["Density at t = 1.", {
        data: "data", truth: density.logP && "truth", model: logQ && "flow",
        band: flow.band && "95 % band, pointwise",
        moment: logQ && state.t < 1 && `flow at t = ${short(state.t)}`,
      }],
    },
  };
}
