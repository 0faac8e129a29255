// Two conditions side by side: pinned in a table, first in every figure, and in a section of their own.

const MOST_PINS = 2;

function pinButton(index) {
  const pinned = state.pins.includes(index);
  const toggle = () => {
    const pins = pinned ? state.pins.filter((own) => own !== index) : [...state.pins, index];
    state.unpinned = pins.length > MOST_PINS ? pins[0] : null;
    state.pins = pins.slice(-MOST_PINS);
    render();
    document.querySelector(`#matrix [data-pin="${index}"]`)?.focus({ preventScroll: true });
  };
  const name = `Pin ${shortLabel(index)}, to compare`;
  return el("button", { type: "button", class: "pin", "data-pin": index, "aria-pressed": String(pinned), "aria-label": name, title: name, onclick: toggle });
}

// What a third pin has done.
const unpinnedNote = () => el("p", { class: "note", role: "status" }, `Two conditions can be pinned: ${shortLabel(state.unpinned)} no longer is.`);

// Conditions in the order in which they are drawn: those that are pinned first.
const pinnedFirst = (a, b) => state.pins.includes(b) - state.pins.includes(a) || a - b;

function sideBySide(experiment) {
  const pair = state.pins;
  const columns = (first) => [{ title: first }, ...pair.map((index) => ({ title: shortLabel(index), number: first !== "Factor" }))];
  const levels = experiment.factors.map(({ name }) => [name, pair.map((index) => experiment.conditions[index].levels[name])]);
  const parts = [
    table({ caption: "Levels; those that differ first", columns: columns("Factor"), rows: levels.sort(([, a], [, b]) => (a[0] === a[1]) - (b[0] === b[1])).map(([name, own]) => [name, ...own]) }),
  ];
  if (!experiment.results.missing) parts.push(pairedMetrics(experiment, pair, columns));
  if (!experiment.layers.missing) parts.push(pairedLayers(experiment, pair));
  parts.push(el("p", { class: "method" }, "A difference of two means has no interval here: conditions that a contrast names are compared pair by pair above."));
  return parts;
}

function pairedMetrics({ results: { metrics } }, pair, columns) {
  const rows = metrics.flatMap((metric) => {
    const own = pair.map((index) => metric.rows.find(([condition]) => condition === index));
    if (!own[0] && !own[1]) return [];
    const write = metric.share ? percent : fixed;
    const digits = metric.share ? 1 : 2;
    const values = own.map((row) => (row ? [write(row[1], digits), " ", el("span", { class: "interval-text" }, missing(row[2]) ? "" : interval(row[2], row[3], digits, write))] : "–"));
    const difference = own[0] && own[1] ? signed((own[1][1] - own[0][1]) * (metric.share ? 100 : 1), digits) : "–";
    return [[`${metric.title}${metric.share ? " (%)" : ""} ${metric.lower_is_better ? "↓" : "↑"}`, ...values, difference]];
  });
  return table({ caption: "Means with 95% intervals", columns: [...columns("Measure"), { title: "Second less first", number: true }], rows });
}

function pairedLayers({ layers: { curves } }, pair) {
  const { statistic, title, units } = curves.find((curve) => curve.statistic === "entropy") ?? curves[0];
  const those = curves.filter((curve) => curve.statistic === statistic && pair.includes(curve.condition));
  return those.length ? layerCharts(those, { yTitle: `${title} (${units})` }) : note("Neither of the two was probed.");
}
