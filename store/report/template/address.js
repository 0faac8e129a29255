// What is shown, in the page's address: to keep it, to send it, and to go back to it.

const EXAMPLE = /^lens-(\d+)-example$/; // the choice of a single example, which an address knows by its name

// Give the address of what is shown, or of that with other choices, at a section.
function addressOf(section = state.section, choices = state.choices) {
  const { experiment } = state;
  const parts = new URLSearchParams();
  if (experiment !== report.experiments[0]) parts.set("experiment", experiment.name);
  if (state.query) parts.set("search", state.query);
  for (const [factor, levels] of state.hidden) for (const level of levels) parts.append("hide", `${factor}=${level}`);
  for (const index of state.pins) parts.append("pin", experiment.conditions[index].label);
  for (const [key, value] of choices) {
    const [, shape] = key.match(EXAMPLE) ?? [];
    if (shape) parts.append("example", experiment.samples.shapes[shape].examples[value]);
    else parts.set(`choose ${key}`, value);
  }
  const text = parts.toString();
  return `#${section}${text && `?${text}`}`;
}

function writeAddress() {
  const address = addressOf();
  if (address !== location.hash && (address !== "#" || location.hash)) history.replaceState(null, "", address === "#" ? location.pathname + location.search : address);
}

// Text without its escapes, as it stands where they are none: an address may be cut or mistyped.
function decoded(text) {
  try {
    return decodeURIComponent(text);
  } catch {
    return text;
  }
}

// Take what is shown from the page's address; what it names and this report lacks is left out, and said.
function readAddress() {
  const [section, text = ""] = location.hash.slice(1).split(/\?(.*)/s);
  const parts = new URLSearchParams(text);
  state.section = decoded(section);
  state.experiment = report.experiments.find(({ name }) => name === parts.get("experiment")) ?? report.experiments[0];
  forget();
  state.query = parts.get("search") ?? "";
  const { factors, conditions, samples } = state.experiment;
  const asked = parts.get("experiment");
  if (asked && asked !== state.experiment.name) state.lost.push(`the experiment “${asked}”`);
  for (const text of parts.getAll("hide")) {
    const factor = factors.find(({ name, levels }) => levels.some((level) => text === `${name}=${level}`));
    if (!factor) state.lost.push(`the level ${text}`);
    else state.hidden.set(factor.name, (state.hidden.get(factor.name) ?? new Set()).add(text.slice(factor.name.length + 1)));
  }
  for (const label of parts.getAll("pin").slice(0, MOST_PINS)) {
    const index = conditions.findIndex((condition) => condition.label === label);
    if (index >= 0) state.pins.push(index);
    else state.lost.push(`the condition “${label}”`);
  }
  for (const name of parts.getAll("example")) {
    const holding = [...(samples.shapes ?? []).entries()].filter(([, { examples }]) => examples.includes(name));
    if (!holding.length) state.lost.push(`the example “${name}”${partOf(samples)}`);
    for (const [shape, { examples }] of holding) state.choices.set(`lens-${shape}-example`, String(examples.indexOf(name)));
  }
  for (const [key, value] of parts) if (key.startsWith("choose ")) state.choices.set(key.slice("choose ".length), value);
}

// How many examples a report holds, where they are not all.
function partOf({ shapes = [] }) {
  const cut = shapes.find(({ examples, total }) => examples.length < total);
  return cut ? ` (this page holds ${cut.examples.length} of ${cut.total})` : "";
}

function forget() {
  state.lost = [];
  state.hidden.clear();
  state.choices.clear();
  state.query = "";
  state.pins = [];
}

const goToSection = () => settled(() => document.getElementById(state.section)?.scrollIntoView());

// An address that names a section alone comes from the list of sections: what is shown stays.
function setUpAddress() {
  addEventListener("hashchange", () => {
    if (!location.hash.includes("?") && location.hash) {
      state.section = decoded(location.hash.slice(1));
      writeAddress();
      return;
    }
    readAddress();
    drawFilters();
    render();
    goToSection();
  });
}
