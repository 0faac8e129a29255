// What came out, by condition: metrics, contrasts in outcomes, confusion, calibration, training, transfer.

const percent = (value, digits = 1) => (missing(value) ? "–" : fixed(100 * value, digits));

// How a figure is read, and folded away how it was made.
const howMade = (method, reading = null) => [
  reading && el("p", { class: "method" }, reading),
  el("details", { class: "method" }, el("summary", {}, "How it was made"), method),
];

function results(experiment, redraw) {
  const { metrics } = experiment.results;
  const picked = choice("results", "Plot", metrics.map(({ name, title }) => ({ value: name, text: title })), redraw);
  const plotted = metrics.find(({ name }) => name === picked.value);
  const write = ({ share }) => (share ? percent : fixed);
  const digits = ({ share }) => (share ? 1 : 2);
  const domain = padded(extent(plotted.rows.flatMap(([, ...row]) => row.slice(0, 3))), 0.04);
  const shown = unique(metrics.flatMap(({ rows }) => rows.map(([index]) => index))).filter(visible).sort((a, b) => a - b);
  const rows = shown.map((index) => {
    const own = metrics.map((metric) => [metric, metric.rows.find(([condition]) => condition === index)]);
    const [, mean, low, high, seeds, examples] = plotted.rows.find(([condition]) => condition === index) ?? [];
    const counts = own.map(([, row]) => row).filter(Boolean);
    return [
      [pinButton(index), shortLabel(index)],
      `${seeds ?? counts[0][4]}`,
      `${examples ?? counts.map((row) => row[5]).find((number) => !missing(number)) ?? "–"}`,
      intervalPlot({ value: mean, low, high, domain, label: `${plotted.title} ${write(plotted)(mean, digits(plotted))} ${interval(low, high, digits(plotted), write(plotted))}` }),
      ...own.map(([metric, row]) => row
        ? [write(metric)(row[1], digits(metric)), el("span", { class: "interval-text" }, missing(row[2]) ? "" : interval(row[2], row[3], digits(metric), write(metric)))]
        : "–"),
    ];
  });
  const references = experiment.results.references.map((name, place) => [
    name, "", "", "",
    ...metrics.map((metric) => (missing(metric.references[place]) ? "" : write(metric)(metric.references[place], digits(metric)))),
  ]);
  return [
    picked.element,
    table({
      caption: "Means with 95% intervals. ↑ higher is better, ↓ lower is better; no brackets: one seed, and an interval takes two",
      columns: [
        { title: "Condition" }, { title: "Seeds", number: true }, { title: "Examples", number: true }, { title: `${plotted.title}, ${apart(...domain.map((end) => (plotted.share ? 100 * end : end)), plotted.share ? 0 : 2).join(" to ")}` },
        ...metrics.map((metric) => ({ title: `${metric.title}${metric.share ? " (%)" : ""} ${metric.lower_is_better ? "↓" : "↑"}`, number: true })),
      ],
      rows: [...rows, ...references],
    }),
    howMade(`${plotted.method} Last rows: the untrained model asked for the label alone, one label for all examples (Brier score and log-likelihood: of the labels' shares), and what uniform guesses expect.`),
  ];
}

const resultsCsv = (experiment) => [
  [...levelHeader(), "metric", "mean", "low", "high", "seeds", "examples"],
  experiment.results.metrics.flatMap(({ name, rows }) => rows.filter(([index]) => visible(index)).map(([index, ...row]) => [...levelCells(index), name, ...row])),
];

