// The known densities: mixtures of shifted and scaled members of a few families. The table of them
// comes from the Python package when the page is built; a user's own column has no density.

import { countUpTo, logNormal, normalQuantile, panels, randomStream } from "./numerics.js";
import { TABLE } from "./table.js";

const N_NODES = 500;  // about, of the integrals
const EQUAL = 32;  // panels, besides those of the components
const sorted = values => Float64Array.from(values).sort();
const middle = (random, k, n) => sorted(Array.from({ length: n }, random))[k];  // Beta(k+1, n-k)
const sign = random => Math.sign(random() - 0.5);

// Of each family: log p(z), -Infinity outside; a draw from uniform numbers; and places between
// which the density is smooth on its own scale, among them all jumps and kinks.
const BELL = [-6, -4, -3, -2, -1, 0, 1, 2, 3, 4, 6];
const RIGHT = [0, 0.25, 0.5, 1, 1.5, 2, 3, 4, 6, 9, 13];
const inside = (is, value) => is ? value : -Infinity;
const FAMILIES = {
  normal: {
    logP: logNormal, draw: random => normalQuantile(random()), places: BELL,
  },
  laplace: {
    logP: z => -Math.abs(z) - Math.log(2),
    draw: random => sign(random) * -Math.log(random()),
    places: [...RIGHT.slice(1).map(z => -z).reverse(), ...RIGHT],
  },
  student_t_5: {  // the constant is Gamma(3) / (Gamma(5/2) sqrt(5 pi))
    logP: z => Math.log(8 / (3 * Math.PI * Math.sqrt(5))) - 3 * Math.log1p(z * z / 5),
    draw: random => {
      const squares = Array.from({ length: 5 }, () => normalQuantile(random()) ** 2);
      return normalQuantile(random()) / Math.sqrt(squares.reduce((a, b) => a + b) / 5);
    },
    places: [-20, -12, -8, ...BELL, 8, 12, 20],
  },
  uniform: { logP: z => inside(z >= 0 && z <= 1, 0), draw: random => random(), places: [0, 1] },
  exponential: {
    logP: z => inside(z >= 0, -z), draw: random => -Math.log(random()), places: RIGHT,
  },
  rayleigh: {
    logP: z => inside(z > 0, Math.log(z) - z * z / 2),
    draw: random => Math.sqrt(-2 * Math.log(random())),
    places: RIGHT,
  },
  logistic: {
    logP: z => -Math.abs(z) - 2 * Math.log1p(Math.exp(-Math.abs(z))),
    draw: random => { const u = random(); return Math.log(u / (1 - u)); },
    places: [-9, ...BELL, 9],
  },
  gumbel: {
    logP: z => -z - Math.exp(-z),
    draw: random => -Math.log(-Math.log(random())),
    places: [-2.5, -2, -1.5, ...BELL, 9],
  },
  log_normal: {
    logP: z => inside(z > 0, logNormal(Math.log(z)) - Math.log(z)),
    draw: random => Math.exp(normalQuantile(random())),
    places: [0, ...BELL.map(Math.exp)],
  },
  triangle: {
    logP: z => Math.log(Math.max(0, 1 - Math.abs(z))),
    draw: random => random() - random(),
    places: [-1, 0, 1],
  },
  beta_2_2: {
    logP: z => inside(z >= 0 && z <= 1, Math.log(6 * z * (1 - z))),
    draw: random => middle(random, 1, 3),
    places: [0, 0.5, 1],
  },
  caliper: {
    logP: z => {
      const u = Math.abs(z) - 0.1;
      return inside(u > 0 && u < 1, Math.log(2 - 2 * Math.cbrt(u)));
    },
    draw: random => sign(random) * (0.1 + middle(random, 2, 4) ** 3),
    places: [-1.1, -0.6, -0.3, -0.15, -0.11, -0.1, 0.1, 0.11, 0.15, 0.3, 0.6, 1.1],
  },
};

/** One of the table's: components (family, weight, loc, scale), what it is called, its support. */
class Density {
  constructor(row) {
    Object.assign(this, row);
    const { components } = row;
    this.isMixtureOfGaussians = components.every(([family]) => family === "normal");
    this.log = components.map(([, weight, , scale]) => Math.log(weight / scale));
  }

  logP(y) {
    let top = -Infinity;
    const parts = this.components.map(([family, , loc, scale], j) => {
      const part = this.log[j] + FAMILIES[family].logP((y - loc) / scale);
      if (part > top) top = part;
      return part;
    });
    if (top === -Infinity) return top;
    return top + Math.log(parts.reduce((sum, part) => sum + Math.exp(part - top), 0));
  }

