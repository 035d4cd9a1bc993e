// The controls, and what the page says.

import { DENSITIES, OwnColumn, parseColumn } from "./densities.js";
import { N_INDEPENDENT, N_TIMES } from "./flow.js";
import { showFlow } from "./odeview.js";
import { DELTA } from "./sde.js";
import { showNoise } from "./sdeview.js";
import { fromAddress, OWN, SIZES, START, toAddress } from "./state.js";
import { digits, element, short } from "./words.js";

const SECONDS = 5;  // of a play from 0 to 1
const LATER = 150;  // ms after which the address is written: a browser allows only so many a second
const VIEWS = { ode: showFlow, sde: showNoise };

let state = { ...START }, own = null, problems = [];

// What the page shows, for a console and for tests.
const constants = { DELTA, N_INDEPENDENT, N_TIMES };
const page = window.page = { timings: [], densities: DENSITIES, start: START, constants };

const chosenDensity = () => state.density === OWN ? own : DENSITIES.get(state.density);

/** What is chosen, or a mixture of Gaussians where only such can be shown. */
function densityShown() {
  const chosen = chosenDensity(), fits = state.view === "ode" || chosen.isMixtureOfGaussians;
  return fits ? chosen : DENSITIES.get(START.density);
}

// ---- what is said

function sayNumbers(rows) {
  const parts = rows.map(([id, name, value, n]) => {
    const row = document.createElement("div");
    const [term, number] = ["dt", "dd"].map(tag => document.createElement(tag));
    term.textContent = name;
    number.textContent = value === undefined ? "–" : digits(value, n);
    number.id = `value-${id}`;
    number.dataset.value = value ?? "";
    row.append(term, number);
    return row;
  });
  element("numbers").replaceChildren(...parts);
}

function sayWords([isProblem, text]) {
  const other = densityShown() === chosenDensity() ? [] : [`${chosenDensity().title} is no mixture `
    + `of Gaussians, so its best denoiser is no closed form: ${densityShown().title} is shown.`];
  const words = element("words"), all = [...problems, ...other, text].join(" ");
  words.classList.toggle("problem", isProblem || problems.length > 0);
  if (words.textContent !== all) words.textContent = all;  // else it would be read out again
}

/** A caption, and a key to the colours by their names. */
function sayCaption(id, text, keys = {}) {
  const parts = Object.entries(keys).filter(([, words]) => words).map(([name, words]) => {
    const key = document.createElement("span");
    key.className = "key";
    key.style.setProperty("--c", `var(--${name})`);
    key.textContent = words;
    return key;
  });
  element(`${id}-caption`).replaceChildren(text, ...parts.flatMap(key => [" ", key]));
}

// ---- the controls

// Of each slider: from its place to a value of the state, and back.
const SLIDERS = {
  n: [k => SIZES[k], n => SIZES.findIndex(size => size >= n)],
  seed: [k => k, seed => seed],
  penalty: [k => 10 ** k, penalty => Math.round(Math.log10(penalty))],
  T: [k => k, T => T],
  t: [t => t, t => t],
  r: [k => k ? Number((2 ** ((k - 17) / 4)).toPrecision(3)) : 0,
    r => r ? Math.max(1, Math.round(17 + 4 * Math.log2(r))) : 0],
};
const RADIOS = ["view", "coupling", "band", "method", "count", "noise"];
const radios = name => [...document.getElementsByName(name)];

/** Put the controls where the state is. */
function setControls() {
  for (const [id, [, place]] of Object.entries(SLIDERS)) {
    element(id).value = place(state[id]);
    element(`${id}-out`).textContent = short(state[id]);
    element(id).setAttribute("aria-valuetext", short(state[id]));
  }
  for (const name of RADIOS) {
    for (const radio of radios(name)) radio.checked = radio.value === state[name];
  }
  for (const part of document.querySelectorAll(".ode, .sde")) {
    part.hidden = !part.classList.contains(state.view);
  }
  element("t-name").textContent = state.view === "ode" ? "t" : "clock u";
  element("r").disabled = state.noise !== "r";
  for (const option of element("density").options) {
    const of = option.value === OWN ? own : DENSITIES.get(option.value);
    option.disabled = !of || state.view === "sde" && !of.isMixtureOfGaussians;
  }
  element("density").value = densityShown().name;
  element("formula").textContent = densityShown().formula;
  element("theme").value = state.theme;
  const isDark = state.theme === "auto" ? darkSystem.matches : state.theme === "dark";
  document.documentElement.dataset.theme = isDark ? "dark" : "light";
}