function contrastRows(experiment, redraw, key) {
  const data = experiment.contrasts;
  const shown = shownContrasts(data);
  const kinds = [
    { value: "over", text: "averaged over the other factors", rows: shown.filter((row) => row.over.length) },
    { value: "within", text: "within each combination of other levels", rows: shown.filter((row) => !row.over.length) },
  ].filter(({ rows }) => rows.length);
  const hidden = data.rows.length - shown.length;
  const notes = [
    hidden > 0 && note(`${plural(hidden, "contrast")} rest on conditions that the filters hide.`),
    data.left_out > 0 && note(`${plural(data.left_out, "contrast")} within combinations of levels were left out to keep this file small.`),
  ];
  if (!kinds.length) return { rows: [], parts: notes };
  const picked = choice(key, "Contrasts", kinds, redraw);
  return { rows: kinds.find(({ value }) => value === picked.value).rows, parts: [kinds.length > 1 && picked.element, ...notes] };
}

function outcomeContrasts(experiment, redraw) {
  const { rows, parts } = contrastRows(experiment, redraw, "contrasts");
  const names = unique(rows.flatMap((row) => Object.keys(row.outcomes)));
  const tables = names.map((name) => {
    const those = rows.filter((row) => row.outcomes[name]);
    const share = name.endsWith("correct");
    const units = { absolute_error: ", rating points", nll: ", nat" }[name] ?? "";
    const write = share ? points : signed;
    const digits = share ? 1 : 2;
    const { title, method } = those[0].outcomes[name];
    const judged = those.some((row) => row.outcomes[name].verdict !== undefined);
    const domain = padded(extent([0, ...those.flatMap(({ outcomes }) => [outcomes[name].difference, outcomes[name].low, outcomes[name].high])]));
    return [
      table({
        caption: `Paired difference in ${title}${share ? ", percentage points" : units}`,
        columns: [{ title: "Contrast" }, { title: "Difference", number: true }, { title: "95% interval", number: true }, { title: "0 marked" }, { title: "p, corrected", number: true }, { title: "Declared" }, ...(judged ? [{ title: "Verdict" }] : []), { title: "d_z", number: true }, { title: "Seeds", number: true }, { title: "Examples", number: true }],
        rows: those.map((row) => {
          const own = row.outcomes[name];
          return [
            contrastName(row),
            [write(own.difference, digits), own.p_adjusted < ALPHA && !missing(own.p_adjusted) ? el("span", { title: `p < ${ALPHA} after correction` }, " *") : ""],
            interval(own.low, own.high, digits, write),
            intervalPlot({ value: own.difference, low: own.low, high: own.high, domain, reference: 0, around: own.equivalence, label: `${write(own.difference, digits)} ${interval(own.low, own.high, digits, write)}` }),
            pValue(own.p_adjusted), el("span", { title: own.why }, own.standing), ...(judged ? [own.verdict ?? ""] : []), fixed(own.effect_size), String(own.seeds), String(own.examples),
          ];
        }),
        tall: those.length > 14,
      }),
      howMade(method, `* p < ${ALPHA} after correction (${unique(those.map(({ outcomes }) => outcomes[name].corrected)).join("; ")}).`),
    ];
  });
  return [...parts, names.length ? tables : note("No contrast in an outcome is shown.")];
}

const contrastHeader = ["factor", "level", "baseline", "within"];
const contrastCells = (row) => [row.factor, row.level, row.baseline, inWords(row.within, "; ")];

const contrastsCsv = (experiment) => [
  [...contrastHeader, "outcome", "difference", "low", "high", "p_value", "p_adjusted", "p_equivalence", "verdict", "effect_size", "seeds", "examples", "standing", "why"],
  shownContrasts(experiment.contrasts).flatMap((row) =>
    Object.entries(row.outcomes).map(([name, own]) => [...contrastCells(row), name, own.difference, own.low, own.high, own.p_value, own.p_adjusted, own.p_equivalence, own.verdict, own.effect_size, own.seeds, own.examples, own.standing, own.why])),
];

const MOST_MAPS = 12;

