// Tables: plain ones with aligned numbers, and heat maps whose cells carry their numbers.

// columns: [{title, number}], rows: arrays of text or elements. stacked: on narrow screens a block per row.
function table({ caption, columns, rows, tall = false, stacked = false }) {
  const body = rows.map((row) =>
    el("tr", {}, row.map((value, index) => el(index ? "td" : "th", { class: columns[index].number && "number", scope: index ? null : "row", "data-title": columns[index].title }, value))),
  );
  return el(
    "div",
    { class: tall ? "scroll tall" : "scroll", tabindex: 0, role: "region", "aria-label": caption },
    el(
      "table",
      { class: stacked && "stacked" },
      el("caption", {}, caption),
      el("thead", {}, el("tr", {}, columns.map(({ title, number }) => el("th", { scope: "col", class: number && "number" }, title)))),
      el("tbody", {}, body),
    ),
  );
}

const STRONG = 0.65; // from here on the ink of dark cells stands out better

function shade(cell, share) {
  if (missing(share)) return cell;
  const bounded = Math.min(1, Math.max(0, share));
  cell.classList.add("shaded");
  cell.classList.toggle("strong", bounded >= STRONG);
  cell.style.setProperty("--share", `${(100 * bounded).toFixed(1)}%`);
  return cell;
}

// cells: [row][column] of {text, share, title}. fine: many rows and columns, whose names stay in view.
function heatTable({ caption, rowTitle, columnTitle, rows, columns, cells, tall = false, fine = false }) {
  return el(
    "figure",
    { class: fine ? "heat fine" : "heat" },
    el("figcaption", {}, caption),
    el(
      "div",
      { class: tall ? "scroll tall" : "scroll", tabindex: 0, role: "region", "aria-label": caption },
      el(
        "table",
        { class: "heat" },
        el("thead", {}, el("tr", {}, el("th", { class: "corner", scope: "col" }, `${rowTitle} ↓ ${columnTitle} →`), columns.map((name) => el("th", { scope: "col" }, name)))),
        el("tbody", {}, rows.map((name, r) => el("tr", {}, el("th", { scope: "row" }, name), cells[r].map(({ text, share, title }) => shade(el("td", { title }, text), share))))),
      ),
    ),
  );
}
