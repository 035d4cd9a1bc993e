// What mathematics needs and a browser lacks: quadrature, the normal quantile, linear equations,
// interpolation, random numbers. Vectors are Float64Array.

/** Nodes and weights of Gauss and Legendre's rule on [-1, 1], by Newton's method. */
export function gaussLegendre(n) {
  const nodes = new Float64Array(n), weights = new Float64Array(n);
  for (let i = 0; i < n; i++) {
    let z = -Math.cos(Math.PI * (i + 0.75) / (n + 0.5)), slope = 1;
    for (let round = 0; round < 6; round++) {
      let p = 1, before = 0;
      for (let k = 1; k <= n; k++) [p, before] = [((2 * k - 1) * z * p - (k - 1) * before) / k, p];
      slope = n * (z * p - before) / (z * z - 1);
      z -= p / slope;
    }
    nodes[i] = z;
    weights[i] = 2 / ((1 - z * z) * slope * slope);
  }
  return [nodes, weights];
}

/** The rule with n nodes between each edge and the next: nodes and weights of the whole. */
export function panels(edges, n) {
  const [z, w] = gaussLegendre(n), m = (edges.length - 1) * n;
  const nodes = new Float64Array(m), weights = new Float64Array(m);
  for (let i = 0; i < m; i++) {
    const low = edges[Math.floor(i / n)], half = (edges[Math.floor(i / n) + 1] - low) / 2;
    nodes[i] = low + half * (1 + z[i % n]);
    weights[i] = half * w[i % n];
  }
  return [nodes, weights];
}

const polynomial = (x, coefficients) => coefficients.reduce((sum, c) => sum * x + c, 0);

/** The x below which a standard normal variable lies with probability p (Wichura 1988, AS 241). */
export function normalQuantile(p) {
  const q = p - 0.5;
  if (Math.abs(q) <= 0.425) {
    const r = 0.180625 - q * q;
    return q * polynomial(r, CENTRE[0]) / polynomial(r, CENTRE[1]);
  }
  const r = Math.sqrt(-Math.log(Math.min(p, 1 - p)));
  const [shift, [above, below]] = r <= 5 ? [1.6, MIDDLE] : [5, FAR];
  return Math.sign(q) * polynomial(r - shift, above) / polynomial(r - shift, below);
}

const CENTRE = [
  [2509.0809287301226727, 33430.575583588128105, 67265.770927008700853, 45921.953931549871457,
    13731.693765509461125, 1971.5909503065514427, 133.14166789178437745, 3.387132872796366608],
  [5226.495278852854561, 28729.085735721942674, 39307.89580009271061, 21213.794301586595867,
    5394.1960214247511077, 687.1870074920579083, 42.313330701600911252, 1],
];
const MIDDLE = [
  [7.7454501427834140764e-4, 0.0227238449892691845833, 0.24178072517745061177,
    1.27045825245236838258, 3.64784832476320460504, 5.7694972214606914055,
    4.6303378461565452959, 1.42343711074968357734],
  [1.05075007164441684324e-9, 5.475938084995344946e-4, 0.0151986665636164571966,
    0.14810397642748007459, 0.68976733498510000455, 1.6763848301838038494,
    2.05319162663775882187, 1],
];
const FAR = [
  [2.01033439929228813265e-7, 2.71155556874348757815e-5, 0.0012426609473880784386,
    0.026532189526576123093, 0.29656057182850489123, 1.7848265399172913358,
    5.4637849111641143699, 6.6579046435011037772],
  [2.04426310338993978564e-15, 1.4215117583164458887e-7, 1.8463183175100546818e-5,
    7.868691311456132591e-4, 0.0148753612908506148525, 0.13692988092273580531,
    0.59983220655588793769, 1],
];

/** Add the products of all pairs of m rows of n numbers to a symmetric matrix, its lower part. */
export function addGram(matrix, rows, m, n) {
  for (let i = 0; i < m; i += 2) {
    const a = i * n, b = (i + 1 < m ? i + 1 : i) * n;
    for (let j = 0; j <= i + 1 && j < m; j += 2) {
      const c = j * n, d = (j + 1 < m ? j + 1 : j) * n;
      let ac = 0, ad = 0, bc = 0, bd = 0;
      for (let k = 0; k < n; k++) {  // four sums at once: half as much is read from memory
        const p = rows[a + k], q = rows[b + k], r = rows[c + k], s = rows[d + k];
        ac += p * r;
        ad += p * s;
        bc += q * r;
        bd += q * s;
      }
      matrix[i * m + j] += ac;
      if (j + 1 < m && j + 1 <= i) matrix[i * m + j + 1] += ad;
      if (i + 1 < m) {
        matrix[(i + 1) * m + j] += bc;
        if (j + 1 < m) matrix[(i + 1) * m + j + 1] += bd;
      }
    }
  }
}

