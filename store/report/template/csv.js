// Downloads, made from what the page shows at that moment.

function csvText(header, rows) {
  const write = (value) => {
    const plain = missing(value) ? "" : String(value);
    // What a spreadsheet would run as a formula gets an apostrophe in front; a number is none.
    const formula = typeof value === "string" && /^ *[=+\-@\t\r\n＝＋]/.test(plain) && Number.isNaN(Number(plain));
    const text = formula ? `'${plain}` : plain;
    return /[",\r\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
  };
  return [header, ...rows].map((row) => row.map(write).join(",")).join("\r\n") + "\r\n";
}

// make: () => [header, rows], asked when the button is pressed.
function downloadButton(name, make) {
  const file = `${state.experiment.name}-${name}.csv`.replaceAll(" ", "-");
  const download = () => {
    const [header, rows] = make();
    save(new Blob([csvText(header, rows)], { type: "text/csv" }), file);
  };
  return el("button", { type: "button", class: "download", "data-csv": name, onclick: download }, "CSV", el("span", { class: "hidden" }, ` of ${name}, as filtered`));
}

// Columns for a condition's levels, which every table of conditions begins with.
const levelHeader = () => state.experiment.factors.map((factor) => factor.name);
const levelCells = (index) => levelHeader().map((name) => state.experiment.conditions[index].levels[name]);