let waiting = false, writing = 0;

/** Take over a change. */
function change(part) {
  state = { ...state, ...part };
  problems = [];
  refresh();
}

/** Draw before the next frame: many changes at once are drawn once. */
function refresh() {
  if (waiting) return;
  waiting = true;
  requestAnimationFrame(() => {
    waiting = false;
    const start = performance.now();
    setControls();
    const found = VIEWS[state.view](state, densityShown());
    sayNumbers(found.numbers);
    sayWords(found.words);
    for (const [id, words] of Object.entries(found.captions)) sayCaption(id, ...words);
    page.timings.push(performance.now() - start);
    element("time").textContent = `Solved and drawn in ${Math.round(page.timings.at(-1))} ms.`;
    Object.assign(page, { state, [state.view]: found });
    clearTimeout(writing);
    writing = setTimeout(() => history.replaceState(null, "", toAddress(state)), LATER);
  });
}

function readAddress() {
  [state, problems] = fromAddress(location.hash);
  if (state.density === OWN && !own) {
    problems.push("The column of your own is not in the address: paste it again.");
    state.density = START.density;
  }
  refresh();
}

let playing = 0;

function play() {
  const isOn = !playing, button = element("play");
  cancelAnimationFrame(playing);
  playing = 0;
  button.setAttribute("aria-pressed", isOn);
  button.textContent = isOn ? "Stop" : "Play";
  if (!isOn) return;
  const start = performance.now(), from = state.t < 1 ? state.t : 0;
  const frame = now => {
    const t = Math.min(1, from + (now - start) / (1000 * SECONDS));
    change({ t: Math.max(from, Number(t.toFixed(3))) });
    if (t < 1) playing = requestAnimationFrame(frame);
    else play();
  };
  playing = requestAnimationFrame(frame);
}

function useOwn() {
  const problem = element("own-problem");
  problem.textContent = "";
  try {
    const version = (own?.version ?? 0) + 1;
    own = Object.assign(new OwnColumn(parseColumn(element("pasted").value)), { version });
    change({ density: OWN });
  } catch (error) {
    problem.textContent = error.message;
  }
}

async function copyLink() {
  const address = location.href.split("#")[0] + toAddress(state);
  await navigator.clipboard.writeText(address).catch(() => prompt("The link:", address));
}

function fillDensities() {
  const parents = new Map([["", element("density")]]);
  for (const { name, title, group } of DENSITIES.values()) {
    if (!parents.has(group)) {
      const parent = document.createElement("optgroup");
      parent.label = group;
      parents.set(group, parent);
      element("density").append(parent);
    }
    parents.get(group).append(new Option(title, name));
  }
  element("density").append(new Option("Your own column", OWN));
}

const darkSystem = matchMedia("(prefers-color-scheme: dark)");
fillDensities();
for (const [id, [value]] of Object.entries(SLIDERS)) {
  element(id).addEventListener("input", () => change({ [id]: value(Number(element(id).value)) }));
}
for (const name of RADIOS) {
  for (const radio of radios(name)) {
    radio.addEventListener("change", () => change({ [name]: radio.value }));
  }
}
for (const id of ["density", "theme"]) {
  element(id).addEventListener("change", () => change({ [id]: element(id).value }));
}
element("play").addEventListener("click", play);
element("use").addEventListener("click", useOwn);
element("copy").addEventListener("click", copyLink);
darkSystem.addEventListener("change", refresh);
addEventListener("resize", refresh);
addEventListener("hashchange", readAddress);
readAddress();
