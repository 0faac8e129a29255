// In which layers: contrasts in statistics of layers, these statistics by condition, saturation.

function layerContrasts(experiment, redraw) {
  const { rows: all, parts } = contrastRows(experiment, redraw, "entropy");
  const statistics = unique(all.flatMap(({ layers }) => Object.keys(layers)));
  if (!statistics.length) return [...parts, note("No contrast of probed conditions is shown.")];
  const titles = Object.assign({}, ...all.flatMap(({ layers }) => Object.entries(layers).map(([name, { title }]) => ({ [name]: title }))));
  const picked = choice("contrasted", "Statistic", statistics.map((name) => ({ value: name, text: titles[name] })), redraw);
  const rows = all.filter(({ layers }) => layers[picked.value]);
  const chosen = rows.slice(0, MOST_SERIES);
  const drawn = chosen.map(({ layers }) => layers[picked.value]);
  const { title, units, equivalence, method } = drawn[0];
  const unit = units === "1" ? "" : ` ${units}`;
  const positions = unique(drawn.flatMap(({ position }) => position));
  const domain = padded(extent([0, ...drawn.flatMap(({ difference, low, high }) => [difference, low, high].flat(2))])); // one for all positions, so that they compare
  const charts = positions.map((position) => {
    const series = drawn.flatMap((own, slot) => {
      const place = own.position.indexOf(position);
      if (place < 0) return [];
      const p = own.p_adjusted[place];
      return [{ slot, label: contrastName(chosen[slot]), x: own.layer, y: own.difference[place], low: own.low[place], high: own.high[place], ...tested(p) }];
    });
    return lineChart({ title: `Position ${position}`, series, xTitle: "layer (0 = embedding)", yTitle: `difference in ${title}${unit && ` (${units})`}`, zero: true, around: equivalence, domain, write: signed, unit });
  });
  return [
    ...parts,
    statistics.length > 1 && picked.element,
    legend(chosen.map((row, slot) => ({ slot, label: contrastName(row) }))),
    el("div", { class: "charts" }, charts),
    rows.length > MOST_SERIES && note(`The first ${MOST_SERIES} of ${rows.length} contrasts; filter to see others.`),
    howMade(method, `Filled marks: p < ${ALPHA} after correction (${unique(drawn.map(({ corrected }) => corrected)).join("; ")}); hollow marks: not. Bands: 95% intervals of each layer by itself.${equivalence ? ` Shaded: differences below ${equivalence}${unit}, too small to matter.` : ""}`),
  ];
}

const layerContrastsCsv = (experiment) => [
  [...contrastHeader, "statistic", "units", "position", "layer", "difference", "low", "high", "p_adjusted", "p_equivalence", "verdict", "seeds"],
  shownContrasts(experiment.contrasts).flatMap((row) => Object.entries(row.layers).flatMap(([name, own]) =>
    own.position.flatMap((position, p) => own.layer.map((layer, l) => [...contrastCells(row), name, own.units, position, layer, own.difference[p][l], own.low[p][l], own.high[p][l], own.p_adjusted[p][l], own.p_equivalence?.[p][l], own.verdict?.[p][l], own.seeds])))),
];

function lensStatistics({ layers: { curves, methods } }, redraw) {
  const statistics = unique(curves.map(({ statistic }) => statistic));
  const picked = choice("statistic", "Statistic", statistics.map((name) => ({ value: name, text: curves.find(({ statistic }) => statistic === name).title })), redraw);
  const those = curves.filter(({ statistic, condition }) => statistic === picked.value && visible(condition));
  if (!those.length) return note("The filters hide all probed conditions.");
  return [picked.element, ...layerCharts(those, { yTitle: `${those[0].title} (${those[0].units})` }), howMade(methods[picked.value], "Bands: intervals of each layer by itself.")];
}

function layerCharts(curves, { yTitle, domain = null }) {
  const { chosen, legend: key, note: cut } = chartConditions(curves.map(({ condition }) => condition));
  const drawn = curves.filter(({ condition }) => chosen.includes(condition));
  const shared = domain ?? padded(extent(drawn.flatMap((own) => [own.mean, own.low, own.high].flat())));
  const charts = unique(curves.map(({ position }) => position)).map((position) => {
    const series = chosen.flatMap((index, slot) => {
      const own = curves.find((curve) => curve.condition === index && curve.position === position);
      return own ? [{ slot, label: shortLabel(index), x: own.layer, y: own.mean, low: own.low, high: own.high }] : [];
    });
    return lineChart({ title: `Position ${position}`, series, xTitle: "layer (0 = embedding)", yTitle, domain: shared });
  });
  return [key, el("div", { class: "charts" }, charts), cut];
}

const layersCsv = ({ layers: { curves } }) => [
  [...levelHeader(), "statistic", "position", "layer", "mean", "low", "high"],
  curves.filter(({ condition }) => visible(condition)).flatMap((own) => own.layer.map((layer, n) => [...levelCells(own.condition), own.statistic, own.position, layer, own.mean[n], own.low[n], own.high[n]])),
];

function saturation({ saturation: { curves, method, tests, test_methods: methods } }) {
  const those = curves.filter(({ condition }) => visible(condition));
  if (!those.length) return note("The filters hide all probed conditions.");
  const contrasts = tests.filter(({ factor, level, baseline }) => levelVisible(factor, level) && levelVisible(factor, baseline));
  const domain = padded(extent([0, ...contrasts.flatMap((own) => [own.difference, own.difference_low, own.difference_high])]));
  return [
    ...layerCharts(those, { yTitle: "share not yet saturated", domain: [0, 1] }),
    table({
      caption: "Saturation by condition and position",
      columns: [{ title: "Condition" }, { title: "Position" }, { title: "Median layer", number: true }, { title: "Never (%)", number: true }],
      rows: those.map((own) => [shortLabel(own.condition), own.position, missing(own.median_layer) ? "–" : fixed(own.median_layer, 0), percent(own.censored)]),
      tall: those.length > 14,
    }),
    howMade(method),
    contrasts.length > 0 && table({
      caption: "Difference in the mean layer of saturation, averaged over the other factors; an example that never saturates counts as one layer after the last",
      columns: [{ title: "Contrast" }, { title: "Position" }, { title: "Layers", number: true }, { title: "95% interval", number: true }, { title: "0 marked" }, { title: "p, corrected", number: true }],
      rows: contrasts.map((own) => {
        const [low, high] = [own.difference_low, own.difference_high];
        const sure = interval(low, high, 2, signed);
        return [`${own.factor}: ${own.level} against ${own.baseline}`, own.position, signed(own.difference), sure, intervalPlot({ value: own.difference, low, high, domain, reference: 0, label: `${signed(own.difference)} ${sure}` }), pValue(own.p_adjusted)];
      }),
      tall: contrasts.length > 14,
    }),
    contrasts.length > 0 && howMade(unique(methods).join(" ")),
  ];
}

const saturationCsv = ({ saturation: { curves } }) => [
  [...levelHeader(), "position", "layer", "not_yet_saturated", "low", "high"],
  curves.filter(({ condition }) => visible(condition)).flatMap((own) => own.layer.map((layer, n) => [...levelCells(own.condition), own.position, layer, own.mean[n], own.low[n], own.high[n]])),
];
