// The SDE's pictures, numbers and words, from what is chosen.

import { Picture } from "./draw.js";
import { grid } from "./numerics.js";
import { Model, N_PATHS, N_STEPS, noiseOf, pathAt, varianceOf } from "./sde.js";
import { digits, element, rangeOf, remembered, short } from "./words.js";

const N_LINES = 12;
const ENDS = [1 / 16, 16];  // of r in the picture of the gap
const modelled = remembered(), integrated = remembered(), drawn = remembered();

function drawPaths({ density, loc, scale, marginal }, states, u) {
  const [nodes] = density.quadrature, truth = nodes.map(y => Math.exp(density.logP(y)));
  const range = rangeOf(density), low = Math.min(range[0], loc - 3.2 * scale);
  const high = Math.max(range[1], loc + 3.2 * scale);
  const map = new Picture(element("map"), {
    x: [0, 1], y: [low, high], xLabel: "clock u", yLabel: "state",
  });
  const y = grid(300, i => low + (i + 0.5) / 300 * (high - low)), x = y.map(v => (v - loc) / scale);
  const at = clock => x.map(marginal(pathAt(clock))).map(p => p / scale);
  map.map(share => [y, at(share)], Math.max(0.45 / scale, ...truth), density.name);
  const times = states.map((_, k) => k / N_STEPS);
  for (let i = 0; i < N_LINES; i++) {
    map.line(times, states.map(row => loc + scale * row[i]), "path", { width: 1 });
  }
  map.line([u, u], [low, high], "moment", { width: 2 });
  map.finish();
  return { nodes, truth, range, moment: [y, at(u)] };
}

function drawDensity({ loc, scale, modelled: q }, ends, { nodes, truth, range, moment }, u) {
  const curve = new Picture(element("curve"), {
    x: range, y: [0, 1.15 * Math.max(...truth)], xLabel: "y", yLabel: "density",
  });
  curve.histogram(ends.map(x => loc + scale * x), range, 48, "data");
  curve.line(nodes, truth, "truth", { width: 1.2 });
  curve.line(nodes, nodes.map(q), "model", { width: 2, dash: [6, 3] });
  if (u < 1) curve.line(...moment, "moment", { width: 2 });
  curve.finish();
}

function drawGap(gapOf, kl, gap, { noise, r }) {
  const sizes = grid(65, k => 2 ** (k / 8 - 4)), gaps = sizes.map(size => gapOf("r", size));
  const [one, root] = ["one", "root"].map(gapOf);
  const picture = new Picture(element("gap"), {
    x: ENDS, logX: true, xLabel: "r", xTicks: [1 / 16, 1 / 4, 1, 4, 16],
    y: [
      10 ** Math.floor(Math.log10(Math.min(Math.max(kl, 1e-6), ...gaps))),
      10 ** Math.ceil(Math.log10(Math.max(one, root, ...gaps))),
    ],
    logY: true, yLabel: "nats",
  });
  picture.line(sizes, gaps, "bound", { width: 2 });
  picture.line(ENDS, [kl, kl], "model", { width: 2, dash: [6, 3] });
  for (const [value, words] of [[one, "σ = 1"], [root, "σ = √(2β)"]]) {
    picture.line(ENDS, [value, value], "path", { width: 1, dash: [2, 3] });
    picture.note(words, 1, value);
  }
  if (noise !== "r") picture.line(ENDS, [gap, gap], "moment", { width: 2 });
  else if (r >= ENDS[0]) picture.dot(r, gap, "moment");
  picture.finish();
}

/** Whether something is wrong, and what is to be said. */
function wordsOf(gap, best, { noise, r }) {
  if (!Number.isFinite(gap)) {
    return [true, "Without noise, r = 0, this is the ODE that has the same density. Its bound is "
      + "minus infinity: a path with noise and one without have nothing in common."];
  }
  const size = { r: `r = ${short(r)}`, one: "σ = 1", root: "σ = √(2β)" }[noise];
  const beside = noise === "r" && r === 1 ? ", and no noise makes it tighter"
    : `; with the best noise, r = 1, ${digits(best, 3)} nats`;
  return [false, `With ${size} the bound lies ${digits(gap, 3)} nats below the truth${beside}. The `
    + "density is the same for every noise."];
}

/** Compute and draw; what was computed, and what the page is to say of it. */
export function showNoise(state, density) {
  const { seed, noise, r, t: u } = state, model = modelled(density.name, () => new Model(density));
  const { expected, kl } = integrated(density.name, () => model.integrals);
  const numbers = drawn(seed, () => noiseOf(seed)), variance = varianceOf(noise, r);
  const states = model.simulate(variance, numbers);
  const gapOf = (name, size) => expected - model.bound(varianceOf(name, size));
  const gap = gapOf(noise, r);
  drawDensity(model, states[N_STEPS], drawPaths(model, states, u), u);
  drawGap(gapOf, kl, gap, state);
  return {
    density, model, states, noise: numbers,
    numbers: [
      ["gap", "Gap of the bound", gap, 4],
      ["kl", "KL of the density", kl, 5],
      ["bound", "ELBO, mean", expected - gap, 4],
      ["expected", "Expected log-likelihood", expected, 4],
    ],
    words: wordsOf(gap, gapOf("r", 1), state),
    captions: {
      map: [`${N_LINES} paths, from the same random numbers for every noise; in colour the `
        + "density, the same for all."],
      curve: [`Density at u = 1: ${N_PATHS} paths in ${N_STEPS} steps.`, {
        data: "ends of the paths", truth: "truth", model: "density of the SDE",
        moment: u < 1 && `at u = ${short(u)}`,
      }],
      gap: ["How far the bound lies below the truth, by noise.", {
        bound: "σ² = r σ*²", moment: "the noise that is chosen", model: "KL of the density",
      }],
    },
  };
}
