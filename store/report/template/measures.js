// Changes by condition and by a second name, such as the kind of explanation: one measure at a time.

function changesBy(id, { by, measures }, redraw) {
  const picked = choice(id, "Measure", measures.map(({ name, title }) => ({ value: name, text: title })), redraw);
  const own = measures.find(({ name }) => name === picked.value);
  const rows = own.rows.filter(([condition]) => visible(condition));
  if (!rows.length) return [picked.element, note("Nothing is known of it in the conditions shown.")];
  const write = own.share ? points : signed;
  const digits = own.share ? 1 : 2;
  const domain = padded(extent([0, ...rows.flatMap(([, , ...row]) => row.slice(0, 3))]));
  return [
    picked.element,
    table({
      caption: `Change in ${own.title}, with 95% intervals`,
      columns: [{ title: "Condition" }, { title: by }, { title: "Change", number: true }, { title: "95% interval", number: true }, { title: "0 marked" }, { title: "p, corrected", number: true }, { title: "Seeds", number: true }, { title: "Examples", number: true }],
      rows: rows.map(([condition, name, value, low, high, p, seeds, examples]) => [
        shortLabel(condition), name,
        [write(value, digits), !missing(p) && p < ALPHA ? el("span", { title: `p < ${ALPHA} after correction` }, " *") : ""],
        interval(low, high, digits, write),
        intervalPlot({ value, low, high, domain, reference: 0, label: `${write(value, digits)} ${interval(low, high, digits, write)}` }),
        pValue(p), `${seeds}`, `${examples}`,
      ]),
      tall: rows.length > 14,
    }),
    howMade(own.method, `* p < ${ALPHA} after correction.`),
  ];
}

const changesCsv = ({ by, measures }) => [
  [...levelHeader(), by.toLowerCase(), "measure", "change", "low", "high", "p_adjusted", "seeds", "examples"],
  measures.flatMap(({ name, rows }) => rows.filter(([condition]) => visible(condition)).map(([condition, second, ...row]) => [...levelCells(condition), second, name, ...row])),
];

const faithfulness = ({ faithfulness: data }, redraw) => changesBy("faithfulness", data, redraw);
const faithfulnessCsv = ({ faithfulness: data }) => changesCsv(data);
