// Building elements. Text becomes text nodes and attributes, never markup, and what would change how text is read, such
// as its direction, is spelled as Python does.

const SVG = "http://www.w3.org/2000/svg";

const HIDDEN = /(?![\n\t\u200c\u200d])[\p{Cc}\p{Cf}\p{Cs}\p{Zl}\p{Zp}]/gu;

function spelled(letter) {
  const code = letter.codePointAt(0).toString(16);
  if (code.length > 4) return `\\U${code.padStart(8, "0")}`;
  return code.length > 2 ? `\\u${code.padStart(4, "0")}` : `\\x${code.padStart(2, "0")}`;
}

const seen = (text) => (typeof text === "string" ? text.replace(HIDDEN, spelled) : text);

function fill(node, attributes, children) {
  for (const [name, value] of Object.entries(attributes ?? {})) {
    if (value === false || value === null || value === undefined) continue;
    if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else node.setAttribute(name, value === true ? "" : name === "value" ? value : seen(value));
  }
  node.append(...children.flat(Infinity).filter((child) => child !== null && child !== undefined && typeof child !== "boolean").map(seen));
  return node;
}

const el = (tag, attributes, ...children) => fill(document.createElement(tag), attributes, children);
const draw = (tag, attributes, ...children) => fill(document.createElementNS(SVG, tag), attributes, children);

// Once charts know their width and stand.
const settled = (then) => requestAnimationFrame(() => requestAnimationFrame(then));

function note(text) {
  return el("p", { class: "note" }, text);
}

// A labelled select that remembers its choice while the page is open and calls back when it changes. first: what is
// chosen before, if not the first option.
function choice(key, label, options, changed, first = options[0]?.value) {
  const values = options.map((option) => option.value);
  const kept = state.choices.get(key);
  const chosen = values.includes(kept) ? kept : first;
  const select = el(
    "select",
    {
      "data-choice": key,
      onchange: (event) => {
        state.choices.set(key, event.target.value);
        writeAddress();
        changed(event.target.value);
      },
    },
    options.map(({ value, text }) => el("option", { value, selected: value === chosen }, text)),
  );
  return { element: el("label", { class: "choice" }, `${label} `, select), value: chosen };
}

const unique = (values) => [...new Set(values)];
const asOptions = (values) => values.map((value) => ({ value: String(value), text: String(value) }));
