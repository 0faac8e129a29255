// Putting the page together: experiments, filters, theme, and drawing all sections anew when they change.

function render() {
  const { experiment } = state;
  writeAddress();
  const shown = experiment.conditions.filter((_, index) => visible(index)).length;
  document.getElementById("title").textContent = experiment.name;
  const done = experiment.cells.filter((cell) => cell.state === "done").length;
  document.getElementById("subtitle").textContent =
    `What changed, in which layer, how sure. ${plural(experiment.conditions.length, "condition")}, ${done} of ${plural(experiment.cells.length, "cell")} complete. Store “${report.store}”, written ${report.written}.`;
  const count = document.getElementById("filter-count");
  count.textContent = `${shown} of ${plural(experiment.conditions.length, "condition")} shown`;
  const there = ({ only, key, when }) => (!only || !experiment[key].missing) && (!when || when());
  const sections = [...SECTIONS.filter(there), ...experiment.panels.map(panelSection)];
  const lost = state.lost.length > 0 && el("p", { class: "note", id: "lost", role: "status" }, `The address names what this report does not show: ${state.lost.join("; ")}.`);
  document.getElementById("main").replaceChildren(...[lost, ...sections.map((section) => drawSection(section, experiment))].filter(Boolean));
  document.getElementById("contents").replaceChildren(
    el("ol", {}, sections.map(({ id, title }) => el("li", {}, el("a", { href: `#${id}` }, title)))),
  );
}

function drawSection({ id, title, lead, make, csv, key, missing }, experiment) {
  const data = key ? experiment[key] : { missing };
  const heading = el("div", { class: "heading" }, el("h2", { id: `${id}-title` }, title));
  const section = el("section", { id, "aria-labelledby": `${id}-title` }, heading, lead && el("p", { class: "lead" }, lead));
  if (data?.missing) {
    section.append(note(`Not in this store: ${data.missing}.`));
    return section;
  }
  if (csv) heading.append(downloadButton(id, () => csv(experiment)));
  const body = el("div", { class: "body" });
  const redraw = () => body.replaceChildren(...[make(experiment, redraw)].flat(Infinity).filter(Boolean));
  redraw();
  section.append(body, ...(data?.warnings ?? []).map((text) => note(`Note: ${text}.`)));
  return section;
}

function drawFilters() {
  const form = document.getElementById("filters");
  const factors = state.experiment.factors.filter((factor) => factor.levels.length > 1);
  const groups = factors.map(({ name, levels }) => {
    const summary = el("summary", {});
    const describe = () => {
      const off = state.hidden.get(name)?.size ?? 0;
      summary.replaceChildren(el("b", {}, name), ` ${off ? `${levels.length - off} of ${levels.length}` : `all ${levels.length}`}`);
    };
    const boxes = levels.map((level) => {
      const change = (event) => {
        const off = state.hidden.get(name) ?? new Set();
        if (event.target.checked) off.delete(level);
        else off.add(level);
        state.hidden.set(name, off);
        describe();
        render();
      };
      return el("label", {}, el("input", { type: "checkbox", checked: !state.hidden.get(name)?.has(level), onchange: change }), " ", level);
    });
    describe();
    return el("details", { class: "filter" }, summary, el("fieldset", {}, el("legend", { class: "hidden" }, name), boxes));
  });
  const reset = () => {
    state.hidden.clear();
    state.query = "";
    drawFilters();
    render();
  };
  form.replaceChildren(
    el("span", { class: "quiet" }, factors.length ? "Show" : "One condition, so nothing to filter"),
    factors.length ? searchBox() : "",
    ...groups,
    factors.length ? el("button", { type: "button", onclick: reset }, "Show all") : "",
    el("output", { id: "filter-count", "aria-live": "polite" }),
  );
}

const PATIENCE = 150; // milliseconds that a person takes from one letter to the next

function searchBox() {
  let waiting = 0;
  const search = (event) => {
    clearTimeout(waiting);
    waiting = setTimeout(() => {
      state.query = event.target.value;
      render();
    }, PATIENCE);
  };
  return el("label", { class: "search" }, "Search ", el("input", { type: "search", id: "search", value: state.query, placeholder: "words of levels", oninput: search }));
}

function drawExperiments() {
  if (report.experiments.length < 2) return;
  document.getElementById("experiment-label").hidden = false;
  const select = document.getElementById("experiment");
  select.append(...report.experiments.map(({ name }, index) => el("option", { value: index }, name)));
  select.value = report.experiments.indexOf(state.experiment);
  select.addEventListener("change", () => {
    state.experiment = report.experiments[Number(select.value)];
    forget();
    drawFilters();
    render();
  });
}

function setUpTheme() {
  const button = document.getElementById("theme");
  const root = document.documentElement;
  const dark = () => (root.dataset.theme ?? (matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light")) === "dark";
  const name = () => {
    button.textContent = dark() ? "Light theme" : "Dark theme";
  };
  button.addEventListener("click", () => {
    root.dataset.theme = dark() ? "light" : "dark";
    name();
  });
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", name);
  name();
}

// Filters close when one points or moves the focus elsewhere, and at Escape.
function setUpPopups() {
  const close = (target) => {
    for (const open of document.querySelectorAll("details.filter[open]")) if (!open.contains(target)) open.open = false;
  };
  document.addEventListener("pointerdown", (event) => close(event.target));
  document.addEventListener("focusin", (event) => close(event.target));
  document.addEventListener("keydown", (event) => {
    if (event.key !== "Escape") return;
    const open = document.querySelector("details.filter[open]");
    open?.querySelector("summary").focus();
    close(null);
  });
}

const PAPER = 680; // CSS pixels that A4 and Letter leave within their margins

// Tables that are wider than a sheet shrink to it, else the whole page would.
function fitPaper() {
  for (const table of document.querySelectorAll(".scroll > table")) {
    const width = table.scrollWidth; // on the screen; letters are smaller on paper
    if (width > PAPER) table.style.zoom = (PAPER / width).toFixed(3);
  }
}

// On paper everything is there: what can be folded is open while printing.
function setUpPrinting() {
  let opened = [];
  addEventListener("beforeprint", () => {
    opened = [...document.querySelectorAll("main details:not([open])")];
    for (const details of opened) details.open = true;
    fitPaper();
  });
  addEventListener("afterprint", () => {
    for (const details of opened) details.open = false;
    for (const table of document.querySelectorAll(".scroll > table")) table.style.zoom = "";
  });
}

document.getElementById("footer").textContent = "Made by ablation-engine. This file loads nothing from a network; all data is inside.";
readAddress();
drawExperiments();
drawFilters();
document.getElementById("filters").addEventListener("submit", (event) => event.preventDefault());
setUpAddress();
setUpTheme();
setUpPopups();
setUpPrinting();
render();
goToSection();
setUpLive();
