// The answer in short, and the matrix of cells.

const STATES = {
  done: { sign: "✓", text: "complete" },
  running: { sign: "▸", text: "running" },
  pending: { sign: "·", text: "not run" },
  failed: { sign: "✕", text: "failed" },
};

// Contrasts whose cells the filters all leave in.
const shownContrasts = (data) =>
  data.rows.filter((row) => row.conditions.every(visible) && row.references.every(visible) && levelVisible(row.factor, row.level));

function contrastName(row) {
  const within = inWords(row.within);
  return `${row.factor}: ${row.level} against ${row.baseline}${within && ` (${within})`}`;
}

const overall = (data) => {
  const shown = shownContrasts(data);
  const averaged = shown.filter((row) => row.over.length);
  return averaged.length ? averaged : shown;
};

function inShort(experiment) {
  const data = experiment.contrasts;
  const rows = overall(data);
  if (!rows.length) return note("No contrast lies wholly within what the filters show.");
  const lines = rows.slice(0, 20).map((row) => [contrastName(row), accuracyWords(row), layerWords(row), sureWords(row)]);
  return [
    data.reasons.map((reason) => note(`A contrast is missing: ${reason}.`)),
    data.notes.map((own) => note(own)),
    !data.declared && note("The spec declares no contrasts, so every factor is held against its first level."),
    table({
      caption: "Each contrast, averaged over the other factors",
      columns: [{ title: "Contrast" }, { title: "What changed" }, { title: "In which layers" }, { title: "How sure" }],
      rows: lines,
      stacked: true,
    }),
    rows.length > 20 && note(`The first 20 of ${rows.length} contrasts; filter to see others.`),
  ];
}

const mainOutcome = (row) => row.outcomes.correct ?? row.outcomes.generated_correct;

function accuracyWords(row) {
  const own = mainOutcome(row);
  if (!own) return "accuracy not recorded";
  return `accuracy ${points(own.difference)} points ${interval(own.low, own.high, 1, points)}`;
}

const points = (value, digits = 1) => (missing(value) ? "–" : signed(100 * value, digits));

// The layers of each position in which a statistic differs for sure.
const sureLayers = ({ layer, position, p_adjusted: p }) => position.map((_, place) => layer.filter((_, n) => !missing(p[place][n]) && p[place][n] < ALPHA));

function layerWords(row) {
  const { entropy } = row.layers;
  if (!entropy) return "not probed";
  return el("ul", { class: "plain" }, entropy.position.map((position, index) => {
    const difference = entropy.difference[index];
    const sure = sureLayers(entropy)[index];
    const there = difference.map((value, layer) => [Math.abs(value ?? 0), layer]);
    const [, most] = there.reduce((best, own) => (own[0] > best[0] ? own : best), [-1, 0]);
    const largest = `largest ${signed(difference[most])} nat at layer ${entropy.layer[most]}`;
    return el("li", {}, el("b", {}, `${position}: `), sure.length ? `entropy in layers ${ranges(sure)}; ${largest}` : `no layer stands out; ${largest}`);
  }));
}

function sureWords(row) {
  const own = mainOutcome(row);
  const notes = own ?? Object.values(row.layers)[0];
  const basis = own ? `, ${plural(own.examples, "example")}` : "";
  const seeds = notes.seeds < 2 ? "1 seed: variation between trainings not covered" : plural(notes.seeds, "seed");
  const tests = [own && `accuracy p = ${pValue(own.p_adjusted)}`.replace("= <", "<"), row.layers.entropy && `${sureLayers(row.layers.entropy).some(({ length }) => length) ? "" : "no "}layers at p < ${ALPHA}`].filter(Boolean);
  const corrected = ["", ", corrected", ", both corrected"][tests.length];
  return `${tests.join(", ")}${corrected}; ${seeds}${basis}; ${standingWords(row)}`.replace(/^; /, "");
}

// Which outcomes the spec asked for before there were results; all others are exploratory.
function standingWords(row) {
  const named = [...Object.values(row.outcomes), ...Object.values(row.layers)];
  const confirmatory = named.filter(({ standing }) => standing === "confirmatory").map(({ title }) => title);
  if (confirmatory.length) return `confirmatory: ${confirmatory.join(", ")}; all else exploratory`;
  const unknown = named.length > 0 && named.every(({ standing }) => standing === "not recorded");
  return unknown ? "confirmatory or exploratory: not recorded" : "exploratory";
}

function matrix(experiment) {
  const seeds = unique(experiment.cells.map((cell) => cell.seed));
  const shown = experiment.conditions.map((_, index) => index).filter(visible);
  const rows = shown.map((index) => {
    const own = experiment.cells.filter((cell) => cell.condition === index);
    return [[pinButton(index), shortLabel(index)], ...seeds.map((seed) => stateMark(own.find((cell) => cell.seed === seed)))];
  });
  const failed = experiment.cells.filter((cell) => cell.state === "failed" && visible(cell.condition));
  return [
    el("dl", { class: "facts" }, experiment.factors.map(({ name, levels }) => el("div", {}, el("dt", {}, name), el("dd", {}, levels.slice(0, 12).join(", ") + (levels.length > 12 ? `, … (${levels.length})` : ""))))),
    el("p", { class: "states" }, Object.entries(STATES).map(([name, { sign, text }]) => {
      const count = experiment.cells.filter((cell) => cell.state === name && visible(cell.condition)).length;
      return count > 0 && el("span", { class: `state ${name}` }, `${sign} ${text}: ${count}`);
    })),
    state.unpinned !== null && unpinnedNote(),
    table({
      caption: "State of every cell: conditions by seed",
      columns: [{ title: "Condition" }, ...seeds.map((seed) => ({ title: seed === "" ? "cell" : `seed ${seed}` }))],
      rows,
      tall: rows.length > 14,
    }),
    failed.map((cell) => el("details", { class: "failure" }, el("summary", {}, `Failed at ${cell.stage}: ${shortLabel(cell.condition)}, seed ${cell.seed}`), el("pre", {}, cell.traceback))),
  ];
}

function stateMark(cell) {
  if (!cell) return el("span", { class: "quiet" }, "–");
  const { sign, text } = STATES[cell.state];
  return el("span", { class: `state ${cell.state}`, title: cell.stage ? `${text} at ${cell.stage}` : text }, `${sign} `, el("span", { class: "hidden" }, text));
}

const matrixCsv = (experiment) => [
  [...levelHeader(), "seed", "state", "failed_stage"],
  experiment.cells.filter((cell) => visible(cell.condition)).map((cell) => [...levelCells(cell.condition), cell.seed, cell.state, cell.stage]),
];
