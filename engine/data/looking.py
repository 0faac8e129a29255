"""What the columns of a source hold, for a spec that is to be written: which may be labels, which texts."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice
from typing import Any

from attrs import define, evolve, field

from engine.data.cell_text import cell_text, whole_number
from engine.data.data_sets import data_set_rows
from engine.data.opening import open_source
from engine.data.row_checks import LONGEST_LABEL, MOST_LABELS
from engine.data.sources import DataSource, sources
from engine.data.table_files import Raw
from engine.data.visible import visible
from engine.errors import DataError
from specs.tables.data import Data

MOST_ROWS = 5_000  # read of a data set that comes over a network
MOST_MARKS = 100_000  # different values of a column that are told apart
# Of a text, in the mean; below both a column holds names or numbers. Some scripts have no spaces.
WORDS, CHARACTERS = 2, 16

# By what columns are called in public data sets, the likeliest first.
NAMES = {
    "label": ("label", "labels", "rating", "score", "class", "category", "sentiment", "stars", "grade",
              "target", "gold", "answer_label", "y"),
    "response": ("response", "text", "reply", "answer", "review", "sentence", "comment", "tweet", "content",
                 "body", "output", "completion", "hypothesis", "message"),
    "context": ("context", "prompt", "question", "instruction", "query", "premise", "message", "input"),
    "explanation": ("explanation", "reason", "rationale", "why", "justification", "reasoning"),
    "group": ("group", "conversation_id", "dialogue_id", "thread_id", "user_id", "author", "document_id"),
}  # fmt: skip


@define
class Column:
    """What one column holds in the rows that were looked at."""

    name: str
    filled: int = 0  # rows with a value that can be seen
    characters: int = 0
    words: int = 0
    longest: int = 0  # characters
    single: bool = True  # no lists or tables of its own
    values: Counter[str] = field(factory=Counter)  # no more kinds than MOST_LABELS + 1
    marks: set[int] = field(factory=set)

    def note(self, text: str) -> None:
        """Count the value of a row."""
        self.filled += 1
        self.characters += len(text)
        self.words += len(text.split())
        self.longest = max(self.longest, len(text))
        if text in self.values or len(self.values) <= MOST_LABELS:
            self.values[text] += 1
        if len(self.marks) < MOST_MARKS:
            self.marks.add(hash(text))

    @property
    def labels(self) -> dict[str, int]:
        """The values and their numbers, if they can be labels, else none; whole numbers without a point."""
        known: Counter[str] = Counter()
        for text, number in self.values.items():
            known[whole_number(text)] += number
        return dict(known) if self.single and 2 <= len(known) <= MOST_LABELS and self._short else {}

    @property
    def _short(self) -> bool:
        return self.longest <= LONGEST_LABEL

    @property
    def repeats(self) -> bool:
        """Whether values stand in two rows and more in the mean, as labels and groups do."""
        return 2 * len(self.marks) <= self.filled

    @property
    def is_text(self) -> bool:
        """Whether the column holds texts that differ from row to row."""
        long = self.words >= WORDS * self.filled or self.characters >= CHARACTERS * self.filled
        return self.single and self.filled > 0 and long and not self.labels


@define
class Look:
    """A source as it was looked at."""

    source: DataSource
    columns: dict[str, Column]
    rows: int
    whole: bool  # whether all rows were read
    test_split: str | None  # the split of its own, if it has one
    own_labels: tuple[str, ...] = ()  # of a public set with classes

    @property
    def fixed(self) -> bool:
        """Whether the fields are named already, as those of built-in and public data sets are."""
        return self.source.data_set is not None or self.source.adapter is not None


def look(source: str, dimension: str) -> Look:
    """Read a source and count what its columns hold; DataError for what cannot be read.

    source: as `data.source`, local paths absolute. dimension: as `data.dimension`.
    """
    data = Data(source=source, dimension=dimension, streaming=True)
    (origin,) = sources(data)
    adapter, test_split = origin.adapter, None
    if origin.data_set is not None:
        rows: Iterable[Mapping[str, Any]] = data_set_rows(origin.data_set, dimension)
    elif adapter is not None:
        rows = (row for raw in _rows(origin, data) for row in adapter.rows(raw))
        test_split = "test" if "test" in adapter.splits else None
    else:
        test_split = _test_split(origin, data)
        rows = _rows(origin, evolve(data, test_split=test_split))
    if origin.hub is not None:
        rows = islice(rows, MOST_ROWS)
    columns: dict[str, Column] = {}
    number = 0
    for row in rows:
        number += 1
        for name, value in row.items():
            _note(columns.setdefault(name, Column(name)), value)
    if not number:
        raise DataError(f"{source}: holds no rows; expected some with a text and a label")
    whole = origin.hub is None or number < MOST_ROWS
    return Look(origin, columns, number, whole, test_split, adapter.labels if adapter else ())


def _rows(origin: DataSource, data: Data) -> Iterator[Raw]:
    for _, table in open_source(origin, data, None):
        yield from (raw for _, raw in table.rows)


def _test_split(origin: DataSource, data: Data) -> str | None:
    """Give the name of a source's own test split, where it has one."""
    if origin.missing or (origin.path is not None and origin.path.is_file()):
        return None
    try:
        list(open_source(origin, evolve(data, test_split="test"), None))
    except DataError:
        return None
    return "test"


def _note(column: Column, value: Any) -> None:
    try:
        text = cell_text(value, "", column.name)
    except DataError:  # a list, say, which no field of an example can be
        column.single = False
        return
    if text is not None and visible(text):
        column.note(text)


def likely(seen: Look, role: str, taken: Iterable[str] = ()) -> list[str]:
    """Name the columns that may have a role, the likeliest first; those of its usual names before others.

    role: one of `NAMES`. taken: columns that have a role already.
    """
    free = {name: column for name, column in seen.columns.items() if name not in taken}
    if role == "label":
        fitting = {name for name, column in free.items() if column.labels and column.repeats}
    elif role == "group":
        fitting = {
            name
            for name, column in free.items()
            if column.single and column.repeats and column.filled == seen.rows and len(column.marks) >= 8
        }
    elif role == "response":
        fitting = {name for name, column in free.items() if column.is_text}
    else:
        fitting = {name for name, column in free.items() if column.single and column.filled}
    ranks = {name: rank for rank, name in enumerate(NAMES[role])}
    named = sorted((name for name in fitting if name.lower() in ranks), key=lambda name: ranks[name.lower()])
    return [*named, *(name for name in free if name in fitting and name not in named)]


def told(role: str, fitting: Sequence[str]) -> bool:
    """Tell whether the first of the likely columns is the one, without anybody being asked."""
    if len(fitting) < 2 or fitting[0].lower() == role:
        return True
    other = NAMES["context"] if role == "response" else ()  # "message" is either
    named = [name for name in fitting if name.lower() in NAMES[role] and name.lower() not in other]
    return named == fitting[:1]
