// What both views need: elements, numbers in words, ranges, and what is remembered.

export const element = id => document.getElementById(id);

/** A number with so many digits behind the point. */
export function digits(value, n) {
  if (!Number.isFinite(value)) return value > 0 ? "∞" : "−∞";
  const text = Math.abs(value) < 1e4 ? value.toFixed(n) : value.toExponential(2);
  return text.replace("-", "−").replace("e+", "e");
}

/** A number with three digits in all. */
export const short = value => String(Number(value.toPrecision(3))).replace("-", "−");

/** The value of f, computed anew only where the key is another one than before. */
export function remembered() {
  let last, value;
  return (key, f) => {
    const now = JSON.stringify(key);
    if (now !== last) [value, last] = [f(), now];
    return value;
  };
}

/** Where a density is worth showing: its bulk, or the data where it is unknown. */
export function rangeOf(density, data) {
  let seen = data, share = 0.08;
  if (density.logP) {
    const [nodes] = density.quadrature, p = nodes.map(y => Math.exp(density.logP(y)));
    const least = 2e-3 * Math.max(...p);
    [seen, share] = [nodes.filter((_, i) => p[i] > least), 0.06];
  }
  const margin = share * (seen.at(-1) - seen[0]);
  return [seen[0] - margin, seen.at(-1) + margin];
}
