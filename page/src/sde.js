// The SDE whose drift is the best denoiser of a mixture of Gaussians, with noise of any size.
// As dlutils/diffusion/parts.py, model.py and denoisers.py; x is the standardized data.

import { gaussLegendre, grid, normalQuantile, randomStream, total } from "./numerics.js";

export const DELTA = 0.02;  // standard deviation left at t = 1, and of the observation
export const N_STEPS = 400;  // on the clock
export const N_PATHS = 500;
const N_CLOCK = 48;  // nodes of the bound
const KAPPA = Math.log1p(DELTA ** -2);
const STEP = 0.2;  // of the grid of the least mean square error; the noise has sd 1

/** The linear path a y + beta eps when the clock shows u: t, a, beta, their rates, and dt/du. */
export function pathAt(u) {
  const s = DELTA * Math.expm1(KAPPA * u), t = Math.min(1, s / (1 + (1 - DELTA) * s));
  const beta = 1 - (1 - DELTA) * t, aRate = 1, betaRate = DELTA - 1;
  const rate = aRate * beta - t * betaRate;  // beta^2 times the rate of a / beta
  const dt = KAPPA * (t / beta + DELTA) * beta ** 2 / rate;
  return { t, a: t, beta, aRate, betaRate, dt, best: 2 * rate / (t / beta + DELTA) };
}

// sigma^2 on a path, by the name of the noise; `best` is what makes the bound tightest.
const VARIANCES = {
  r: (path, r) => r * path.best,
  one: () => 1,
  root: path => 2 * path.beta,
};
export const NOISES = Object.keys(VARIANCES);
export const varianceOf = (noise, r) => path => VARIANCES[noise](path, r);

/** A mixture of Gaussians in units of its mean and standard deviation. */
export class Model {
  constructor(density) {
    [this.loc, this.scale] = density.moments;
    this.density = density;
    this.parts = density.components.map(
      ([, weight, loc, scale]) => [weight, (loc - this.loc) / this.scale, scale / this.scale]);
    this.loss = this.lossPerClock();
    this.marginal = this.marginal.bind(this);
  }

  /** Of each component at a place of the path: what its share, its E[y | x] and Var[y | x] need. */
  componentsAt({ a, beta }) {
    return this.parts.map(([weight, mean, sd]) => {
      const variance = a * a * sd * sd + beta * beta;  // of x
      return {
        mean, centre: a * mean, gain: a * sd * sd / variance, half: 1 / (2 * variance),
        log: Math.log(weight / Math.sqrt(2 * Math.PI * variance)),
        spread: sd * sd * beta * beta / variance,
      };
    });
  }

  /** The best prediction E[y | x], as a function of x. */
  prediction(path) {
    const parts = this.componentsAt(path), n = parts.length, logs = new Float64Array(n);
    return x => {
      let top = -Infinity, all = 0, first = 0;
      for (let j = 0; j < n; j++) {
        const off = x - parts[j].centre;
        logs[j] = parts[j].log - off * off * parts[j].half;
        if (logs[j] > top) top = logs[j];
      }
      for (let j = 0; j < n; j++) {
        const share = Math.exp(logs[j] - top);
        all += share;
        first += share * (parts[j].mean + parts[j].gain * (x - parts[j].centre));
      }
      return first / all;
    };
  }

  /** The density of x, as a function of x. */
  marginal(path) {
    const parts = this.componentsAt(path);
    return x => {
      let p = 0;
      for (const { centre, half, log } of parts) p += Math.exp(log - (x - centre) ** 2 * half);
      return p;
    };
  }

  /** The drift for a noise of variance sigma^2: that of the path, with E[y | x] for y. */
  drift(x, path, variance) {
    return x.map(this.prediction(path)).map((y, i) => {
      const eps = (x[i] - path.a * y) / path.beta;
      return path.aRate * y + path.betaRate * eps - variance * eps / (2 * path.beta);
    });
  }

  /**
   * At Gauss and Legendre's nodes on the clock: the path, and the least mean square error of a
   * prediction of y, times the weight of the node.
   */
  lossPerClock() {
    const [z, w] = gaussLegendre(N_CLOCK);
    return Array.from(z, (node, q) => {
      const path = pathAt((1 + node) / 2), means = this.parts.map(([, mean]) => path.a * mean);
      const far = this.parts.map(([, , sd]) => 9 * Math.hypot(path.a * sd, path.beta));
      const low = Math.min(...means.map((m, j) => m - far[j]));
      const high = Math.max(...means.map((m, j) => m + far[j]));
      const step = STEP * path.beta, parts = this.componentsAt(path);
      const predict = this.prediction(path);
      let error = 0;
      for (let x = low; x < high; x += step) {
        const y_hat = predict(x);
        for (const { mean, centre, gain, half, log, spread } of parts) {
          const off = x - centre, miss = mean + gain * off - y_hat;
          error += Math.exp(log - off * off * half) * (spread + miss * miss) * step;
        }
      }
      return { path, error: error * path.dt * w[q] / 2 };
    });
  }

  /** The mean of the evidence lower bound over the true density, nats; -Infinity without noise. */
  bound(varianceAt) {
    let loss = 0;
    for (const { path, error } of this.loss) {
      const { a, beta, aRate, betaRate } = path, variance = varianceAt(path);
      const factor = aRate - betaRate * a / beta + variance * a / (2 * beta * beta);
      loss += error * factor * factor / (2 * variance);
    }
    return -0.5 * Math.log(2 * Math.PI) - Math.log(DELTA) - 0.5 - loss - Math.log(this.scale);
  }

  /** The density of data that the SDE has for every noise: the mixture, widened at t = 1. */
  get modelled() {
    const p = this.marginal({ a: 1, beta: Math.SQRT2 * DELTA });
    return y => p((y - this.loc) / this.scale) / this.scale;
  }

  /** The integral of p log p, and the KL divergence of the model's density, nats. */
  get integrals() {
    const [nodes, weights] = this.density.quadrature, logP = nodes.map(y => this.density.logP(y));
    const p = logP.map(Math.exp), logQ = nodes.map(this.modelled).map(Math.log);
    const kl = total(weights, logP.map((value, i) => p[i] * (value - logQ[i])));
    return { expected: total(weights, logP.map((value, i) => p[i] * value)), kl };
  }

  /**
   * Paths by Euler and Maruyama's method, equal steps on the clock, from the same random numbers
   * for every noise: states by step, those of the path of number i at place i.
   */
  simulate(varianceAt, noise) {
    const states = [noise[0]];
    for (let k = 0; k < N_STEPS; k++) {
      const path = pathAt(k / N_STEPS), dt = pathAt((k + 1) / N_STEPS).t - path.t;
      const variance = varianceAt(path), jump = Math.sqrt(variance * dt), z = noise[k + 1];
      const f = this.drift(states[k], path, variance);
      states.push(states[k].map((x, i) => x + f[i] * dt + jump * z[i]));
    }
    return states;
  }
}

/** Standard normal numbers for `simulate`: where paths start, and a row a step. */
export function noiseOf(seed) {
  const random = randomStream(seed, 3), row = () => grid(N_PATHS, () => normalQuantile(random()));
  return Array.from({ length: N_STEPS + 1 }, row);
}
