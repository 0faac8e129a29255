// What changing layers, heads or positions does: effects, shares of a difference, maps over layers.

const CHANGED = {
  log_odds: { title: "log-odds of the true label", unit: "nat", scale: 1, digits: 2 },
  correct: { title: "accuracy", unit: "points", scale: 100, digits: 1 },
  logit_difference: { title: "log-likelihood of the true label less that of the label taken from", unit: "nat", scale: 1, digits: 2 },
};
const STREAMS = { residual: "residual stream", attention: "attention's output", mlp: "MLP's output", heads: "heads' output" };
const INPUTS = { "other example": " for another example", "other label": " for an example of another label", donor: " for its own prompt" };
const ABLATIONS = { zero: "set to zero", mean: "replaced by its mean", resample: "replaced by that for another example" };
const KINDS = {
  mask: ({ alpha }) => (alpha ? `the adapter's deltas times ${alpha}` : "the adapter switched off"),
  graft: () => "the donor's adapter in their stead",
  patch: ({ stream, input }) => `the donor's ${STREAMS[stream ?? "residual"]}${INPUTS[input] ?? ""} put in`,
  heads: ({ ablation }) => `each head's output ${ABLATIONS[ablation ?? "zero"]}`,
  ablate: ({ stream, ablation }) => `the ${STREAMS[stream ?? "residual"]} ${ABLATIONS[ablation ?? "zero"]}`,
  path: ({ sender, receiver, input }) => `the donor's ${STREAMS[sender ?? "attention"]}${INPUTS[input] ?? ""}, where ${receiver && receiver !== "final" ? `the ${receiver} of one later layer read` : "the final norm reads"} it, and nowhere else`,
  steer: ({ onto, random_directions: random }) => `multiples of the mean difference from the donor's residual stream${random === 0 ? "" : ", and random directions as long,"} added to ${onto === "own" ? "the model's own" : "the donor's"}`,
};
const MOST_SHOWN = 12;

function interventions(experiment, redraw) {
  const { entries } = experiment.interventions;
  const entry = choice("intervention", "Intervention", asOptions(entries.map(({ name }) => name)), redraw);
  const own = entries.find(({ name }) => name === entry.value);
  const measured = Object.entries(CHANGED).filter(([value]) => value in own.conditions[0].effects);
  const outcome = choice("intervention-outcome", "Effect on", measured.map(([value, { title }]) => ({ value, text: title })), redraw);
  const { chosen, legend: key, note: cut } = chartConditions(own.conditions.map(({ condition }) => condition));
  const left = own.left_out > 0 && note(`${plural(own.left_out, "condition")} left out to keep this file small.`);
  if (!chosen.length) return [entry.element, note("The filters hide all conditions of this intervention."), left];
  const shown = chosen.map((index) => own.conditions.find(({ condition }) => condition === index));
  const mapped = Boolean(shown[0].map);
  return [
    el("div", { class: "controls" }, entry.element, outcome.element),
    el("p", {}, described(own, shown)),
    mapped ? effectMap(shown, outcome.value, redraw) : [key, layerEffects(shown, outcome.value)],
    cut,
    left,
    howMade(own.methods[outcome.value], mapped ? `* p < ${ALPHA} after correction.` : `Filled marks: p < ${ALPHA} after correction; hollow marks: not. Bands: 95% intervals of each change by itself.`),
    shares(own, shown, outcome.value),
    own.methods.entropy && entropyMap(own, shown, redraw),
    nextSpec(own, shown, outcome.value, redraw),
  ];
}

function described({ settings }, shown) {
  const sources = unique(shown.map(({ source }) => source).filter(Boolean));
  const parts = settings.modules?.length === 1 ? `, in ${settings.modules[0] === "mlp" ? "the MLPs" : "attention"} alone` : "";
  const place = (position) => (position.range ? `${position.most ?? 32} tokens of the ${position.range}` : position);
  const where = Array.isArray(settings.positions) ? `, at ${settings.positions.map(place).join(", ")}` : "";
  const from = sources.length && settings.kind !== "mask" ? `; taken from ${sources.length > 4 ? plural(sources.length, "model") : sources.join(", ")}` : "";
  return `In the changed layers: ${KINDS[settings.kind]?.(settings) ?? "another model's part"}${parts}${where}${from}.`;
}

// The columns of a condition's effects, in the unit that is shown.
function effectsOf(own, outcome) {
  const { scale } = CHANGED[outcome];
  const { p_adjusted: p, ...numbers } = own.effects[outcome];
  const scaled = (values) => values.map((value) => (missing(value) ? null : scale * value));
  return { ...Object.fromEntries(Object.entries(numbers).map(([name, values]) => [name, scaled(values)])), p };
}

