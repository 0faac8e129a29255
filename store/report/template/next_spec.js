// The spec of a further study, as text to copy: a finer grid, or paths, at the layers and positions chosen.

const NEXT = {
  grid: { text: "grids of attention's and MLPs' outputs", make: (base) => ["attention", "mlp"].map((stream) => ({ kind: "patch", ...base, stream, grid: true })) },
  stream: { text: "a grid of the residual stream", make: (base) => [{ kind: "patch", ...base, grid: true }] },
  final: { text: "paths from there to the end", make: (base) => ["attention", "mlp"].map((sender) => ({ kind: "path", ...base, sender })) },
  heads: { text: "paths from the heads there to the end", make: (base) => [{ kind: "path", ...base, sender: "heads" }] },
  mlp: { text: "paths from there to later MLPs", make: (base) => ["attention", "mlp"].map((sender) => ({ kind: "path", ...base, sender, receiver: "mlp" })) },
};
const NEAR = [-2, -1, 0, 1, 2]; // tokens around one that was measured

// A fragment of TOML, and what chooses what it says; the strongest effect is chosen at first.
function nextSpec(own, shown, outcome, redraw) {
  const strongest = strongestOf(shown, outcome);
  const layers = span(Math.min(...shown.flatMap(({ first }) => first)), Math.max(...shown.flatMap(({ last }) => last)));
  const from = choice("next-from", "Layers from", asOptions(layers), redraw, String(Math.max(layers[0], strongest.first - 1)));
  const to = choice("next-to", "to", asOptions(layers), redraw, String(Math.min(layers.at(-1), strongest.last + 1)));
  const places = positionsOf(own, shown, strongest);
  const place = choice("next-position", "Position", places.map(({ text }, n) => ({ value: String(n), text })), redraw);
  const next = choice("next-kind", "What", Object.entries(NEXT).map(([value, { text }]) => ({ value, text })), redraw);
  const [low, high] = [Number(from.value), Number(to.value)].sort((a, b) => a - b);
  const base = { ...takenFrom(own.settings), layers: span(low, high), positions: places[Number(place.value)].positions };
  const many = NEXT[next.value].make(base);
  const text = many.map((settings) => fragment(named(own.name, settings, many.length > 1), settings)).join("\n");
  return el(
    "div",
    { class: "next" },
    el("h3", {}, "Next: a spec to copy"),
    el("div", { class: "controls" }, from.element, to.element, place.element, next.element),
    el("pre", { class: "spec" }, text),
    el("div", { class: "copies" }, copyButton("spec", "Copy as TOML: what to add to the spec", async () => [new Blob([text], { type: "text/plain" }), fileName(`${own.name}-next`, "toml")])),
    note("Behind the spec's other tables, as [[interventions]]. What is done already is not done again; engine plan says what this costs."),
  );
}

const span = (first, last) => Array.from({ length: last - first + 1 }, (_, n) => first + n);

// The layers and the column of the effect that is farthest from 0 in the conditions shown.
function strongestOf(shown, outcome) {
  const all = shown.flatMap((own) => own.effects[outcome].effect.map((effect, n) => ({ effect: missing(effect) ? 0 : Math.abs(effect), first: own.first[n], last: own.last[n], column: own.map?.column[n] })));
  return all.reduce((best, one) => (one.effect > best.effect ? one : best));
}

// The positions that can be chosen, each in words and as a spec has them; those of the strongest effect first.
function positionsOf({ settings }, shown, strongest) {
  const listed = Array.isArray(settings.positions) ? settings.positions : [];
  const single = listed.map((position) => (position.range ? { text: `every token of the ${position.range}`, positions: [{ range: position.range, most: (position.every ?? 1) * (position.most ?? 32) }] } : { text: String(position), positions: around(position) }));
  const whole = listed.length ? [{ text: "all of these", positions: listed }] : [{ text: "the last tokens of the prompt", positions: span(-8, -1) }];
  const first = single.findIndex(({ text }) => text === strongest.column || strongest.column?.startsWith(`${text.split(" ").at(-1)}[`));
  const best = first < 0 ? [] : single.splice(first, 1);
  return [...best, ...whole, ...single];
}

// A token and its neighbours, by their places from the prompt's end; a part of the text stays as it is.
function around(position) {
  const place = position === "prompt_end" ? -1 : position;
  return typeof place === "number" ? NEAR.map((step) => place + step).filter((near) => near < 0) : [place];
}

// What a further study takes from: as the one shown, or, where that takes from no other run, another example.
function takenFrom({ kind, cells, donor, input }) {
  const takes = ["patch", "graft", "mask", "path", "steer"].includes(kind);
  const from = takes ? { donor: donor ?? "base", input } : { donor: "own", input: "other example" };
  return Object.fromEntries(Object.entries({ cells, ...from }).filter(([, value]) => value !== undefined && (typeof value !== "object" || Object.keys(value).length)));
}

const named = (name, { stream, sender, layers }, several) => `${name}, ${several ? `${stream ?? sender} ` : ""}${layers[0]}-${layers.at(-1)}`.replaceAll(/[^A-Za-z0-9._ -]/g, "");

const fragment = (name, settings) => ["[[interventions]]", ...Object.entries({ name, ...settings }).map(([key, value]) => `${key} = ${toml(value)}`), ""].join("\n");

// JSON's text is one of TOML, but for U+007F.
const quoted = (value) => JSON.stringify(value).replaceAll("\x7f", "\\u007F");

function toml(value) {
  if (Array.isArray(value)) return `[${value.map(toml).join(", ")}]`;
  if (value && typeof value === "object") return `{ ${Object.entries(value).map(([key, inner]) => `${/^[A-Za-z0-9_-]+$/.test(key) ? key : quoted(key)} = ${toml(inner)}`).join(", ")} }`;
  return quoted(value);
}
