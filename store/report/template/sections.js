// Failure signatures, provenance, and the list of all sections in the order of reading.

function failures({ failures: data }) {
  const rows = data.rows.filter(({ condition }) => visible(condition));
  const found = rows.filter((row) => row.found);
  return [
    found.length
      ? table({
          caption: `Found: ${plural(found.length, "finding")} among ${plural(rows.length, "measurement")}`,
          columns: [{ title: "Signature" }, { title: "Condition" }, { title: "Seed", number: true }, { title: "Measure", number: true }, { title: "Threshold", number: true }, { title: "Finding" }],
          rows: found.map((row) => [row.signature, shortLabel(row.condition), row.seed, fixed(row.value), fixed(data.thresholds[row.signature]), row.sentence.replace(/^found: /, "")]),
          tall: found.length > 14,
        })
      : note(rows.length ? `None found in ${plural(rows.length, "measurement")}.` : "Nothing could be measured in the conditions shown."),
    el("details", {}, el("summary", {}, "What was looked for"), el("ul", {}, Object.entries(data.thresholds).map(([name, threshold]) => {
      const reasons = data.not_measurable[name]?.map((reason) => reason.replace(/^not measurable: /, ""));
      const measured = rows.filter(({ signature }) => signature === name).length;
      return el("li", {}, el("b", {}, name), `: threshold ${fixed(threshold)}, measured in ${plural(measured, "cell")}${reasons ? `; elsewhere not: ${reasons.join("; ")}` : ""}`);
    }))),
    howMade(data.method),
  ];
}

const failuresCsv = ({ failures: { rows } }) => [
  [...levelHeader(), "seed", "signature", "found", "measure", "sentence"],
  rows.filter(({ condition }) => visible(condition)).map((row) => [...levelCells(row.condition), row.seed, row.signature, row.found, row.value, row.sentence]),
];

// The keys in which the specs of two experiments differ.
function specDifference({ provenance: data }, other) {
  const keys = unique([...Object.keys(data.settings), ...Object.keys(other.provenance.settings)]).sort();
  const differing = keys.filter((key) => key !== "name" && data.settings[key] !== other.provenance.settings[key]);
  const rows = differing.map((key) => [key, data.settings[key] ?? "–", other.provenance.settings[key] ?? "–"]);
  return rows.length ? table({ caption: `Keys of the spec that differ from those of ${other.name}`, columns: [{ title: "Key" }, { title: "this experiment" }, { title: other.name }], rows, tall: rows.length > 14 }) : note(`Both specs say the same, but for the name.`);
}

function provenance(experiment, redraw) {
  const { provenance: data } = experiment;
  const others = report.experiments.filter((own) => own !== experiment);
  const compared = choice("spec", "Compare the spec with", [{ value: "", text: "–" }, ...others.map(({ name }) => ({ value: name, text: name }))], redraw);
  const other = others.find(({ name }) => name === compared.value);
  const hardware = data.hardware ?? {};
  const seconds = Object.entries(data.seconds).filter(([, total]) => total > 0).map(([stage, total]) => `${stage} ${duration(total)}`);
  const facts = {
    "git state": data.git || "unknown",
    python: data.python,
    machine: [hardware.system, hardware.machine, hardware.cpus && `${hardware.cpus} CPUs`, hardware.threads && `${hardware.threads} threads`].filter(Boolean).join(", "),
    GPUs: (hardware.gpus ?? []).join(", ") || "none",
    "probe backend": data.backend,
    "time spent": seconds.join(", "),
    packages: Object.entries(data.packages ?? {}).map(([name, version]) => `${name} ${version}`).join(", "),
  };
  return [
    el("dl", { class: "facts wide" }, Object.entries(facts).filter(([, value]) => value).map(([name, value]) => el("div", {}, el("dt", {}, name), el("dd", {}, value)))),
    others.length > 0 && compared.element,
    other && specDifference(experiment, other),
    el("details", {}, el("summary", {}, "The spec, every default filled in (TOML)"), el("pre", { tabindex: 0 }, data.spec)),
  ];
}

function duration(seconds) {
  if (seconds < 60) return `${seconds.toFixed(0)} s`;
  if (seconds < 3600) return `${(seconds / 60).toFixed(0)} min`;
  return `${(seconds / 3600).toFixed(1)} h`;
}

