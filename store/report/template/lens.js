// Single examples through the logit lens: layers × tokens, conditions side by side, each cell's top token in it.

const MOST_PANELS = 6;
const unpacked = new WeakMap(); // packed array -> reader, so that each is decoded once

function reader(packed) {
  if (!packed) return () => NaN;
  if (!unpacked.has(packed)) unpacked.set(packed, unpack(packed));
  return unpacked.get(packed);
}

// Spaces and line ends as signs, so that tokens that differ in them look different.
function tokenText(shape, place) {
  if (missing(place)) return "–";
  const text = shape.texts?.[place];
  if (missing(text)) return `#${shape.ids[place]}`;
  if (text === "") return "∅";
  return text.replace(/\r?\n/g, "⏎").replaceAll("\t", "⇥").replaceAll(" ", "·");
}

// Every number of one shape by (condition, example, layer, position[, item]).
function lensReader(shape) {
  const sizes = [shape.examples.length, shape.layers.length, shape.positions.length];
  const flat = (c, e, l, p) => ((c * sizes[0] + e) * sizes[1] + l) * sizes[2] + p;
  const plain = (name) => (...at) => reader(shape.arrays[name])(flat(...at));
  const items = (packed, count, sign = 1) => (c, e, l, p, k) => sign * reader(packed)(flat(c, e, l, p) * count + k);
  return {
    entropy: plain("entropy"),
    kl: plain("kl_final"),
    maxProb: plain("max_prob"),
    topPlace: items(shape.top_place, shape.top),
    topLogprob: items(shape.arrays.top_logprob, shape.top, -1),
    watchLogprob: items(shape.arrays.watch_logprob, shape.watch.length, -1),
    watchRank: items(shape.arrays.watch_rank, shape.watch.length),
  };
}

function lensView(experiment, redraw) {
  const { shapes } = experiment.samples;
  const those = shapes.map((shape, number) => [shape, number]).filter(([shape]) => shape.conditions.some(visible));
  if (!those.length) return note("The filters hide all probed conditions.");
  const pickedShape = choice("lens-shape", "Shape", those.map(([shape, number]) => ({ value: String(number), text: shape.conditions.filter(visible).map(shortLabel).slice(0, 3).join(" / ") })), redraw);
  const shape = shapes[Number(pickedShape.value)];
  const key = `lens-${pickedShape.value}`;
  const example = choice(`${key}-example`, "Example", shape.examples.map((name, index) => ({ value: String(index), text: `${name}${trueLabel(shape, index)}` })), redraw);
  const modes = [
    shape.top > 0 && { value: "positions", text: "one per position: the top token" },
    shape.top > 1 && { value: "top", text: `top ${shape.top} tokens` },
    shape.watch.length > 0 && { value: "watch", text: "watched tokens: their rank" },
  ].filter(Boolean);
  if (!modes.length) return note("The probe recorded neither top tokens nor watched ones.");
  const mode = choice(`${key}-mode`, "Columns", modes, redraw);
  const position = choice(`${key}-position`, "Position", shape.positions.map((name, index) => ({ value: String(index), text: name })), redraw);
  const panels = shape.conditions.map((condition, place) => ({ condition, place })).filter(({ condition }) => visible(condition)).sort((a, b) => pinnedFirst(a.condition, b.condition));
  const view = { shape, read: lensReader(shape), e: Number(example.value), p: Number(position.value), mode: mode.value, panels: panels.slice(0, MOST_PANELS) };
  const step = (move) => () => {
    state.choices.set(`${key}-example`, String((view.e + move + shape.examples.length) % shape.examples.length));
    writeAddress();
    redraw();
  };
  const detail = el("div", { class: "detail", "aria-live": "polite" });
  return [
    el("div", { class: "controls" },
      those.length > 1 && pickedShape.element,
      example.element,
      el("span", { class: "steps" }, el("button", { type: "button", onclick: step(-1), "aria-label": "Previous example" }, "←"), el("button", { type: "button", onclick: step(1), "aria-label": "Next example" }, "→")),
      linkButton("this example", () => addressOf("lens", new Map([...state.choices, [`${key}-example`, String(view.e)]]))),
      mode.element,
      mode.value !== "positions" && position.element),
    el("div", { class: "lens" }, lensGrid(view, detail), detail),
    scaleLegend(view),
    panels.length > MOST_PANELS && note(`The first ${MOST_PANELS} of ${panels.length} conditions side by side; filter to see others.`),
    !shape.texts && note("This store keeps no texts of tokens (it was written by an older version), so tokens stand as #id."),
    el("p", { class: "method" }, `${shape.examples.length} of ${plural(shape.total, "example")}${shape.examples.length < shape.total ? ", drawn at random (seed 0) to keep this file small" : ""}; one cell of each condition, that of its first seed. Spaces are shown as ·, line ends as ⏎. Final layer on top. Entropies to 0.001, log-probabilities to 0.002.`),
  ];
}