// What all conditions shown have in common: their effects in one unit, and the digits that these need.
function inUnits(shown, outcome) {
  const all = shown.map((own) => ({ ...own, ...effectsOf(own, outcome) }));
  return { all, digits: finer(CHANGED[outcome].digits, all.flatMap(({ effect }) => effect)) };
}

// What a map's full shade stands for; effects too small to matter are all pale.
const strongest = (values) => Math.max(0.01, ...extent(values).map(Math.abs));

const endsOf = (most, digits, unit) => [signed(-most, digits), `${signed(most, digits)} ${unit}`];

// One chart for each number of changed layers, a line per condition.
function layerEffects(shown, outcome) {
  const { title, unit } = CHANGED[outcome];
  const { all, digits } = inUnits(shown, outcome);
  const domain = padded(extent([0, ...all.flatMap(({ effect, low, high }) => [effect, low, high].flat())]));
  const charts = unique(all.flatMap(({ line }) => line)).map((name) => {
    const names = new Map();
    const series = all.flatMap((own, slot) => {
      const there = own.line.flatMap((line, n) => (line === name ? [n] : []));
      const take = (column) => there.map((n) => own[column][n]);
      for (const n of there) names.set(own.place[n], own.changed[n]);
      return there.length ? [{ slot, label: shortLabel(own.condition), x: take("place"), y: take("effect"), low: take("low"), high: take("high"), ...tested(take("p")) }] : [];
    });
    return lineChart({ title: name[0].toUpperCase() + name.slice(1), series, xTitle: all[0].axis, yTitle: `change in ${title} (${unit})`, yDigits: digits, zero: true, domain, write: signed, unit: ` ${unit}`, where: (place) => names.get(place) });
  });
  return el("div", { class: "charts" }, charts);
}

// A map of layers by heads, positions or ends of paths, of one condition at a time, and the largest effects in all.
function effectMap(shown, outcome, redraw) {
  const { title, unit } = CHANGED[outcome];
  const { all, digits } = inUnits(shown, outcome);
  const most = strongest(all.flatMap(({ effect }) => effect));
  const picked = oneCondition("intervention-map", shown, redraw);
  const own = all.find(({ condition }) => condition === picked.condition);
  const rows = unique(own.map.row);
  const columns = unique(own.map.column);
  if (columns.every((name) => /^\d+$/.test(name))) columns.sort((a, b) => a - b);
  const places = new Map(own.map.row.map((row, n) => [`${row}\n${own.map.column[n]}`, n]));
  const nothing = { text: "", share: null, title: "no such change" };
  const cells = rows.map((row) => columns.map((column) => {
    const n = places.get(`${row}\n${column}`);
    return n === undefined ? nothing : effectCell(own, n, most, digits);
  }));
  const ranked = all.flatMap((own) => own.changed.map((name, n) => ({ own, name, n }))).filter(({ own, n }) => !missing(own.effect[n]));
  ranked.sort((a, b) => Math.abs(b.own.effect[b.n]) - Math.abs(a.own.effect[a.n]));
  const largest = ranked.slice(0, MOST_SHOWN);
  const limits = padded(extent([0, ...largest.flatMap(({ own, n }) => [own.effect[n], own.low[n], own.high[n]])]));
  return [
    picked.element,
    heatTable({ caption: `Change in ${title} (${unit}); one scale for all conditions`, rowTitle: "changed", columnTitle: own.map.columns, rows, columns, cells, ends: endsOf(most, digits, unit), sign: true, tall: rows.length > 14, fine: true }),
    table({
      caption: `The ${largest.length} largest of ${plural(ranked.length, "effect")}; the largest of many is larger here than it would be on new examples`,
      columns: [{ title: "Condition" }, { title: "Changed" }, { title: `Change (${unit})`, number: true }, { title: "95% interval", number: true }, { title: "0 marked" }, { title: "p, corrected", number: true }],
      rows: largest.map(({ own, name, n }) => {
        const sure = interval(own.low[n], own.high[n], digits, signed);
        return [shortLabel(own.condition), name, signed(own.effect[n], digits), sure, intervalPlot({ value: own.effect[n], low: own.low[n], high: own.high[n], domain: limits, reference: 0, label: `${signed(own.effect[n], digits)} ${sure}` }), pValue(own.p[n])];
      }),
    }),
  ];
}

// Which of the conditions shown a map is of, and the select where there are several.
function oneCondition(key, shown, redraw) {
  const { element, value } = choice(key, "Condition", shown.map(({ condition }) => ({ value: String(condition), text: shortLabel(condition) })), redraw);
  return { element: shown.length > 1 && element, condition: Number(value) };
}

