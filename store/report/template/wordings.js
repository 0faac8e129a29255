// One training asked in many wordings: what holds over them, and how far they lie apart.

function byWording({ wordings: data }) {
  const ends = ({ lowest, highest, spread }) => [`${percent(spread)} (${lowest} to ${highest})`];
  const domain = padded(extent(data.conditions.flatMap(({ value, low, high }) => [value, low, high])));
  const changes = data.contrasts.flatMap(({ rows }) => rows);
  const limits = padded(extent([0, ...changes.flatMap(({ value, low, high }) => [value, low, high])]));
  const shared = [{ title: "SD between wordings (points)", number: true }, { title: "Lowest to highest (points)" }, { title: "Seeds", number: true }];
  return [
    table({
      caption: `Accuracy over all levels of ${data.factors.join(" and ")} (%), with 95% intervals for other wordings, trainings and examples`,
      columns: [{ title: "Condition" }, { title: "Accuracy", number: true }, { title: "95% interval", number: true }, { title: "Plot" }, ...shared],
      rows: data.conditions.map((row) => [row.level, percent(row.value), interval(row.low, row.high, 1, percent), intervalPlot({ value: row.value, low: row.low, high: row.high, domain, label: percent(row.value) }), percent(row.wording_sd), ends(row), `${row.seeds}`]),
      tall: data.conditions.length > 14,
    }),
    howMade(data.method),
    changes.length > 0 && table({
      caption: "Paired differences in accuracy over all wordings, percentage points",
      columns: [{ title: "Contrast" }, { title: "Difference", number: true }, { title: "95% interval", number: true }, { title: "0 marked" }, { title: "p, corrected", number: true }, ...shared],
      rows: changes.map((row) => [
        `${row.factor}: ${row.level} against ${row.baseline}`,
        [points(row.value), !missing(row.p_adjusted) && row.p_adjusted < ALPHA ? el("span", { title: `p < ${ALPHA} after correction` }, " *") : ""],
        interval(row.low, row.high, 1, points),
        intervalPlot({ value: row.value, low: row.low, high: row.high, domain: limits, reference: 0, label: points(row.value) }),
        pValue(row.p_adjusted), percent(row.wording_sd), ends(row), `${row.seeds}`,
      ]),
      tall: changes.length > 14,
    }),
    ...data.contrasts.map(({ method }) => howMade(method)),
    note("The filters do not act on this section: it is about all wordings together."),
  ];
}

const byWordingCsv = ({ wordings: data }) => {
  const columns = ["value", "low", "high", "p_adjusted", "wording_sd", "spread", "lowest", "highest", "seeds"];
  const line = (name, row) => [name, row.level, ...columns.map((column) => row[column])];
  return [
    ["factor", "level", ...columns],
    [...data.conditions.map((row) => line("condition", row)), ...data.contrasts.flatMap(({ rows }) => rows.map((row) => line(row.factor, row)))],
  ];
};