function confusion({ confusion: data }) {
  const shown = data.conditions.map((index, place) => [index, place]).filter(([index]) => visible(index)).sort(([a], [b]) => pinnedFirst(a, b));
  const name = (label) => label || "no label";
  const maps = shown.slice(0, MOST_MAPS).map(([index, place]) => {
    const cells = data.count[place].map((row) => {
      const total = row.reduce((sum, value) => sum + value, 0);
      return row.map((value, column) => ({ text: String(value), share: total ? value / total : null, title: `${value} of ${total} predicted ${name(data.predicted[column])}` }));
    });
    return heatTable({ caption: shortLabel(index), rowTitle: "true", columnTitle: "predicted", rows: data.gold, columns: data.predicted.map(name), cells, ends: ["0 %", "100 % of the row"] });
  });
  return [
    el("div", { class: "tiles" }, maps),
    shown.length > MOST_MAPS && note(`The first ${MOST_MAPS} of ${shown.length} conditions; filter to see others.`),
    howMade(data.method, `Counts of examples. ${data.prediction === "prediction" ? "Predicted: the label of the highest log-likelihood" : "Predicted: the label parsed from generated text"}.`),
  ];
}

const confusionCsv = ({ confusion: data }) => [
  [...levelHeader(), "true", "predicted", "count"],
  data.conditions.flatMap((index, place) => (visible(index) ? data.count[place].flatMap((row, g) => row.map((value, p) => [...levelCells(index), data.gold[g], data.predicted[p], value])) : [])),
];

// The first conditions that the filters leave, as many as a chart can tell apart.
function chartConditions(indices) {
  const shown = unique(indices).filter(visible).sort(pinnedFirst);
  const chosen = shown.slice(0, MOST_SERIES);
  return {
    chosen,
    legend: legend(chosen.map((index, slot) => ({ slot, label: shortLabel(index) }))),
    note: shown.length > MOST_SERIES && note(`The first ${MOST_SERIES} of ${shown.length} conditions; filter to see others.`),
  };
}

function calibration({ calibration: data }) {
  const { chosen, legend: key, note: cut } = chartConditions(data.conditions);
  const series = chosen.map((index, slot) => {
    const place = data.conditions.indexOf(index);
    const bins = data.count[place].map((count, bin) => [count, bin]).filter(([count]) => count > 0).map(([, bin]) => bin);
    const take = (name) => bins.map((bin) => data[name][place][bin]);
    return { slot, label: shortLabel(index), x: take("confidence"), y: take("accuracy"), weight: take("count"), notes: take("count").map((count) => `of ${plural(count, "example")}`) };
  });
  return [
    key,
    el("div", { class: "charts" },
      lineChart({ title: "Accuracy by confidence; on the dashed diagonal both agree", series, xTitle: "confidence", yTitle: "accuracy", xDigits: 2, diagonal: true, domain: [0, 1] }),
      table({
        caption: "Calibration error: expected (ECE), all examples pooled, and root-mean-square without bias (RMSCE)",
        columns: [{ title: "Condition" }, { title: "ECE", number: true }, { title: "RMSCE", number: true }, { title: "95% interval", number: true }],
        rows: data.conditions.map((index, place) => [index, place]).filter(([index]) => visible(index)).map(([index, place]) => [shortLabel(index), fixed(data.ece[place], 3), fixed(data.rmsce[place], 3), interval(data.rmsce_low[place], data.rmsce_high[place], 3)]),
        tall: true,
      })),
    cut,
    howMade(data.method, "The area of a mark grows with the number of its examples, up to the fullest bin of all."),
  ];
}

const calibrationCsv = ({ calibration: data }) => [
  [...levelHeader(), "bin", "confidence", "accuracy", "count"],
  data.conditions.flatMap((index, place) => (visible(index) ? data.bin.map((bin, b) => [...levelCells(index), bin, data.confidence[place][b], data.accuracy[place][b], data.count[place][b]]) : [])),
];

