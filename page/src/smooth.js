// A smooth density by penalised likelihood, and how sure the sample is of it. As
// dlutils/estimators/smoothing.py, in which the sources stand; x is the standardized data. What is
// banded there as well is solved as such: A has a diagonal and two neighbours of it on either side.

import { grid, interpolate, logNormal, mean, total } from "./numerics.js";

const K = 400, BEYOND = 0.2, WINDOW = 25, N_ROUNDS = 12, ONE_FOR_ALL = 4;
const LEAST = 1e-9, MOST = 100;  // of the variance of a bend
const BEND = [1, -2, 1];

/** Equally far apart in a mean of rank and, eight times as much, position; then beyond both. */
function edgesOf(x) {
  const n = x.length, length = x[n - 1] - x[0], far = 9 / 8 * BEYOND * length;
  const along = grid(n, i => (i / (n - 1) + 8 * (x[i] - x[0]) / length) / 9);
  const places = [-BEYOND, ...along, 1 + BEYOND], values = [x[0] - far, ...x, x[n - 1] + far];
  return grid(K + 1, k => {
    const at = -BEYOND + (1 + 2 * BEYOND) * k / K;
    return interpolate(at, places, values) + 1e-4 * length * at;
  });
}

/** The share of increasing values in each bin. */
function sharesOf(x, edges) {
  const share = new Float64Array(K);
  let k = 0;
  for (const value of x) {
    while (k < K - 1 && value >= edges[k + 1]) k++;
    share[k] += 1 / x.length;
  }
  return share;
}

const bendsOf = f => grid(K - 2, j => f[j] - 2 * f[j + 1] + f[j + 2]);

/** Mean over a window of each place and its neighbours, mirrored at the ends. */
function movingMean(values) {
  const m = values.length, mirrored = k => values[k < 0 ? -1 - k : k >= m ? 2 * m - 1 - k : k];
  const padded = grid(m + WINDOW - 1, k => mirrored(k - (WINDOW - 1) / 2)), sums = grid(m, () => 0);
  for (let j = 0; j < m; j++) {
    for (let k = 0; k < WINDOW; k++) sums[j] += padded[j + k] / WINDOW;
  }
  return sums;
}

/** The mean of all at each place. */
const wholeMean = values => new Float64Array(values.length).fill(mean(values));

/** A = L D L' of a banded matrix: the solution of A x = b, and the inverse within the band. */
function solveBanded([a, near, far], b) {
  const d = new Float64Array(K + 2).fill(1), u = new Float64Array(K + 2), v = u.slice();
  const z = u.slice(), x = u.slice(), inverse = [u.slice(), u.slice(), u.slice()];
  for (let i = 0; i < K; i++) {  // A and b have zeros where there is nothing more
    d[i] = a[i];
    z[i] = b[i];
    u[i] = near[i];
    if (i > 0) {
      d[i] -= u[i - 1] * u[i - 1] * d[i - 1];
      z[i] -= u[i - 1] * z[i - 1];
      u[i] -= u[i - 1] * v[i - 1] * d[i - 1];
    }
    if (i > 1) {
      d[i] -= v[i - 2] * v[i - 2] * d[i - 2];
      z[i] -= v[i - 2] * z[i - 2];
    }
    u[i] /= d[i];
    v[i] = far[i] / d[i];
  }
  const [own, next, second] = inverse;
  for (let i = K - 1; i >= 0; i--) {  // Takahashi, Fagan & Chin (1973)
    x[i] = z[i] / d[i] - u[i] * x[i + 1] - v[i] * x[i + 2];
    next[i] = -u[i] * own[i + 1] - v[i] * next[i + 1];
    second[i] = -u[i] * next[i + 1] - v[i] * own[i + 2];
    own[i] = 1 / d[i] - u[i] * next[i] - v[i] * second[i];
  }
  return [x.subarray(0, K), inverse];
}

/** Places, the log-density there and its standard deviation, of increasing standardized data. */
export function smoothDensity(x) {
  const n = x.length, edges = edgesOf(x), share = sharesOf(x, edges);
  const width = grid(K, k => edges[k + 1] - edges[k]);
  const places = grid(K, k => (edges[k] + edges[k + 1]) / 2), normal = places.map(logNormal);
  let excess = new Float64Array(K), variance = new Float64Array(K - 2).fill(1e-4), inverse;

  /** The bins' masses, and the penalised log-likelihood a point. */
  const stateOf = f => {
    const mass = grid(K, k => width[k] * Math.exp(Math.min(normal[k] + f[k], 50)));
    const rough = bendsOf(f).reduce((sum, u, j) => sum + u * u / variance[j], 0) / n;
    return [mass, total(share, f) - mass.reduce((a, b) => a + b) - rough / 2];
  };

  for (let round = 0; round < N_ROUNDS; round++) {
    for (let newton = 0; newton < (round ? 1 : 8); newton++) {
      const [mass, height] = stateOf(excess), bends = bendsOf(excess);
      const A = [mass.map(m => m + 1e-12), new Float64Array(K), new Float64Array(K)];
      const right = grid(K, k => share[k] - mass[k]);
      for (let j = 0; j < K - 2; j++) {
        for (let i = 0; i < 3; i++) {
          const p = BEND[i] / (n * variance[j]);
          right[j + i] -= p * bends[j];
          for (let k = 0; i + k < 3; k++) A[k][j + i] += p * BEND[i + k];
        }
      }
      let step, fraction = 1;
      [step, inverse] = solveBanded(A, right);
      const moved = () => grid(K, k => excess[k] + fraction * step[k]);
      while (stateOf(moved())[1] < height && fraction > 1e-3) fraction /= 2;
      excess = moved();
    }
    const [own, next, second] = inverse, smoothed = round < ONE_FOR_ALL ? wholeMean : movingMean;
    const known = grid(K - 2, j => 1 - (own[j] + 4 * own[j + 1] + own[j + 2]
      - 4 * (next[j] + next[j + 1]) + 2 * second[j]) / (n * variance[j]));
    const squares = smoothed(bendsOf(excess).map(u => u * u)), by = smoothed(known);
    variance = squares.map((u, j) => Math.min(Math.max(u / Math.max(by[j], 1e-3), LEAST), MOST));
  }
  const sd = grid(K, k => Math.sqrt(Math.max(inverse[0][k], 0) / n));
  return { x: places, logP: grid(K, k => normal[k] + excess[k]), sd };
}