// What one column shows: title, the cell's text, and its shade from 0 to 1.
function lensColumns({ shape, read, e, p, mode }) {
  if (mode === "watch") {
    const most = Math.log10(200000);
    return shape.watch.map((text, k) => ({
      title: text, p,
      text: (c, l) => fixed(read.watchRank(c, e, l, p, k), 0),
      share: (c, l) => 1 - Math.log10(1 + read.watchRank(c, e, l, p, k)) / most,
    }));
  }
  if (mode === "top") {
    return Array.from({ length: shape.top }, (_, k) => ({
      title: `${k + 1}`, p,
      text: (c, l) => tokenText(shape, read.topPlace(c, e, l, p, k)),
      share: (c, l) => Math.exp(read.topLogprob(c, e, l, p, k)),
    }));
  }
  return shape.positions.map((title, index) => ({
    title, p: index,
    text: (c, l) => tokenText(shape, read.topPlace(c, e, l, index, 0)),
    share: (c, l) => Math.exp(read.topLogprob(c, e, l, index, 0)),
  }));
}

function lensGrid(view, detail) {
  const { shape, panels } = view;
  const columns = lensColumns(view);
  const layers = shape.layers.map((_, index) => index).toReversed();
  const rows = layers.map((l) => el("tr", {}, el("th", { scope: "row" }, String(shape.layers[l])), panels.map(({ place }) => columns.map((column, k) => {
    const cell = el("td", { tabindex: -1, "data-at": `${place},${l},${column.p}`, class: k ? null : "first" }, el("bdi", {}, column.text(place, l)));
    return shade(cell, column.share(place, l));
  }))));
  const grid = el(
    "table",
    { class: "grid", role: "grid", "aria-label": "Layers by tokens; arrow keys move between cells" },
    el("thead", {},
      el("tr", {}, el("th", { rowspan: 2, scope: "col" }, "layer"), panels.map(({ condition, place }) => el("th", { colspan: columns.length, scope: "colgroup", class: "panel" }, shortLabel(condition), answer(view, place)))),
      el("tr", {}, panels.map(() => columns.map(({ title }, k) => el("th", { scope: "col", class: k ? null : "first" }, title))))),
    el("tbody", {}, rows),
  );
  const body = grid.tBodies[0];
  const showCell = (cell) => detail.replaceChildren(...cellDetail(view, cell.dataset.at.split(",").map(Number)));
  const focus = (cell) => {
    body.querySelector('td[tabindex="0"]')?.setAttribute("tabindex", -1);
    cell.tabIndex = 0;
    showCell(cell);
  };
  body.addEventListener("pointerover", (event) => event.target.closest("td") && showCell(event.target.closest("td")));
  body.addEventListener("focusin", (event) => focus(event.target.closest("td")));
  body.addEventListener("pointerleave", () => showCell(body.querySelector('td[tabindex="0"]')));
  body.addEventListener("keydown", (event) => moveFocus(event, body));
  focus(body.rows[0].cells[1]);
  return scroller(grid, {});
}

function moveFocus(event, body) {
  const cell = event.target.closest("td");
  const [row, column] = [cell.parentElement.sectionRowIndex, cell.cellIndex];
  const last = cell.parentElement.cells.length - 1;
  const moves = { ArrowUp: [row - 1, column], ArrowDown: [row + 1, column], ArrowLeft: [row, column - 1], ArrowRight: [row, column + 1], Home: [row, 1], End: [row, last], PageUp: [0, column], PageDown: [body.rows.length - 1, column] };
  if (!(event.key in moves)) return;
  event.preventDefault();
  const [toRow, toColumn] = moves[event.key];
  if (toColumn > 0) body.rows[toRow]?.cells[toColumn]?.focus();
}

