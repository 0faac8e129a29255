// Copies of figures and tables, as they stand: to the clipboard (drawings as text), or to a file where there is none.

const LOOKS = ["fill", "fill-opacity", "stroke", "stroke-width", "stroke-dasharray", "stroke-linejoin", "opacity", "font-family", "font-size", "font-weight", "text-anchor", "dominant-baseline"];

function save(blob, file) {
  const url = URL.createObjectURL(blob);
  el("a", { href: url, download: file }).click();
  setTimeout(() => URL.revokeObjectURL(url), 1000);
}

async function copyOrSave(blob, file) {
  try {
    await navigator.clipboard.write([new ClipboardItem({ [blob.type]: blob })]);
    return "copied";
  } catch {
    save(blob, file);
    return "saved as a file";
  }
}

// name: what the button says; asked, once pressed, for what is to be copied and how its file is called.
function copyButton(name, label, make) {
  const told = el("span", { class: "told", "aria-live": "polite" });
  const copy = async () => {
    const [blob, file] = await make();
    told.textContent = ` ${await copyOrSave(blob, file)}`;
    setTimeout(() => told.replaceChildren(), 3000);
  };
  return el("span", { class: "copy" }, el("button", { type: "button", class: "copying", "data-copy": name, "aria-label": label, title: label, onclick: copy }, name), told);
}

// Copies the address of what is shown; where there is no clipboard, shows it to be copied by hand.
function linkButton(what, address) {
  const href = address();
  const told = el("span", { class: "told", "aria-live": "polite" });
  const copy = async (event) => {
    event.preventDefault();
    const whole = location.href.split("#")[0] + href;
    history.replaceState(null, "", href);
    try {
      await navigator.clipboard.writeText(whole);
      told.replaceChildren(" link copied");
      setTimeout(() => told.replaceChildren(), 3000);
    } catch {
      const field = el("input", { class: "link", readonly: true, value: whole, "aria-label": `Link to ${what}` });
      told.replaceChildren(" copy it from here: ", field);
      field.focus();
      field.select();
    }
  };
  return el("span", { class: "permalink" }, el("a", { href, onclick: copy }, `Copy a link to ${what}`), told);
}

const fileName = (title, ending) => `${state.experiment.name}-${title}`.replaceAll(/[^\p{L}\p{N}.+=-]+/gu, "-").slice(0, 80) + `.${ending}`;

function figureButtons(title, picture, series) {
  const svg = () => standalone(title, picture.querySelector("svg"), series);
  return el(
    "div",
    { class: "copies" },
    copyButton("SVG", `Copy as SVG: ${title}`, async () => [new Blob([svg().text], { type: "text/plain" }), fileName(title, "svg")]),
    copyButton("PNG", `Copy as PNG: ${title}`, async () => [await rastered(svg()), fileName(title, "png")]),
  );
}

// A figure that stands by itself: its styles in its elements, with title, legend and background.
function standalone(title, drawn, series) {
  const [, , width, height] = drawn.getAttribute("viewBox").split(" ").map(Number);
  const copy = drawn.cloneNode(true);
  const theirs = [...copy.querySelectorAll("*")];
  for (const [place, own] of [...drawn.querySelectorAll("*")].entries()) {
    const style = getComputedStyle(own);
    for (const look of LOOKS) theirs[place].setAttribute(look, style.getPropertyValue(look));
    theirs[place].removeAttribute("class");
  }
  copy.querySelectorAll('[x1="-9"]').forEach((cursor) => cursor.remove());
  const page = getComputedStyle(document.documentElement);
  const ink = page.color;
  const line = 18;
  const tall = height + line * (1 + series.length) + 8;
  const text = (content, x, y, weight = "normal") => draw("text", { x, y, fill: ink, "font-family": "sans-serif", "font-size": 12, "font-weight": weight }, content);
  const keys = series.map(({ label, slot }, place) => {
    const y = line + height + line * place + 6;
    const colour = page.getPropertyValue(`--c${slot}`);
    const key = document.querySelector(`.s${slot} .line`);
    const dashes = key ? getComputedStyle(key).strokeDasharray : "none";
    return [
      draw("path", { d: `M8,${y}H36`, fill: "none", stroke: resolved(colour), "stroke-width": 1.75, "stroke-dasharray": dashes }),
      draw("path", { d: mark(slot, 22, y), fill: resolved(colour) }),
      text(label, 44, y + 4),
    ];
  });
  const moved = draw("g", { transform: `translate(0,${line})` }, ...copy.childNodes);
  const whole = draw(
    "svg",
    { xmlns: SVG, viewBox: `0 0 ${width} ${tall}`, width, height: tall },
    draw("rect", { width, height: tall, fill: page.backgroundColor }),
    text(title, 8, 14, "bold"),
    moved,
    keys,
  );
  return { text: new XMLSerializer().serializeToString(whole), width, height: tall };
}

// A colour as this theme has it: `light-dark()` means nothing elsewhere.
function resolved(colour) {
  const probe = el("span", {});
  probe.style.color = colour;
  document.body.append(probe);
  const found = getComputedStyle(probe).color;
  probe.remove();
  return found;
}

const SHARPNESS = 2; // pixels of the picture for each of the screen

async function rastered({ text, width, height }) {
  const url = URL.createObjectURL(new Blob([text], { type: "image/svg+xml" }));
  const image = new Image();
  image.src = url;
  await image.decode();
  const canvas = Object.assign(document.createElement("canvas"), { width: width * SHARPNESS, height: height * SHARPNESS });
  canvas.getContext("2d").drawImage(image, 0, 0, canvas.width, canvas.height);
  URL.revokeObjectURL(url);
  return new Promise((done) => canvas.toBlob(done, "image/png"));
}

// A table as it stands, as CSV; minus signs and dashes as programs read them.
function tableButton(name, whole) {
  const plain = (cell) => cell.textContent.trim().replaceAll("−", "-").replace(/^–$/, "");
  const lines = () => [...whole.rows].map((row) => [...row.cells].map(plain));
  const make = async () => {
    const [header, ...rows] = lines();
    return [new Blob([csvText(header, rows)], { type: "text/plain" }), fileName(name, "csv")];
  };
  return copyButton("CSV", `Copy as CSV: ${name}`, make);
}
