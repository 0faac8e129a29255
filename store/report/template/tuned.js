// The logit lens beside the tuned one, and how the latter's translators were trained.

const READ = ["kl_final", "entropy"];

function tunedLens({ tuned: data, layers }, redraw) {
  const trained = data.layers.filter(({ condition }) => visible(condition));
  if (!trained.length) return note("The filters hide all conditions with a tuned lens.");
  const picked = choice("tuned", "Condition", trained.map(({ condition }) => ({ value: String(condition), text: shortLabel(condition) })), redraw);
  const own = trained.find(({ condition }) => String(condition) === picked.value);
  const { chosen, legend: key, note: cut } = chartConditions(trained.map(({ condition }) => condition));
  const training = chosen.map((index, slot) => {
    const curve = data.curves.find(({ condition }) => condition === index);
    return { slot, label: shortLabel(index), x: curve.step, y: curve.mean, low: curve.low, high: curve.high };
  });
  const binned = data.curves.some(({ step, steps }) => step.length < steps);
  return [
    trained.length > 1 && picked.element,
    besideLogit(own.condition, data.twins[own.condition], layers),
    el("h3", {}, "The training of the translators, on training examples"),
    el("div", { class: "charts" }, [
      el("div", {}, legend([{ slot: 0, label: "first step: logit lens" }, { slot: 1, label: "last step: tuned lens" }]), lineChart({
        title: `KL to the final layer by layer: ${shortLabel(own.condition)}`,
        series: ["first", "last"].map((step, slot) => ({ slot, label: `${step} step`, x: own.layer, y: own[step].mean, low: own[step].low, high: own[step].high })),
        xTitle: "layer (0 = embedding)", yTitle: "KL(final ‖ layer) (nat)", zero: true, unit: " nat",
      })),
      el("div", {}, key, lineChart({ title: "KL to the final layer by step, mean over layers", series: training, xTitle: "step", yTitle: "KL(final ‖ layer) (nat)", zero: true, unit: " nat" })),
    ]),
    cut,
    el("p", { class: "method" }, `Line: mean over seeds. Band: lowest to highest seed. Every step is measured on its own tokens, before it changes the translators.${binned ? " Each point is the mean of neighbouring steps." : ""}`),
  ];
}

// What both lenses read in the same trained models, on the test examples.
function besideLogit(condition, twin, layers) {
  if (twin === undefined) return note("No condition differs from this one in the lens alone, so the test examples show no logit lens beside it.");
  const lenses = [twin, condition];
  const curves = (layers.curves ?? []).filter((curve) => lenses.includes(curve.condition) && READ.includes(curve.statistic));
  if (!curves.length || !visible(twin)) return note(curves.length ? "The filters hide the condition with the logit lens." : "The probe recorded neither the KL to the final layer nor entropy.");
  const charts = READ.flatMap((statistic) => {
    const those = curves.filter((curve) => curve.statistic === statistic);
    const domain = padded(extent([0, ...those.flatMap((own) => [own.mean, own.low, own.high].flat())]));
    return unique(those.map(({ position }) => position)).map((position) => {
      const series = lenses.flatMap((index, slot) => those.filter((own) => own.condition === index && own.position === position).map((own) => ({ slot, label: shortLabel(index), x: own.layer, y: own.mean, low: own.low, high: own.high })));
      const { title, units } = those[0];
      return lineChart({ title: `${statistic === "kl_final" ? "KL to the final layer" : "Entropy"}, position ${position}`, series, xTitle: "layer (0 = embedding)", yTitle: `${title} (${units})`, domain, unit: ` ${units}` });
    });
  });
  return [
    legend(lenses.map((index, slot) => ({ slot, label: shortLabel(index) }))),
    el("div", { class: "charts" }, charts),
    howMade(READ.map((name) => layers.methods[name]).filter(Boolean).join(" "), "On the test examples. Bands: intervals of each layer by itself."),
  ];
}

const tunedCsv = ({ tuned: { layers, curves } }) => [
  [...levelHeader(), "step", "layer", "kl_nat", "lowest_seed", "highest_seed"],
  [
    ...layers.filter(({ condition }) => visible(condition)).flatMap((own) => ["first", "last"].flatMap((step) => own.layer.map((layer, n) => [...levelCells(own.condition), step, layer, own[step].mean[n], own[step].low[n], own[step].high[n]]))),
    ...curves.filter(({ condition }) => visible(condition)).flatMap((own) => own.step.map((step, n) => [...levelCells(own.condition), step, "mean", own.mean[n], own.low[n], own.high[n]])),
  ],
];