// The true label, where it is the same in all conditions.
function trueLabel({ gold }, example) {
  const found = unique(gold.map((own) => own[example]));
  return found.length === 1 ? ` (true: ${found[0]})` : "";
}

function answer({ shape, e }, place) {
  const own = shape.predictions[place][e];
  const label = own.prediction ?? own.generated_label;
  if (label === undefined) return null;
  const right = shape.gold[place]?.[e] === label;
  return el("span", { class: "answer" }, label === "" ? "no label" : `says ${label} ${right ? "✓" : "✕"}`);
}

function cellDetail({ shape, read, e }, [place, l, p]) {
  const own = shape.predictions[place][e];
  const fact = (name, value) => [el("dt", {}, name), el("dd", {}, value)];
  const top = Array.from({ length: shape.top }, (_, k) => {
    const logprob = read.topLogprob(place, e, l, p, k);
    return [el("bdi", {}, tokenText(shape, read.topPlace(place, e, l, p, k))), percent(Math.exp(logprob)), fixed(logprob)];
  });
  const watched = shape.watch.map((text, k) => [el("bdi", {}, text), fixed(read.watchRank(place, e, l, p, k), 0), fixed(read.watchLogprob(place, e, l, p, k))]);
  return [
    el("p", { class: "where" }, el("b", {}, `Layer ${shape.layers[l]}, ${shape.positions[p]}`), el("br"), `${shortLabel(shape.conditions[place])}${shape.seeds[place] === "" ? "" : `, seed ${shape.seeds[place]}`}`),
    el("dl", { class: "facts" },
      el("div", {}, fact("entropy", `${fixed(read.entropy(place, e, l, p))} nat`)),
      el("div", {}, fact("top probability", `${percent(read.maxProb(place, e, l, p))} %`)),
      el("div", {}, fact("KL to final", `${fixed(read.kl(place, e, l, p))} nat`))),
    top.length > 0 && miniTable("Top tokens", ["token", "%", "log p"], top),
    watched.length > 0 && miniTable("Watched tokens", ["token", "rank", "log p"], watched),
    own.generated_text && el("p", { class: "generated" }, el("span", { class: "quiet" }, "wrote: "), el("bdi", {}, own.generated_text)),
  ].filter(Boolean);
}

function miniTable(caption, titles, rows) {
  return el("table", { class: "mini" }, el("caption", {}, caption), el("thead", {}, el("tr", {}, titles.map((title, index) => el("th", { scope: "col", class: index && "number" }, title)))), el("tbody", {}, rows.map((row) => el("tr", {}, row.map((value, index) => el("td", { class: index ? "number" : null }, value))))));
}

function scaleLegend({ mode }) {
  const ends = mode === "watch" ? ["rank 200,000", "rank 0 (top)"] : ["0 %", "100 % (probability of the token)"];
  return shadeScale(...ends);
}

const lensCsv = ({ samples: { shapes } }) => [
  [...levelHeader(), "seed", "example", "position", "layer", "entropy", "top_probability", "kl_final", "top_tokens", "watch_ranks"],
  shapes.flatMap((shape) => {
    const read = lensReader(shape);
    return shape.conditions.flatMap((condition, c) => (visible(condition) ? shape.examples.flatMap((example, e) => shape.positions.flatMap((position, p) => shape.layers.map((layer, l) => [
      ...levelCells(condition), shape.seeds[c], example, position, layer,
      decimals(read.entropy(c, e, l, p), 3), decimals(read.maxProb(c, e, l, p), 5), decimals(read.kl(c, e, l, p), 3),
      Array.from({ length: shape.top }, (_, k) => tokenText(shape, read.topPlace(c, e, l, p, k))).join(" "),
      shape.watch.map((text, k) => `${text}=${decimals(read.watchRank(c, e, l, p, k), 0)}`).join(" "),
    ]))) : []));
  }),
];
