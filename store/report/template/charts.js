// Line charts with bands, a legend that does not rest on colour, and a cursor for pointer and keyboard.

const MARKS = [
  (x, y, r) => `M${x - r},${y}a${r},${r} 0 1,0 ${2 * r},0a${r},${r} 0 1,0 ${-2 * r},0`,
  (x, y, r) => `M${x - r},${y - r}h${2 * r}v${2 * r}h${-2 * r}z`,
  (x, y, r) => `M${x},${y - 1.33 * r}l${1.33 * r},${2.33 * r}h${-2.67 * r}z`,
  (x, y, r) => `M${x},${y - 1.33 * r}l${1.33 * r},${1.33 * r}l${-1.33 * r},${1.33 * r}l${-1.33 * r},${-1.33 * r}z`,
];
const mark = (series, x, y, r = 3) => MARKS[series % MARKS.length](x, y, r);

const LETTER = 8; // width of a digit of a tick, at the most
const LARGEST = 7; // half the width of the mark of the largest weight

// series: [{label, x: [], y: [], low: [], high: [], strong: [], weight: [], slot}]; slot fixes colour, dash and mark;
// weight: what the areas of marks stand for; where(x) names a place in words.
function lineChart({ title, series, xTitle, yTitle, xDigits = 0, yDigits = 2, zero = false, around = undefined, diagonal = false, unit = "", domain = null, write = fixed, where = (place) => `${xTitle.split(" (")[0]} ${fixed(place, xDigits)}` }) {
  const readout = el("div", { class: "readout", "aria-live": "polite" });
  const picture = el("div", { class: "picture" });
  const figure = el("figure", { class: "chart" }, el("figcaption", {}, title), picture, figureButtons(title, picture, series), readout);
  const places = unique(series.flatMap((own) => own.x)).sort((a, b) => a - b);
  let at = -1;
  const plot = (width) => picture.replaceChildren(lineSvg(width));

  function lineSvg(width) {
    const height = Math.round(Math.min(300, Math.max(220, width * 0.58)));
    const all = series.flatMap((own) => [...own.y, ...(own.low ?? []), ...(own.high ?? [])]);
    const [low, high] = domain ?? padded(extent(zero ? [...all, 0] : all));
    const yTicks = ticks(low, high, 6);
    const widest = Math.max(...yTicks.values.map((value) => tickText(value, yTicks).length));
    const frame = { left: Math.max(46, 14 + LETTER * widest), top: 28, right: width - 12, bottom: height - 44 };
    const xDomain = diagonal ? [0, 1] : extent(places);
    const x = linear(xDomain, [frame.left + 6, frame.right - 6]);
    const y = linear([low, high], [frame.bottom, frame.top]);
    const xTicks = ticks(...xDomain, Math.min(8, width / 60));
    if (xDigits === 0 && !diagonal) {
      xTicks.values = xTicks.values.filter(Number.isInteger);
      Object.assign(xTicks, { digits: 0, power: 0 });
    }
    const most = Math.max(...series.flatMap(({ weight }) => weight ?? []));
    const cursor = draw("line", { class: "cursor", y1: frame.top, y2: frame.bottom, x1: -9, x2: -9 });
    const show = (index) => {
      at = index;
      const place = places[index];
      cursor.setAttribute("x1", x(place));
      cursor.setAttribute("x2", x(place));
      readout.replaceChildren(reading(place));
    };
    const svg = draw(
      "svg",
      { viewBox: `0 0 ${width} ${height}`, tabindex: 0, role: "img", "aria-label": `${title}. ${yTitle} by ${xTitle}. Arrow keys read values.` },
      axes({ x, y, xTitle, yTitle, frame, xTicks, yTicks }),
      around && draw("rect", { class: "small", x: frame.left, width: frame.right - frame.left, y: y(Math.min(around, high)), height: y(Math.max(-around, low)) - y(Math.min(around, high)) }),
      zero && low < 0 && high > 0 && draw("line", { class: "zero", x1: frame.left, x2: frame.right, y1: y(0), y2: y(0) }),
      diagonal && draw("line", { class: "zero dashed", x1: x(0), x2: x(1), y1: y(0), y2: y(1) }),
      series.map((own) => drawSeries(own, x, y, most)),
      cursor,
    );
    svg.addEventListener("pointermove", (event) => {
      const box = svg.getBoundingClientRect();
      const pointer = ((event.clientX - box.left) / box.width) * width;
      show(places.reduce((best, place, index) => (Math.abs(x(place) - pointer) < Math.abs(x(places[best]) - pointer) ? index : best), 0));
    });
    svg.addEventListener("keydown", (event) => {
      const last = places.length - 1;
      const moves = { ArrowRight: Math.min(last, at + 1), ArrowLeft: Math.max(0, at - 1), Home: 0, End: last };
      if (!(event.key in moves)) return;
      event.preventDefault();
      show(moves[event.key]);
    });
    return svg;
  }

  function reading(place) {
    const rows = series.flatMap((own) => {
      const index = own.x.indexOf(place);
      if (index < 0 || missing(own.y[index])) return [];
      const sure = own.low ? ` ${interval(own.low[index], own.high[index], yDigits, write)}` : "";
      const extra = own.notes ? ` ${own.notes[index]}` : "";
      return [el("span", { class: `reading s${own.slot}` }, sample(own.slot), el("span", {}, `${own.label}: `, el("b", {}, write(own.y[index], yDigits)), `${unit}${sure}${extra}`))];
    });
    return el("div", {}, el("span", { class: "reading-place" }, where(place)), rows);
  }

  fitWidth(picture, plot);
  readout.append(el("span", { class: "quiet" }, "Point at the chart, or focus it and use the arrow keys, to read values."));
  return figure;
}