function effectCell(own, n, most, digits) {
  const value = own.effect[n];
  const sure = !missing(own.p[n]) && own.p[n] < ALPHA;
  return { text: `${mapped(value, digits)}${sure ? "*" : ""}`, share: missing(value) ? null : value / most, title: `${own.changed[n]}: ${signed(value, digits)} ${interval(own.low[n], own.high[n], digits, signed)}, p ${pValue(own.p[n])}` };
}

// The places of the numbers that are farthest from 0.
function largestOf(values) {
  const places = values.map((_, n) => n).filter((n) => !missing(values[n]));
  places.sort((a, b) => Math.abs(values[b]) - Math.abs(values[a]));
  return new Set(places.slice(0, MOST_SHOWN));
}

// How much of the whole difference to the other run goes with each set of layers.
function shares(own, shown, outcome) {
  if (own.unshared) return note(`No shares: ${own.unshared.replace(": ", " ")}.`);
  const { title, unit, scale } = CHANGED[outcome];
  const digits = finer(CHANGED[outcome].digits, shown.map((condition) => scale * condition.shares[outcome].total));
  const known = shown.filter(({ shares: { [outcome]: { share } } }) => !share.every(missing));
  const limits = padded(extent([0, 1, ...known.flatMap(({ shares: { [outcome]: { share, low, high } } }) => [share, low, high].flat())]));
  const rows = shown.flatMap((condition) => {
    const { total, share, low, high } = condition.shares[outcome];
    const whole = missing(total) ? "–" : signed(scale * total, digits);
    const label = shortLabel(condition.condition);
    if (!known.includes(condition)) return [[label, "all", whole, "–", "no share and no bounds to it: the whole difference may be 0", ""]];
    return condition.changed.flatMap((name, n) => {
      if (condition.map && !largestOf(share).has(n)) return [];
      const sure = interval(low[n], high[n], 0, percent);
      return [[label, name, whole, percent(share[n], 0), sure, intervalPlot({ value: share[n], low: low[n], high: high[n], domain: limits, reference: 0, label: `${percent(share[n], 0)} % ${sure}` })]];
    });
  });
  return [
    table({
      caption: `Share of the difference in ${title} to what is taken from${shown[0].map ? `: the ${MOST_SHOWN} largest of each condition` : ""}; shares of changes that work together do not add up to 100%`,
      columns: [{ title: "Condition" }, { title: "Changed" }, { title: `Whole difference (${unit})`, number: true }, { title: "Share (%)", number: true }, { title: "95% interval" }, { title: "0 marked" }],
      rows,
      tall: rows.length > 14,
    }),
    howMade(own.share_methods[outcome]),
  ];
}

// What changed layers do to the lens entropy of every layer, of one condition at a time.
function entropyMap(own, shown, redraw) {
  const picked = oneCondition("intervention-entropy", shown, redraw);
  const { changed, entropy } = shown.find(({ condition }) => condition === picked.condition);
  const most = strongest(entropy.effect.flat());
  const digits = finer(2, entropy.effect.flat());
  const cells = entropy.effect.map((row, n) => row.map((value, layer) => ({ text: `${mapped(value, digits)}${entropy.sure[n][layer] ? "*" : ""}`, share: missing(value) ? null : value / most, title: `${changed[n]}: ${signed(value, digits)} nat in layer ${entropy.layer[layer]}` })));
  return [
    picked.element,
    heatTable({ caption: "Change in lens entropy (nat) of each layer where the label is predicted", rowTitle: "changed", columnTitle: "layer", rows: changed, columns: entropy.layer.map(String), cells, ends: endsOf(most, digits, "nat"), sign: true, tall: changed.length > 14, fine: true }),
    howMade(own.methods.entropy, `* p < ${ALPHA} after correction.`),
  ];
}

const interventionsCsv = ({ interventions: { entries } }) => [
  [...levelHeader(), "intervention", "changed", "measure", "layer", "value", "low", "high", "p_adjusted"],
  entries.flatMap(({ name, conditions }) => conditions.filter(({ condition }) => visible(condition)).flatMap((own) => own.changed.flatMap((changed, n) => {
    const before = [...levelCells(own.condition), name, changed];
    return [
      ...Object.entries(own.effects).map(([outcome, { effect, low, high, p_adjusted }]) => [...before, `change in ${outcome}`, "", effect[n], low[n], high[n], p_adjusted[n]]),
      ...Object.entries(own.shares).map(([outcome, { share, low, high }]) => [...before, `share of ${outcome}`, "", share[n], low[n], high[n], ""]),
      ...(own.entropy?.layer ?? []).map((layer, place) => [...before, "change in entropy", layer, own.entropy.effect[n][place], "", "", ""]),
    ];
  }))),
];