  /** n points in increasing order. */
  sample(n, seed, purpose) {
    const random = randomStream(seed, purpose), y = new Float64Array(n);
    const upTo = [];
    for (const [, weight] of this.components) upTo.push((upTo.at(-1) ?? 0) + weight);
    for (let i = 0; i < n; i++) {
      const j = Math.min(countUpTo(upTo, random() * upTo.at(-1)), upTo.length - 1);
      const [family, , loc, scale] = this.components[j];
      y[i] = loc + scale * FAMILIES[family].draw(random);
    }
    return y.sort();
  }

  /** Nodes and weights of integrals over the support, dense where the density is narrow. */
  get quadrature() {
    const places = this.components.flatMap(
      ([family, , loc, scale]) => FAMILIES[family].places.map(z => loc + scale * z));
    return nodesBetween(this.support, places);
  }

  /** Mean and standard deviation of a mixture of Gaussians. */
  get moments() {
    const sum = f => this.components.reduce((s, [, w, loc, scale]) => s + w * f(loc, scale), 0);
    const mean = sum(loc => loc);
    return [mean, Math.sqrt(sum((loc, scale) => (loc - mean) ** 2 + scale ** 2))];
  }
}

/** Nodes and weights over an interval that is cut at some places and in equal parts. */
function nodesBetween([low, high], places) {
  const equal = Array.from({ length: EQUAL + 1 }, (_, k) => low + (high - low) * k / EQUAL);
  const edges = sorted([...places.filter(y => y > low && y < high), ...equal]);
  const apart = edges.filter((y, k) => k === 0 || y - edges[k - 1] > 1e-9 * (high - low));
  return panels(apart, Math.max(4, Math.round(N_NODES / (apart.length - 1))));
}

export const DENSITIES = new Map(TABLE.map(row => [row.name, new Density(row)]));

/** A user's own numbers in increasing order, four fifths to fit and one fifth to judge. */
export class OwnColumn {
  constructor(values) {
    this.values = values;
    this.name = "own";
    this.title = "Your own column";
    this.formula = `${values.length} values, true density unknown`;
    this.isMixtureOfGaussians = false;
  }

  /** Those to fit (purpose 0), n at most, or to judge (1): the seed says which. */
  sample(n, seed, purpose) {
    const random = randomStream(seed, 2), key = this.values.map(random);
    const order = [...key.keys()].sort((i, j) => key[i] - key[j]);
    const cut = Math.round(0.8 * order.length);
    const part = purpose === 0 ? order.slice(0, Math.min(n, cut)) : order.slice(cut);
    return sorted(part.map(i => this.values[i]));
  }

  /** Over as good as all of the line: beyond the data in steps that grow. */
  get quadrature() {
    const y = sorted(this.values), n = y.length, span = y[n - 1] - y[0], places = [];
    for (let k = 1; k < 24; k++) places.push(y[Math.floor(k * n / 24)]);
    for (let far = 0.05 * span; far < 1e4 * span; far *= 2) places.push(y[0] - far, y[n - 1] + far);
    const edges = sorted(new Set([...places, y[0], y[n - 1]]));
    return panels(edges, Math.max(4, Math.round(N_NODES / (edges.length - 1))));
  }
}

const NUMBER = /^[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?$/i;

/** The numbers of a pasted text, by lines, blanks, semicolons or commas; or an error. */
export function parseColumn(text) {
  const decimalComma = /\d,\d/.test(text) && !/\d\.\d|,\s|,\d*,/.test(text);
  const plain = decimalComma ? text.replaceAll(",", ".") : text;
  const values = [];
  plain.split("\n").forEach((line, k) => {
    const cells = line.split(decimalComma ? /[\s;]+/ : /[\s;,]+/).filter(cell => cell);
    if (k === 0 && cells.length && !cells.some(cell => NUMBER.test(cell))) return;  // a heading
    for (const cell of cells) {
      if (!NUMBER.test(cell)) throw new Error(`Line ${k + 1}: “${cell}” is not a number.`);
      values.push(Number(cell));
    }
  });
  if (values.length < 20) throw new Error(`${values.length} numbers are too few: 20 at least.`);
  if (!values.every(value => Math.abs(value) < 1e100)) throw new Error("A number is too large.");
  if (Math.max(...values) === Math.min(...values)) throw new Error("All numbers are the same.");
  return values;
}