// What a series shows of its corrected p values: filled marks, and words in the reading.
const tested = (p) => ({
  strong: p.map((value) => !missing(value) && value < ALPHA),
  notes: p.map((value) => `p ${missing(value) ? "–" : `= ${pValue(value)}`.replace("= <", "<")}`),
});

// Draw once the width is known, and again when it changes.
function fitWidth(element, plot) {
  let drawn = 0;
  new ResizeObserver(([entry]) => {
    const width = Math.round(entry.contentRect.width);
    if (width && width !== drawn) {
      drawn = width;
      plot(width);
    }
  }).observe(element);
}

function drawSeries(own, x, y, most) {
  const there = own.x.map((place, index) => [x(place), index]).filter(([, index]) => !missing(own.y[index]));
  const path = (values, points) => points.map(([px, index], n) => `${n ? "L" : "M"}${px.toFixed(1)},${y(values[index]).toFixed(1)}`).join("");
  const sure = own.low ? there.filter(([, index]) => !missing(own.low[index]) && !missing(own.high[index])) : [];
  const band = sure.length > 1 && `${path(own.high, sure)}${path(own.low, sure.toReversed()).replace("M", "L")}Z`;
  const every = there.length > 60 ? Math.ceil(there.length / 12) : 1;
  const marked = there.filter((_, n) => n % every === 0);
  return draw(
    "g",
    { class: `series s${own.slot}` },
    band && draw("path", { class: "band", d: band }),
    draw("path", { class: `line d${own.slot}`, d: path(own.y, there) }),
    marked.map(([px, index]) => draw("path", { class: own.strong && !own.strong[index] ? "mark hollow" : "mark", d: mark(own.slot, px, y(own.y[index]), own.weight && LARGEST * Math.sqrt(own.weight[index] / most)) })),
  );
}

function sample(slot) {
  return draw(
    "svg",
    { class: `sample series s${slot}`, viewBox: "0 0 30 12", width: 30, height: 12, "aria-hidden": "true" },
    draw("path", { class: `line d${slot}`, d: "M1,6H29" }),
    draw("path", { class: "mark", d: mark(slot, 15, 6) }),
  );
}

function legend(items) {
  return el("ul", { class: "legend" }, items.map(({ slot, label }) => el("li", { class: `s${slot}` }, sample(slot), el("span", {}, label))));
}

// Place the interval of one row of a table on a scale that all rows share.
function intervalPlot({ value, low, high, domain, reference = null, around = undefined, label }) {
  const x = linear(domain, [4, 156]);
  const there = !missing(low) && !missing(high);
  return draw(
    "svg",
    { class: "interval", viewBox: "0 0 160 20", width: 160, height: 20, role: "img", "aria-label": label },
    around && draw("rect", { class: "small", x: x(Math.max(-around, domain[0])), width: x(Math.min(around, domain[1])) - x(Math.max(-around, domain[0])), y: 0, height: 20 }),
    reference !== null && draw("line", { class: "zero", x1: x(reference), x2: x(reference), y1: 0, y2: 20 }),
    there && draw("line", { class: "whisker", x1: x(low), x2: x(high), y1: 10, y2: 10 }),
    there && [low, high].map((end) => draw("line", { class: "whisker", x1: x(end), x2: x(end), y1: 6, y2: 14 })),
    !missing(value) && draw("circle", { class: "dot", cx: x(value), cy: 10, r: 3.5 }),
  );
}