// A section that a plug-in adds: a text and a table.
function panelSection({ name, title, text, columns, rows, missing, from }) {
  const numbers = (index) => rows.length > 0 && rows.every((row) => row[index] === null || typeof row[index] === "number");
  const shown = () => rows.map((row) => row.map((value) => (typeof value === "number" && !Number.isInteger(value) ? fixed(value, 3) : `${value ?? "–"}`)));
  return {
    id: `panel-${name}`,
    title,
    lead: text,
    missing,
    make: () => [
      columns.length > 0 && table({ caption: title, columns: columns.map((column, index) => ({ title: column, number: numbers(index) })), rows: shown(), tall: rows.length > 14 }),
      howMade(`Made by ${from}.`),
    ],
    csv: columns?.length ? () => [columns, rows] : null,
  };
}

// only: a section that stands where the store has something for it, and else is not missed. when: whether it is drawn.
const SECTIONS = [
  { id: "short", title: "In short", key: "contrasts", make: inShort },
  { id: "matrix", title: "Matrix", make: matrix, csv: matrixCsv },
  { id: "results", title: "Results", key: "results", make: results, csv: resultsCsv },
  { id: "pair", title: "Side by side", when: () => state.pins.length === MOST_PINS, lead: "The two conditions that are pinned. They are the first in every figure, too.", make: sideBySide },
  { id: "contrasts", title: "Contrasts in outcomes", key: "contrasts", make: outcomeContrasts, csv: contrastsCsv },
  { id: "entropy", title: "Contrasts by layer", key: "contrasts", lead: "A statistic of each layer in a condition less that in its baseline. Lens entropy above 0: the layer is less sure of the next token than in the baseline.", make: layerContrasts, csv: layerContrastsCsv },
  { id: "interventions", title: "Effect by layer", key: "interventions", lead: "Outcome of a changed model less that of the same model unchanged: where it falls below 0, the changed layers carry some of it.", make: interventions, csv: interventionsCsv },
  { id: "faithfulness", title: "Faithfulness", key: "faithfulness", only: true, lead: "Another explanation stood in the place of the model's own, and the labels were scored behind it. Labels that do not change have not come from the explanation.", make: faithfulness, csv: faithfulnessCsv },
  { id: "wordings", title: "Wordings of the test prompt", key: "wordings", only: true, lead: "One training, asked in many wordings. What is to hold for other wordings has to be sure over them, too.", make: byWording, csv: byWordingCsv },
  { id: "layers", title: "Layers by condition", key: "layers", make: lensStatistics, csv: layersCsv },
  { id: "lens", title: "Layer × token", key: "samples", lead: "What each layer would say next, read through the final norm and the unembedding. Point at a cell, or move with the arrow keys.", make: lensView, csv: lensCsv },
  { id: "along", title: "Along the training", key: "along", only: true, lead: "Accuracy, and a statistic of one layer, after the steps at which each training kept its adapter: which of them moves first?", make: alongTraining, csv: alongCsv },
  { id: "tuned", title: "Logit and tuned lens", key: "tuned", only: true, lead: "The tuned lens reads each layer through an affine map that is trained to come near the final layer; the logit lens reads it as it is.", make: tunedLens, csv: tunedCsv },
  { id: "saturation", title: "Saturation", key: "saturation", lead: "The layer from which on a model is sure: its top probability stays at 0.95 or more to the last layer.", make: saturation, csv: saturationCsv },
  { id: "confusion", title: "Confusion", key: "confusion", make: confusion, csv: confusionCsv },
  { id: "calibration", title: "Calibration", key: "calibration", make: calibration, csv: calibrationCsv },
  { id: "transfer", title: "Transfer", key: "transfer", make: transfer, csv: transferCsv },
  { id: "training", title: "Training", key: "training", make: training, csv: trainingCsv },
  { id: "failures", title: "Failure signatures", key: "failures", lead: "Known ways in which fine-tuning goes wrong, screened in every cell; a screen, not a test.", make: failures, csv: failuresCsv },
  { id: "provenance", title: "Provenance", make: provenance },
];
