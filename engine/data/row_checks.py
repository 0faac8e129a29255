"""Which rows of a source become examples, and what is wrong with the others, counted by kind."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

from attrs import define, field

from engine.data.cell_text import whole_number
from engine.data.chats import MESSAGES
from engine.data.missing_explanations import explained
from engine.data.mistakes import LISTED
from engine.data.prompt_fields import prompt_fields
from engine.data.visible import visible
from engine.errors import DataError
from specs.toml.describe import value as spell

# Kinds of rows that are left out. The first two are mistakes, which only `data.invalid = "drop"` leaves out.
KINDS = {
    "empty": "with an empty value",
    "label": "with a label that is none of the labels",
    "unexplained": "without an explanation",
    "too_long": "longer than data.max_characters",
    "duplicate": "the same as an earlier row",
}
MISTAKES = ("empty", "label")
MOST_LABELS, LONGEST_LABEL = 30, 60  # different values of a column that may be labels, and their characters


@define
class RowChecks:
    """Checks rows one after another and counts those that cannot stay."""

    labels: Sequence[str] | None  # all labels there are; None: any
    max_characters: int | None
    unique: bool = True
    needs_explanation: bool = False
    counts: Counter[str] = field(factory=Counter)
    _listed: list[str] = field(factory=list)
    _seen: set[bytes] = field(factory=set)
    _values: Counter[str] = field(factory=Counter)  # of the label's column
    _rows: int = 0

    def passes(self, row: Mapping[str, str | None], columns: Mapping[str, str], where: str) -> bool:
        """Tell whether the row can stay. `columns`: the source's column behind each field, if another."""
        self._rows += 1
        kind, problem = self._mistake(row, columns) or (self._surplus(row), "")
        if kind is None:
            return True
        self.counts[kind] += 1
        if problem and len(self._listed) < LISTED:
            self._listed.append(f"{where}: {problem}")
        return False

    def label_of(self, text: str | None) -> str | None:
        """Give the label that a text stands for: itself, or the one label that differs in ".0" alone."""
        if text is None or self.labels is None or text in self.labels:
            return text
        same = [label for label in self.labels if whole_number(label) == whole_number(text)]
        return same[0] if len(same) == 1 else text

    def close(self, where: str) -> None:
        """Raise DataError if there were mistakes, with the first of them and the number of each kind."""
        kinds = [kind for kind in MISTAKES if self.counts[kind]]
        if not kinds:
            return
        total = sum(self.counts[kind] for kind in kinds)
        counted = ", ".join(f"{self.counts[kind]:,} {KINDS[kind]}" for kind in kinds)
        more = [f"… and {total - len(self._listed):,} more"] * (total > len(self._listed))
        raise DataError("\n  ".join([f"{where}: {counted}", *self._listed, *more]) + f"\n{self._advice()}")

    def _advice(self) -> str:
        """Say what to write for the values that were found as labels, and how to go on without them."""
        drop = 'data.invalid = "drop" leaves such rows out'
        if self.counts["empty"] == self._rows:
            return "no row has all its values; expected other columns in data.columns, or other data"
        if not self.counts["label"]:
            return drop
        if len(self._values) > MOST_LABELS or max(map(len, self._values)) > LONGEST_LABEL:
            advice = (
                "the column holds many or long texts, which are hardly labels; expected another "
                "data.columns.label, or evaluate.labels that list what it holds"
            )
        elif len(self._values) == 1:
            advice = (
                f"the column holds {spell(next(iter(self._values)))} alone, and one label is no task; "
                "expected another data.columns.label, or rows with two labels or more"
            )
        else:
            common = sorted(self._values.items(), key=lambda value: (-value[1], value[0]))
            counts = ", ".join(f"{spell(text)} ({times:,})" for text, times in common)
            advice = (
                f"the column holds {counts}; if all are labels, list them in rating order:\n"
                f"  evaluate.labels = {spell(in_order(self._values))}"
            )
        # Where no row has a label, all would be left out.
        return f"{advice}\n{drop}" if self._values.keys() & set(self.labels or ()) else advice

    def _mistake(self, row: Mapping[str, str | None], columns: Mapping[str, str]) -> tuple[str, str] | None:
        for name in ("context", "response", "label", "group"):
            value = row.get(name, "-")
            # A message may be left out of an example, but there must be an answer and a label.
            if value is None or (name in ("response", "label") and not visible(value)):
                return "empty", f"{_place(row, columns, name)} is empty; expected a value"
        label = row.get("label")
        if label is not None and (label in self._values or len(self._values) <= MOST_LABELS):
            self._values[label] += 1
        if label is not None and self.labels is not None and label not in self.labels:
            column = columns.get("label", "label")
            return (
                "label",
                f'column "{column}" holds {spell(label)}; expected one of {", ".join(self.labels)}',
            )
        return None

    def _surplus(self, row: Mapping[str, str | None]) -> str | None:
        if self.needs_explanation and not explained(row):
            return "unexplained"
        fields = prompt_fields({name: value or "" for name, value in row.items()})
        texts = [row.get(name) or "" for name in ("context", "response", "label")]
        if self.max_characters is not None and sum(map(len, fields.values())) > self.max_characters:
            return "too_long"
        if self.unique:
            texts += [fields[name] for name in sorted(fields.keys() - {"context", "response"})]
            mark = hashlib.blake2b("\0".join(texts).encode(), digest_size=16).digest()
            if mark in self._seen:
                return "duplicate"
            self._seen.add(mark)
        return None


def _place(row: Mapping[str, str | None], columns: Mapping[str, str], name: str) -> str:
    """Name the column of a field, and of a chat the message: its last one, or the answer behind these."""
    column = f'column "{columns.get(name, name)}"'
    if not row.get(MESSAGES) or columns.get(name) != columns.get(MESSAGES):
        return column
    return f"{column}, message {len(json.loads(str(row[MESSAGES]))) + (name == 'label')},"


def in_order(labels: Iterable[str]) -> list[str]:
    """Give labels in rating order: by their numbers, if all are numbers, else by the alphabet."""
    try:
        return sorted(labels, key=float)
    except ValueError:
        return sorted(labels)