/** The sum of n products, of numbers from two places on; four sums need not wait for each other. */
function dot(a, i, j, n) {
  let p = 0, q = 0, r = 0, s = 0, k = 0;
  for (; k + 3 < n; k += 4) {
    p += a[i + k] * a[j + k];
    q += a[i + k + 1] * a[j + k + 1];
    r += a[i + k + 2] * a[j + k + 2];
    s += a[i + k + 3] * a[j + k + 3];
  }
  for (; k < n; k++) p += a[i + k] * a[j + k];
  return p + q + r + s;
}

/** Solve A x = b for a positive definite A, of which the lower part is given; both are used up. */
export function choleskySolve(A, b) {
  const m = b.length;
  for (let i = 0; i < m; i++) {
    for (let j = 0; j <= i; j++) {
      const left = A[i * m + j] - dot(A, i * m, j * m, j);
      A[i * m + j] = i === j ? Math.sqrt(left) : left / A[j * m + j];
    }
    for (let k = 0; k < i; k++) b[i] -= A[i * m + k] * b[k];
    b[i] /= A[i * m + i];
  }
  for (let i = m - 1; i >= 0; i--) {
    b[i] /= A[i * m + i];
    for (let k = 0; k < i; k++) b[k] -= A[i * m + k] * b[i];
  }
  return b;
}

/** How many of the increasing values are at most x. */
export function countUpTo(values, x) {
  let low = 0, high = values.length;
  while (low < high) {
    const middle = (low + high) >> 1;
    if (values[middle] <= x) low = middle + 1;
    else high = middle;
  }
  return low;
}

/** The piecewise linear function through increasing x and their y. */
export function interpolate(at, x, y) {
  const k = Math.min(Math.max(countUpTo(x, at), 1), x.length - 1);
  const value = (y[k] - y[k - 1]) / (x[k] - x[k - 1]) * (at - x[k - 1]) + y[k - 1];
  return at <= x[0] ? y[0] : at >= x[x.length - 1] ? y[y.length - 1] : value;
}

/** The natural cubic spline through increasing x and their y, as a function. */
export function spline(x, y) {
  const n = x.length, bend = new Float64Array(n), upper = new Float64Array(n);
  for (let i = 1; i < n - 1; i++) {
    const left = x[i] - x[i - 1], right = x[i + 1] - x[i];
    const pivot = 2 * (left + right) - left * upper[i - 1];
    upper[i] = right / pivot;
    const jump = (y[i + 1] - y[i]) / right - (y[i] - y[i - 1]) / left;
    bend[i] = (6 * jump - left * bend[i - 1]) / pivot;
  }
  for (let i = n - 2; i > 0; i--) bend[i] -= upper[i] * bend[i + 1];
  return at => {
    const k = Math.min(Math.max(countUpTo(x, at), 1), n - 1), h = x[k] - x[k - 1];
    const p = (x[k] - at) / h, q = 1 - p;
    const cubic = (p ** 3 - p) * bend[k - 1] + (q ** 3 - q) * bend[k];
    return p * y[k - 1] + q * y[k] + cubic * h * h / 6;
  };
}

/** A stream of uniform numbers between 0 and 1, named by a seed and what it is for (sfc32). */
export function randomStream(seed, purpose) {
  let a = seed | 0, b = purpose | 0, c = 0x9e3779b9 | 0, count = 1;
  const next = () => {
    const sum = (a + b | 0) + count | 0;
    count = count + 1 | 0;
    a = b ^ b >>> 9;
    b = c + (c << 3) | 0;
    c = (c << 21 | c >>> 11) + sum | 0;
    return sum >>> 0;
  };
  for (let k = 0; k < 20; k++) next();
  return () => ((next() >>> 5) * 67108864 + (next() >>> 6) + 0.5) / 9007199254740992;
}

/** The sum of values times weights. */
export const total = (weights, values) => values.reduce((sum, v, i) => sum + weights[i] * v, 0);

export const mean = values => values.reduce((sum, value) => sum + value, 0) / values.length;

/** n numbers, the i-th f(i). */
export const grid = (n, f) => new Float64Array(n).map((_, i) => f(i));

const FINE = 128, LARGEST = 64;
const POWERS = grid(2 * LARGEST * FINE + 1, k => Math.exp(k / FINE - LARGEST));

/** exp(x) for x from -64 to 64, beyond that as there: by a table, faster than Math.exp. */
export function quickExp(x) {
  const u = x < -LARGEST ? -LARGEST : x > LARGEST ? LARGEST : x;
  const k = (u + LARGEST) * FINE + 0.5 | 0, r = u + LARGEST - k / FINE;
  return POWERS[k] * (1 + r * (1 + r * (1 / 2 + r * (1 / 6 + r / 24))));
}

/** The logarithm of the standard normal density. */
export const logNormal = x => -0.5 * x * x - 0.5 * Math.log(2 * Math.PI);
