// The density of a flow by T steps back from the data to the noise, and what is to be said of it.
// As dlutils/flows/methods.py and adjoint.py, evaluation.py for the integrals.

import { logNormal, mean, spline, total } from "./numerics.js";

// Butcher's tableaus a, b, c: Euler, the explicit midpoint method, the classic Runge-Kutta method.
export const METHODS = {
  euler: [[[]], [1], [0]],
  rk2: [[[], [1 / 2]], [0, 1], [0, 1 / 2]],
  rk4: [
    [[], [1 / 2], [0, 1 / 2], [0, 0, 1]], [1 / 6, 1 / 3, 1 / 3, 1 / 6], [0, 1 / 2, 1 / 2, 1],
  ],
};
export const COUNTS = ["trace", "map"];

/**
 * Step from states at t = 1 back to t = 0.
 *
 * `states[k]`, `logP[k]`, the logarithm of the density there, and `widths[k]`, the length of the
 * line for a unit of probability, belong to t = k / T. `trace`
 * integrates the slope of the drift; `map` takes the slope r of the step itself. Where r is not
 * positive, two states come from one, and there is no density: `fold` has the time of the first
 * such step, the least r in it, and which states have a negative one in any step.
 */
export function stepsBack(drift, x, T, method, count) {
  const [a, b, c] = METHODS[method], h = -1 / T, n = x.length, one = new Float64Array(n).fill(1);
  const like = () => new Float64Array(n), [X, U, r] = [0, 1, 2].map(like);
  const [F, G, GU] = [0, 1, 2].map(() => b.map(like));
  const add = (sum, start, weights, terms) => {
    sum.set(start);
    weights.forEach((weight, j) => {
      if (weight) for (let i = 0; i < n; i++) sum[i] += h * weight * terms[j][i];
    });
    return sum;
  };
  const states = Array(T + 1), rises = Array(T);
  let fold = null;
  states[T] = x;
  for (let k = T; k > 0; k--) {
    b.forEach((_, s) => {
      add(U, one, a[s], GU);
      drift.at(k / T + c[s] * h).evaluate(add(X, states[k], a[s], F), F[s], G[s]);
      for (let i = 0; i < n; i++) GU[s][i] = G[s][i] * U[i];
    });
    states[k - 1] = add(like(), states[k], b, F);
    const least = add(r, one, b, GU).reduce((low, value) => Math.min(low, value));
    if (!(least > 0)) {
      fold ??= { t: k / T, r: least, states: new Set() };
      r.forEach((value, i) => { if (!(value > 0)) fold.states.add(i); });
    }
    rises[k - 1] = count === "map" ? r.map(Math.log) : add(like(), like(), b, G);
  }
  if (fold) return { states, fold, logP: null, widths: null };
  const logP = [states[0].map(logNormal)];
  rises.forEach((rise, k) => logP.push(rise.map((value, i) => logP[k][i] + value)));
  return { states, fold, logP, widths: logP.map(values => values.map(value => Math.exp(-value))) };
}

/**
 * What is known of a density log q at the nodes of a quadrature.
 *
 * The mass; the mean over test points, between the nodes by a spline; where the truth is known, the
 * KL divergence from it, and that with the mass divided out.
 */
export function judge(density, [nodes, weights], logQ, test) {
  const mass = total(weights, logQ.map(Math.exp)), logQAt = spline(nodes, logQ);
  const found = { mass, final: mean(test.map(logQAt)) };
  if (!density.logP) return found;
  const logP = nodes.map(y => density.logP(y));
  const lost = logP.map((p, i) => Math.exp(p) > 0 ? Math.exp(p) * (p - logQ[i]) : 0);
  const kl = total(weights, lost);
  return { ...found, kl, normalizedKl: kl + Math.log(mass) };
}

/** p(x, t) between two steps: each point moves on a straight line, and widths change evenly. */
export function between(solved, t) {
  const T = solved.states.length - 1, k = Math.min(Math.floor(t * T), T - 1), share = t * T - k;
  const [low, high] = [solved.states[k], solved.states[k + 1]];
  const x = low.map((value, i) => value + share * (high[i] - value));
  if (solved.fold) return [x, null];
  const [before, after] = [solved.widths[k], solved.widths[k + 1]];
  return [x, before.map((width, i) => 1 / (width + share * (after[i] - width)))];
}
