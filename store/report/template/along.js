// Along a training: how often answers are right, and one statistic of a layer, over the same steps.

function alongTraining({ along: { curves, methods } }, redraw) {
  const shown = curves.filter(({ condition }) => visible(condition));
  if (!shown.length) return note("The filters hide all conditions that were measured along their training.");
  const ofLayers = shown.filter(({ layer }) => layer !== null);
  const option = (name, label, values, text = String) => choice(name, label, values.map((value) => ({ value: String(value), text: text(value) })), redraw);
  const statistic = ofLayers.length > 0 && option("along-statistic", "Statistic", unique(ofLayers.map(({ variable }) => variable)), (name) => ofLayers.find(({ variable }) => variable === name).title);
  const layer = ofLayers.length > 0 && option("along-layer", "Layer", unique(ofLayers.map((own) => own.layer)).sort((a, b) => b - a));
  const position = ofLayers.length > 0 && option("along-position", "Position", unique(ofLayers.map((own) => own.position)));
  const picked = ofLayers.filter((own) => own.variable === statistic.value && String(own.layer) === layer.value && own.position === position.value);
  const answers = unique(shown.filter((own) => own.layer === null).map(({ variable }) => variable));
  const { chosen, legend: key, note: cut } = chartConditions(unique(shown.map(({ condition }) => condition)));
  const chart = (those, title, yTitle) => lineChart({
    title,
    series: chosen.flatMap((index, slot) => those.filter(({ condition }) => condition === index).map((own) => ({ slot, label: shortLabel(index), x: own.step, y: own.mean, low: own.low, high: own.high }))),
    xTitle: "step",
    xDigits: shown.every((own) => own.step.every(Number.isInteger)) ? 0 : 2,
    yTitle,
  });
  const title = (own) => (own.units === "1" ? own.title : `${own.title} (${own.units})`);
  return [
    el("div", { class: "controls" }, [statistic, layer, position].filter(Boolean).map(({ element }) => element)),
    key,
    el("div", { class: "charts" }, [
      ...answers.map((name) => shown.filter(({ variable }) => variable === name)).map((those) => chart(those, `${those[0].title} by step`, title(those[0]))),
      picked.length > 0 && chart(picked, `${picked[0].title} of layer ${layer.value} by step, position ${position.value}`, title(picked[0])),
    ].filter(Boolean)),
    cut,
    howMade(Object.values(methods)[0], "Bands: intervals of each step by itself. Whether two steps differ is asked by pairs of examples: see onset in docs/analysis.md."),
  ];
}

const alongCsv = ({ along: { curves } }) => [
  [...levelHeader(), "variable", "layer", "position", "step", "mean", "low", "high"],
  curves.filter(({ condition }) => visible(condition)).flatMap((own) => own.step.map((step, n) => [...levelCells(own.condition), own.variable, own.layer, own.position, step, own.mean[n], own.low[n], own.high[n]])),
];
