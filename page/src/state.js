// What is chosen, as it stands in the address: #density=claw&T=4&method=euler.

import { DENSITIES } from "./densities.js";
import { COUPLINGS } from "./flow.js";
import { NOISES } from "./sde.js";
import { COUNTS, METHODS } from "./solve.js";

const within = (low, high) => text => {
  const value = Number(text);
  return text.trim() !== "" && value >= low && value <= high ? value : undefined;
};
const whole = (low, high) => text => {
  const value = within(low, high)(text);
  return Number.isInteger(value) ? value : undefined;
};
const oneOf = names => text => names.includes(text) ? text : undefined;

/** The name in the list, of that or of the package's (marron_wand_10). */
const densityName = text => text === OWN || DENSITIES.has(text) ? text
  : [...DENSITIES.values()].find(density => density.inPackage === text)?.name;

export const VIEWS = ["ode", "sde"];
export const SIZES = [30, 100, 300, 1000, 3000, 10000];
export const OWN = "own";
const BANDS = ["on", "off"];

// Of each part of the state where it begins, what an address may give, and that in words.
const PARTS = {
  view: ["ode", oneOf(VIEWS), VIEWS.join(", ")],
  density: ["claw", densityName, "a name of the list"],
  n: [10000, whole(20, 10000), "20 to 10000"],
  seed: [0, whole(0, 99), "0 to 99"],
  coupling: ["sorted", oneOf(COUPLINGS), COUPLINGS.join(", ")],
  penalty: [100, within(1e-3, 1e8), "0.001 to 1e8"],
  band: ["on", oneOf(BANDS), BANDS.join(", ")],
  T: [10, whole(1, 100), "1 to 100"],
  method: ["euler", oneOf(Object.keys(METHODS)), Object.keys(METHODS).join(", ")],
  count: ["trace", oneOf(COUNTS), COUNTS.join(", ")],
  t: [1, within(0, 1), "0 to 1"],
  noise: ["r", oneOf(NOISES), NOISES.join(", ")],
  r: [1, within(0, 16), "0 to 16"],
  theme: ["auto", oneOf(["auto", "light", "dark"]), "auto, light, dark"],
};

export const START = Object.fromEntries(
  Object.entries(PARTS).map(([key, [value]]) => [key, value]));

/** The state that an address asks for, and what of it is not understood, in sentences. */
export function fromAddress(hash) {
  const state = { ...START }, problems = [];
  for (const [key, text] of new URLSearchParams(hash.replace(/^#/, ""))) {
    if (!(key in PARTS)) {
      problems.push(`The address has “${key}”; known are ${Object.keys(PARTS).join(", ")}.`);
      continue;
    }
    const [, read, choices] = PARTS[key], value = read(text);
    if (value === undefined) problems.push(`${key} must be ${choices}, not “${text}”.`);
    else state[key] = value;
  }
  return [state, problems];
}

/** The address of a state: what is not as it begins. */
export function toAddress(state) {
  const changed = Object.entries(state).filter(([key, value]) => value !== START[key]);
  return `#${new URLSearchParams(changed)}`;
}
