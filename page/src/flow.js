// Flow matching, solved at once: pairs of noise and data, steps that move with their paths, and the
// heights of the steps by least squares. As dlutils/flows/matching.py and nets.py, in which the
// sources stand; x is the standardized data.

import {
  addGram, choleskySolve, gaussLegendre, grid, interpolate, normalQuantile, quickExp,
} from "./numerics.js";

const N_SORTED = 600;  // nodes
export const N_INDEPENDENT = 2048;
const N_PLACES = { sorted: 128, independent: 64 }, N_COSINES = { sorted: 1, independent: 6 };
export const N_TIMES = { sorted: 2, independent: 6 };  // at which the solve looks at the paths
const FLAT = 13;  // widths from a step at which it is flat, to 1e-11 of its height

/** Mean and standard deviation, in which the flow sees a sample. */
export function unitsOf(y) {
  const loc = y.reduce((sum, v) => sum + v, 0) / y.length;
  const squares = y.reduce((sum, v) => sum + (v - loc) ** 2, 0);
  return { loc, scale: Math.sqrt(squares / (y.length - 1)) };
}

/** Noise and data by rank, and how far along: a mean of rank and positions, 0 to 1. */
function quantileCurve(x) {
  const n = x.length, rank = grid(n, i => (i + 0.5) / n), noise = rank.map(normalQuantile);
  const unit = v => v.map(value => (value - v[0]) / (v[n - 1] - v[0]));
  const [r, z, d] = [rank, noise, x].map(unit);
  return [noise, grid(n, i => (r[i] + z[i] + 4 * d[i]) / 6)];
}

// Of increasing data: nodes of noise and of data, and their weights, which sum to one.
const PAIRS = {
  /** Of equal rank; neighbours are put together where neither rank nor position changes much. */
  sorted(x) {
    const [noise, along] = quantileCurve(x);
    const sums = Array.from({ length: N_SORTED }, () => [0, 0, 0]);
    x.forEach((value, i) => {
      const cell = sums[Math.min(Math.trunc(along[i] * N_SORTED), N_SORTED - 1)];
      cell[0] += noise[i];
      cell[1] += value;
      cell[2] += 1;
    });
    const full = sums.filter(cell => cell[2] > 0);
    const mean = part => Float64Array.from(full, cell => cell[part] / cell[2]);
    return [mean(0), mean(1), Float64Array.from(full, cell => cell[2] / x.length)];
  },

  /** That know nothing of each other: their ranks are a lattice that fills the unit square. */
  independent(x) {
    const m = N_INDEPENDENT, golden = (Math.sqrt(5) - 1) / 2;
    const data = grid(m, i => x[Math.trunc((i * golden + 0.5) % 1 * x.length)]);
    return [grid(m, i => normalQuantile((i + 0.5) / m)), data, new Float64Array(m).fill(1 / m)];
  },
};

export const COUPLINGS = Object.keys(PAIRS);

/** Where n steps stand, at t = 0 and at t = 1: equally far apart along the quantiles. */
function placesOf(x, n) {
  const [noise, along] = quantileCurve(x);
  return [noise, x].map(end => {
    const at = grid(n, j => interpolate((j + 0.5) / n, along, end));
    const least = 1e-3 * (at[n - 1] - at[0]) / n;  // ties are moved apart
    return at.map((value, j) => value + least * j);
  });
}

/** The difference to the neighbours, half of that to both where there are two. */
function gapsOf(places) {
  const last = places.length - 1;
  return places.map((_, j) => {
    const left = Math.max(j - 1, 0), right = Math.min(j + 1, last);
    return (places[right] - places[left]) / (right - left);
  });
}

/**
 * The drift f(x, t) = sum of c_j(t) tanh((x - m_j) / g_j) + gamma(t) x + b(t): places m and gaps g
 * move on straight lines; c, gamma and b are sums of cosines in t.
 */
export class Drift {
  constructor(places, nCosines) {
    Object.assign(this, { places, gaps: places.map(gapsOf), K: nCosines, J: places[0].length });
    this.c = new Float64Array((this.J + 2) * this.K);
    for (const name of ["m", "g", "twice", "height", "steepness", "before", "low", "high"]) {
      this[name] = new Float64Array(this.J + 1);
    }
  }

  cosines(t) {
    return grid(this.K, k => Math.cos(k * Math.PI * t) / (1 + k));
  }

