// Tables: plain ones with aligned numbers, and heat maps whose cells carry their numbers.

// columns: [{title, number}], rows: arrays of text or elements. stacked: on narrow screens a block per row.
function table({ caption, columns, rows, tall = false, stacked = false }) {
  const body = rows.map((row) =>
    el("tr", {}, row.map((value, index) => el(index ? "td" : "th", { class: columns[index].number && "number", scope: index ? null : "row", "data-title": columns[index].title }, value))),
  );
  const whole = el(
    "table",
    { class: stacked && "stacked" },
    el("caption", {}, caption),
    el("thead", {}, el("tr", {}, columns.map(({ title, number }) => el("th", { scope: "col", class: number && "number" }, title)))),
    el("tbody", {}, body),
  );
  return scroller(whole, { name: caption, tall });
}

// What may be wider or taller than its place: it scrolls, by keys too, and says where there is more. name: of a
// region that takes the focus itself; without one, what is inside takes it.
function scroller(inside, { name = null, tall = false }) {
  const region = { tabindex: 0, role: "region", "aria-label": name };
  const box = el("div", { class: tall ? "scroll tall" : "scroll", ...(name && region) }, inside);
  const cues = { left: el("span", { class: "cue", "aria-hidden": "true" }, "◂ more"), right: el("span", { class: "cue", "aria-hidden": "true" }, "more ▸") };
  const copy = name && inside.rows?.length > 1 && el("div", { class: "copies" }, tableButton(name, inside));
  const frame = el("div", { class: "scroller" }, box, el("div", { class: "cues" }, cues.left, cues.right), copy);
  const look = () => {
    const rest = box.scrollWidth - box.clientWidth - box.scrollLeft;
    cues.left.classList.toggle("there", box.scrollLeft > 2);
    cues.right.classList.toggle("there", rest > 2);
    frame.classList.toggle("more", box.scrollLeft > 2 || rest > 2);
  };
  box.addEventListener("scroll", look, { passive: true });
  new ResizeObserver(look).observe(box);
  return frame;
}

// What the two ends of a shade stand for.
function shadeScale(low, high, sign = false) {
  return el("p", { class: "scale" }, el("span", {}, low), el("span", { class: sign ? "ramp signed" : "ramp" }), el("span", {}, high));
}

// share: 0 to 1; or −1 to 1 with a sign, whose two sides have a colour each.
function shade(cell, share, sign = false) {
  if (missing(share)) return cell;
  const bounded = Math.min(1, Math.abs(sign ? share : Math.max(0, share)));
  cell.classList.add("shaded");
  if (sign) cell.classList.add(share < 0 ? "down" : "up");
  cell.style.setProperty("--share", `${(100 * bounded).toFixed(1)}%`);
  return cell;
}

// cells: [row][column] of {text, share, title}. ends: what the lowest and the highest share stand for. sign: shares
// lie between −1 and 1. fine: many rows and columns, whose names stay in view.
function heatTable({ caption, rowTitle, columnTitle, rows, columns, cells, ends = null, sign = false, tall = false, fine = false }) {
  const whole = el(
    "table",
    { class: "heat" },
    el("thead", {}, el("tr", {}, el("th", { class: "corner", scope: "col" }, `${rowTitle} ↓ ${columnTitle} →`), columns.map((name) => el("th", { scope: "col" }, name)))),
    el("tbody", {}, rows.map((name, r) => el("tr", {}, el("th", { scope: "row" }, name), cells[r].map(({ text, share, title }) => shade(el("td", { title }, text), share, sign))))),
  );
  return el(
    "figure",
    { class: fine ? "heat fine" : "heat" },
    el("figcaption", {}, caption),
    scroller(whole, { name: caption, tall }),
    ends && shadeScale(...ends, sign),
  );
}
