// Scales and ticks of charts.

const FEW_DECIMALS = 3; // of a tick; beyond them all ticks of an axis are written in one power of ten
const MANY_PLACES = 6; // before the point, the same

// Give round numbers within a domain, about `count` of them, the digits that tell them apart, and the power of ten
// in which they are written.
function ticks(low, high, count) {
  const span = high - low || 1;
  const rough = span / Math.max(1, count);
  const unit = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 5, 10].map((factor) => factor * unit).find((size) => size >= rough * 0.999);
  const found = [];
  for (let place = Math.ceil(low / step - 1e-9); place * step <= high + step * 1e-9; place += 1) found.push(place * step);
  const most = Math.max(Math.abs(low), Math.abs(high));
  const places = -Math.floor(Math.log10(step) + 1e-9);
  const power = most > 0 && (places > FEW_DECIMALS || most >= 10 ** MANY_PLACES) ? 3 * Math.floor(Math.log10(most) / 3) : 0;
  return { values: found, digits: Math.min(20, Math.max(0, places + power)), power };
}

const tickText = (value, { digits, power }) => decimals(value / 10 ** power, digits);

const RAISED = { "-": "⁻", 0: "⁰", 1: "¹", 2: "²", 3: "³", 4: "⁴", 5: "⁵", 6: "⁶", 7: "⁷", 8: "⁸", 9: "⁹" };

// The title of an axis whose ticks are written in a power of ten: it goes before the unit.
function titleIn(title, { power }) {
  if (!power) return title;
  const factor = `10${[...String(power)].map((sign) => RAISED[sign]).join("")}`;
  const [, text, unit] = title.match(/^(.*?)(?: \(([^()]*)\))?$/);
  return `${text} (${[factor, unit === "1" ? "" : unit].filter(Boolean).join(" ")})`;
}

function extent(values) {
  const there = values.filter((value) => !missing(value));
  return there.length ? [Math.min(...there), Math.max(...there)] : [0, 1];
}

// Widen a domain by a share of itself, so that no point lies on the frame; keep 0 as a floor where it is one.
function padded([low, high], share = 0.06) {
  const room = (high - low || Math.abs(high) || 1) * share;
  return [low >= 0 && low <= room ? 0 : low - room, high + room];
}

const linear = ([low, high], [from, to]) => (value) => from + ((value - low) / (high - low || 1)) * (to - from);

function axes({ x, y, xTitle, yTitle, frame, xTicks, yTicks }) {
  const { left, top, right, bottom } = frame;
  return draw(
    "g",
    { class: "axes" },
    yTicks.values.map((value) => [
      draw("line", { class: "grid", x1: left, x2: right, y1: y(value), y2: y(value) }),
      draw("text", { x: left - 7, y: y(value), "text-anchor": "end", "dominant-baseline": "central" }, tickText(value, yTicks)),
    ]),
    draw("line", { class: "base", x1: left, x2: right, y1: bottom, y2: bottom }),
    xTicks.values.map((value) => [
      draw("line", { class: "base", x1: x(value), x2: x(value), y1: bottom, y2: bottom + 4 }),
      draw("text", { x: x(value), y: bottom + 16, "text-anchor": "middle" }, tickText(value, xTicks)),
    ]),
    draw("text", { class: "axis-title", x: (left + right) / 2, y: bottom + 34, "text-anchor": "middle" }, titleIn(xTitle, xTicks)),
    draw("text", { class: "axis-title", x: 0, y: top - 12 }, titleIn(yTitle, yTicks)),
  );
}