  /** Make ready to be evaluated at a time. */
  at(t) {
    const { J, K, c, m, g, height, before, low, high } = this, cosines = this.cosines(t);
    const value = j => cosines.reduce((sum, cosine, k) => sum + cosine * c[j * K + k], 0);
    for (let j = 0; j < J; j++) {
      const [m0, m1] = [this.places[0][j], this.places[1][j]];
      m[j] = m0 + t * (m1 - m0);
      g[j] = this.gaps[0][j] + t * (this.gaps[1][j] - this.gaps[0][j]);
      height[j] = value(j);
      this.twice[j] = 2 / g[j];
      this.steepness[j] = height[j] / g[j];
      before[j + 1] = before[j] + height[j];
      high[j] = Math.max(m[j] + FLAT * g[j], j ? high[j - 1] : -Infinity);
    }
    low[J] = Infinity;
    for (let j = J - 1; j >= 0; j--) low[j] = Math.min(m[j] - FLAT * g[j], low[j + 1]);
    this.gamma = value(J);
    this.b = value(J + 1);
    return this;
  }

  /** The drift and its slope at states that increase, mostly; steps far away are flat. */
  evaluate(x, F, G) {
    const { J, m, twice, height, steepness, before, low, high, gamma, b } = this;
    let first = 0, last = 0;
    for (let i = 0; i < x.length; i++) {
      const at = x[i];
      while (first < J && high[first] <= at) first++;
      while (first > 0 && high[first - 1] > at) first--;
      while (last < J && low[last] < at) last++;
      while (last > 0 && low[last - 1] >= at) last--;
      let f = before[first] - (before[J] - before[last]), slope = 0;
      for (let j = first; j < last; j++) {
        const tanh = 1 - 2 / (1 + quickExp((at - m[j]) * twice[j]));
        f += height[j] * tanh;
        slope += steepness[j] * (1 - tanh * tanh);
      }
      F[i] = f + gamma * at + b;
      G[i] = slope + gamma;
    }
  }

  /** What c multiplies, but for the cosines: J + 2 functions of the states, times weights. */
  basis(x, t, weights, phi) {
    const { J, m, g } = this.at(t), n = x.length;
    for (let j = 0; j < J; j++) {
      for (let i = 0; i < n; i++) {
        const z = (x[i] - m[j]) / g[j];
        const step = Math.abs(z) > FLAT ? Math.sign(z) : 1 - 2 / (1 + quickExp(2 * z));
        phi[j * n + i] = weights[i] * step;
      }
    }
    phi.set(x.map((value, i) => weights[i] * value), J * n);
    phi.set(weights, (J + 1) * n);
  }

  /** The matrix of squared second differences of neighbouring heights, and a tenth of squares. */
  roughness(add) {
    for (let j = 0; j < this.J; j++) {
      add(j, j, 0.1);
      if (j + 2 >= this.J) continue;
      const bend = [1, -2, 1];
      bend.forEach((p, a) => bend.forEach((q, b) => add(j + a, j + b, p * q)));
    }
  }
}

/** Add to A c = b what a time contributes: a Gram matrix, its last row b's, times the cosines. */
function addAtTime(A, b, gram, cosines) {
  const K = cosines.length, J = b.length / K;
  for (let j = 0; j < J; j++) {
    for (let k = 0; k < K; k++) {
      b[j * K + k] += gram[J * (J + 1) + j] * cosines[k];
      for (let l = 0; l <= j; l++) {
        const product = gram[j * (J + 1) + l] * cosines[k], at = (j * K + k) * J * K + l * K;
        for (let h = 0; h < K; h++) A[at + h] += product * cosines[h];
      }
    }
  }
}

/**
 * The drift of least squares on the straight paths between noise and increasing data x.
 *
 * At each of few times the Gram matrix of the J + 2 functions is a small one; that of all weights
 * is the sum of these, each times the products of the cosines at that time.
 */
export function flowMatching(x, coupling, penalty) {
  const [noise, data, w] = PAIRS[coupling](x), n = noise.length;
  const f = new Drift(placesOf(x, N_PLACES[coupling]), N_COSINES[coupling]);
  const { K } = f, J = f.J + 2, A = new Float64Array((J * K) ** 2), b = new Float64Array(J * K);
  const [times, weights] = gaussLegendre(N_TIMES[coupling]), v = noise.map((z, i) => data[i] - z);
  const rows = new Float64Array((J + 1) * n);  // the last one is the velocity's
  times.forEach((z, q) => {
    const t = (1 + z) / 2, root = w.map(w_i => Math.sqrt(w_i * weights[q] / 2));
    f.basis(noise.map((x_0, i) => x_0 + t * v[i]), t, root, rows);
    rows.set(v.map((v_i, i) => root[i] * v_i), J * n);
    const gram = new Float64Array((J + 1) ** 2);
    addGram(gram, rows, J + 1, n);
    addAtTime(A, b, gram, f.cosines(t));
  });
  f.roughness((j, l, value) => {
    for (let k = 0; k < K; k++) A[(j * K + k) * J * K + l * K + k] += penalty / x.length * value;
  });
  f.c = choleskySolve(A, b);
  return f;
}