function training({ training: { curves } }, redraw) {
  const variables = unique(curves.map(({ variable }) => variable));
  const picked = choice("training", "Curve", variables.map((value) => ({ value, text: curves.find(({ variable }) => variable === value).title })), redraw);
  const those = curves.filter(({ variable, condition }) => variable === picked.value && visible(condition));
  if (!those.length) return note("The filters hide all trained conditions.");
  const { chosen, legend: key, note: cut } = chartConditions(those.map(({ condition }) => condition));
  const series = chosen.map((index, slot) => {
    const own = those.find(({ condition }) => condition === index);
    return { slot, label: shortLabel(index), x: own.step, y: own.mean, low: own.low, high: own.high };
  });
  const { title, units } = those[0];
  const binned = those.some(({ step, steps }) => step.length < steps);
  return [
    picked.element,
    key,
    lineChart({ title: `${title} by step`, series, xTitle: "step", yTitle: `${title} (${units})`, yDigits: 4, write: (value) => (missing(value) ? "–" : String(Number(value.toPrecision(3))).replace("-", "−")) }),
    cut,
    el("p", { class: "method" }, `Line: mean over seeds. Band: lowest to highest seed.${binned ? " Each point is the mean of neighbouring steps." : ""}`),
  ];
}

const trainingCsv = ({ training: { curves } }) => [
  [...levelHeader(), "variable", "step", "mean", "lowest_seed", "highest_seed"],
  curves.filter(({ condition }) => visible(condition)).flatMap((own) => own.step.map((step, n) => [...levelCells(own.condition), own.variable, step, own.mean[n], own.low[n], own.high[n]])),
];

const shownMatrices = ({ transfer: { matrices } }) =>
  matrices.filter(({ within }) => Object.entries(within).every(([factor, level]) => levelVisible(factor, level)));

function transfer(experiment, redraw) {
  const { train, test } = experiment.transfer;
  const matrices = shownMatrices(experiment);
  if (!matrices.length) return note("The filters hide all matrices.");
  const picked = choice("transfer", "Metric", unique(matrices.map(({ metric }) => metric)).map((metric) => ({ value: metric, text: matrices.find((own) => own.metric === metric).title })), redraw);
  const those = matrices.filter(({ metric }) => metric === picked.value);
  const [low, high] = extent(those.flatMap(({ value }) => value.flat()));
  const maps = those.slice(0, MOST_MAPS).map((own) => {
    const rows = own.train.map((level, place) => [level, place]).filter(([level]) => levelVisible(train, level));
    const columns = own.test.map((level, place) => [level, place]).filter(([level]) => levelVisible(test, level));
    const write = own.share ? percent : fixed;
    const digits = own.share ? 1 : 2;
    const cells = rows.map(([, r]) => columns.map(([, c]) => ({ text: write(own.value[r][c], digits), share: missing(own.value[r][c]) ? null : (own.value[r][c] - low) / (high - low || 1), title: interval(own.low[r][c], own.high[r][c], digits, write) })));
    const within = inWords(own.within);
    return heatTable({ caption: `${own.title}${own.share ? " (%)" : ""}${within ? `: ${within}` : ""}`, rowTitle: "trained on", columnTitle: "tested on", rows: rows.map(([level]) => level), columns: columns.map(([level]) => level), cells, ends: apart(...[low, high].map((end) => (own.share ? 100 * end : end)), digits) });
  });
  return [picked.element, el("div", { class: "tiles" }, maps), those.length > MOST_MAPS && note(`The first ${MOST_MAPS} of ${those.length} matrices; filter to see others.`), howMade(those[0].method, "Point at a cell for its interval.")];
}

const transferCsv = (experiment) => [
  ["within", "metric", "trained_on", "tested_on", "value", "low", "high"],
  shownMatrices(experiment).flatMap((own) => own.train.flatMap((train, r) => own.test.map((test, c) => [inWords(own.within, "; "), own.metric, train, test, own.value[r][c], own.low[r][c], own.high[r][c]]))),
];
