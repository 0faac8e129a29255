// Scales and ticks of charts.

// Give round numbers within a domain, about `count` of them, and the digits that tell them apart.
function ticks(low, high, count) {
  const span = high - low || 1;
  const rough = span / Math.max(1, count);
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 5, 10].map((factor) => factor * power).find((size) => size >= rough * 0.999);
  const found = [];
  for (let place = Math.ceil(low / step - 1e-9); place * step <= high + step * 1e-9; place += 1) found.push(place * step);
  return { values: found, digits: Math.max(0, -Math.floor(Math.log10(step) + 1e-9)) };
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
      draw("text", { x: left - 7, y: y(value), "text-anchor": "end", "dominant-baseline": "central" }, fixed(value, yTicks.digits)),
    ]),
    draw("line", { class: "base", x1: left, x2: right, y1: bottom, y2: bottom }),
    xTicks.values.map((value) => [
      draw("line", { class: "base", x1: x(value), x2: x(value), y1: bottom, y2: bottom + 4 }),
      draw("text", { x: x(value), y: bottom + 16, "text-anchor": "middle" }, fixed(value, xTicks.digits)),
    ]),
    draw("text", { class: "axis-title", x: (left + right) / 2, y: bottom + 34, "text-anchor": "middle" }, xTitle),
    draw("text", { class: "axis-title", x: 0, y: top - 12 }, yTitle),
  );
}
