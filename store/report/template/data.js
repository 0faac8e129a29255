// The page's data and state, and how numbers are written. Everything else reads them from here.

const report = JSON.parse(document.getElementById("report-data").textContent);
const ALPHA = 0.05; // of tests, after correction
const MOST_SERIES = 8; // lines in one chart, as many as there are colours

const state = {
  experiment: report.experiments[0],
  hidden: new Map(), // factor -> Set of hidden levels
  choices: new Map(), // what selects inside sections are set to, so that filtering keeps them
  query: "", // words that the levels of a condition have to hold
  pins: [], // conditions to compare, by index
  section: "",
  lost: [], // what the page's address names and this report lacks
  unpinned: null, // the condition that the last pin took the place of
};

function visible(index) {
  const levels = state.experiment.conditions[index].levels;
  return state.experiment.factors.every(({ name }) => !state.hidden.get(name)?.has(levels[name])) && answers(levels);
}

// Whether every word that is searched for is in some "factor=level" of a condition.
function answers(levels) {
  const words = state.query.toLowerCase().split(/\s+/).filter(Boolean);
  const texts = Object.entries(levels).map((pair) => pair.join("=").toLowerCase());
  return words.every((word) => texts.some((text) => text.includes(word)));
}

function levelVisible(factor, level) {
  return !state.hidden.get(factor)?.has(level);
}

// A condition by the levels of the factors that vary, with their names where several do; the whole label where none does.
function shortLabel(index) {
  const varying = state.experiment.factors.filter((factor) => factor.levels.length > 1);
  const condition = state.experiment.conditions[index];
  const named = varying.map(({ name }) => (varying.length > 1 ? `${name}=${condition.levels[name]}` : condition.levels[name]));
  return named.join(" · ") || condition.label;
}

const inWords = (levels, separator = ", ") => Object.entries(levels).map((pair) => pair.join("=")).join(separator);

const ARRAYS = { u2: Uint16Array, i4: Int32Array };
const NOTHING = 65535;

// Give a function from a flat place to its number; NaN where nothing was recorded.
function unpack(packed) {
  const bytes = Uint8Array.from(atob(packed.data), (character) => character.charCodeAt(0));
  const values = new ARRAYS[packed.kind](bytes.buffer);
  const nothing = packed.kind === "u2" ? NOTHING : -1;
  return (place) => (values[place] === nothing ? NaN : values[place] / packed.scale);
}

const missing = (value) => value === null || value === undefined || Number.isNaN(value);

const MOST_DECIMALS = 6; // of a number in a table; a smaller one is written with a power of ten
const NOISE = 1e-12; // what is left of 0 by rounding

// A number with so many decimals, whatever its size.
function decimals(value, digits) {
  if (missing(value)) return "–";
  const text = value.toFixed(digits);
  return (Number(text) === 0 ? text.replace("-", "") : text).replace("-", "−");
}

// Places behind the point that a number needs for two significant digits.
const placesOf = (value) => 1 - Math.floor(Math.log10(Math.abs(value)));

// A number with so many decimals, and with more where it would have fewer than two significant digits of them.
function fixed(value, digits = 2) {
  if (missing(value) || digits < 1 || Math.abs(value) < NOISE) return decimals(value, digits);
  const places = Math.max(digits, placesOf(value));
  return places > MOST_DECIMALS ? value.toExponential(1).replaceAll("-", "−") : decimals(value, places);
}

const withSign = (value, text) => (value > 0 && /[1-9]/.test(text) ? `+${text}` : text);
const signed = (value, digits = 2) => withSign(value, fixed(value, digits));

// Digits that tell even small numbers from 0: two of the largest one. For a map, whose cells are of one scale.
function finer(digits, values) {
  const most = Math.max(...extent(values).map(Math.abs));
  return most > NOISE ? Math.max(digits, placesOf(most)) : digits;
}

const mapped = (value, digits) => (digits > MOST_DECIMALS ? signed(value) : withSign(value, decimals(value, digits)));

// The two ends of a scale, with the digits that tell them apart.
const apart = (low, high, digits = 0) => [low, high].map((end) => decimals(end, Math.min(20, high > low ? Math.max(digits, placesOf(high - low) - 1) : digits)));

function interval(low, high, digits = 2, write = fixed) {
  return missing(low) || missing(high) ? "no interval" : `[${write(low, digits)}, ${write(high, digits)}]`;
}

function pValue(p) {
  if (missing(p)) return "–";
  return p < 0.001 ? "< 0.001" : p.toFixed(3);
}

// Layers as ranges: 3, 5–9, 12.
function ranges(numbers) {
  const parts = [];
  for (const number of numbers) {
    const last = parts.at(-1);
    if (last && number === last[1] + 1) last[1] = number;
    else parts.push([number, number]);
  }
  return parts.map(([a, b]) => (a === b ? `${a}` : `${a}–${b}`)).join(", ");
}

const plural = (count, thing) => `${count.toLocaleString("en")} ${thing}${count === 1 ? "" : "s"}`;
