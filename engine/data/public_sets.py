"""The public data sets that a spec may name: where they are, and how a row of theirs becomes examples.

Hub ids, columns and commits are from the data sets' cards and from public code that pins the same commits;
nothing was downloaded to check them. Not confirmed: that the hub has a parquet copy of the Cornell dialogues
(its main branch holds a loading script, which `datasets` 4 and later do not run), and the full commit hash of
the medical abstracts. `docs/data.md` has the mapping in words, and the licences.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from attrs import frozen

from engine.data.chats import script
from specs.registry import PUBLIC_SETS

VERSION = "1"  # raise when a change alters any example

Raw = Mapping[str, Any]
Row = dict[str, str | None]  # context, response, group and, where the set has classes, label

NEWS = ("World", "Sports", "Business", "Sci/Tech")
CONDITIONS = (
    "neoplasms", "digestive system diseases", "nervous system diseases", "cardiovascular diseases",
    "general pathological conditions",
)  # fmt: skip


@frozen
class PublicSet:
    """A public data set, and the function that makes examples of one of its rows."""

    hub: str
    rows: Callable[[Raw], Iterator[Row]]
    columns: tuple[str, ...]  # that `rows` reads
    splits: tuple[str, ...]
    config: str | None = None
    revision: str | None = None  # the commit that is read unless the spec names another; None: not pinned
    labels: tuple[str, ...] = ()  # its classes; a set without any is rated by `engine annotate`
    version: str = VERSION  # of a plug-in's own: part of stage keys, to be raised when any example changes


def _arena(raw: Raw) -> Iterator[Row]:
    """Both models' last answers; two conversations with one opening message are one group."""
    for side in ("conversation_a", "conversation_b"):
        turns = [(turn["role"], turn["content"]) for turn in raw[side]]
        yield from _last_answer(turns, answering="assistant")


def _preference(column: str) -> Callable[[Raw], Iterator[Row]]:
    """The last answer of a dialogue; chosen and rejected have the opening message in common."""

    def rows(raw: Raw) -> Iterator[Row]:
        parts = re.split(r"(?:^|\n\n)(Human|Assistant):", raw[column])[1:]
        turns = [(role, text.strip()) for role, text in zip(parts[::2], parts[1::2], strict=True)]
        yield from _last_answer(turns, answering="Assistant")

    return rows


def _last_answer(turns: Sequence[tuple[str, str | None]], answering: str) -> Iterator[Row]:
    """Nothing, if the answering side does not have the last word."""
    if len(turns) > 1 and turns[-1][0] == answering:
        context = turns[0][1] if len(turns) == 2 else script(turns[:-1])
        yield {"context": context, "response": turns[-1][1], "group": turns[0][1]}


def _question_and_answer(raw: Raw) -> Iterator[Row]:
    yield {"context": raw["query"], "response": raw["answer"], "group": raw["query"]}


def _story(raw: Raw) -> Iterator[Row]:
    """Each answer, with the story and what was asked before: later questions refer to earlier ones."""
    earlier = raw["story"]
    for question, answer in zip(raw["questions"], _column(raw["answers"], "input_text"), strict=True):
        asked = f"{earlier}\nQuestion: {question}"
        yield {"context": asked, "response": answer, "group": raw["story"]}
        earlier = f"{asked}\nAnswer: {answer}"


def _movie(raw: Raw) -> Iterator[Row]:
    """Each line but the first of a conversation, with the lines before it."""
    lines, names = _column(raw["utterance"], "text"), _column(raw["utterance"], "LineID")
    for index in range(1, len(lines)):
        yield {"context": "\n".join(lines[:index]), "response": lines[index], "group": names[0]}


def _column(nested: Any, name: str) -> list[str]:
    """A field of a list of records, which `datasets` gives as lists by field or as a list of dicts."""
    return list(nested[name]) if isinstance(nested, Mapping) else [item[name] for item in nested]


def _classified(text: str, label: str, names: Mapping[int, str]) -> Callable[[Raw], Iterator[Row]]:
    by_text = {str(number): name for number, name in names.items()}  # CSV and JSON hold the number as text

    def rows(raw: Raw) -> Iterator[Row]:
        number = raw[label]
        label_text = number if number is None else by_text.get(str(number), str(number))
        yield {"context": "", "response": raw[text], "group": raw[text], "label": label_text}

    return rows


def _preferences(column: str) -> PublicSet:
    return PublicSet(
        hub="Anthropic/hh-rlhf",
        revision="09be8c5bbc57cb3887f3a9732ad6aa7ec602a1fa",
        splits=("train", "test"),
        columns=(column,),
        rows=_preference(column),
    )


for _name, _set in {
    "chatbot-arena": PublicSet(
        hub="lmsys/chatbot_arena_conversations",
        revision="1b6335d42a1d2c7e34870c905d03ab964f7f2bd8",
        splits=("train",),
        columns=("conversation_a", "conversation_b"),
        rows=_arena,
    ),
    "hh-rlhf-chosen": _preferences("chosen"),
    "hh-rlhf-rejected": _preferences("rejected"),
    "amazon-qa": PublicSet(
        hub="sentence-transformers/amazon-qa",
        config="pair",
        revision="614a80086ee434a4fdbb8629f07c6c2374df840b",
        splits=("train",),
        columns=("query", "answer"),
        rows=_question_and_answer,
    ),
    "coqa": PublicSet(
        hub="stanfordnlp/coqa",
        revision="0d9e9952f1ef6e5415492d3d84b5873259137e3c",
        splits=("train", "validation"),
        columns=("story", "questions", "answers"),
        rows=_story,
    ),
    "cornell-movie-dialogs": PublicSet(
        hub="cornell-movie-dialog/cornell_movie_dialog",
        revision="refs/convert/parquet",  # the hub's own conversion; a branch, for no commit of it is known
        splits=("train",),
        columns=("utterance",),
        rows=_movie,
    ),
    "ag-news": PublicSet(
        hub="fancyzhx/ag_news",
        revision="eb185aade064a813bc0b7f42de02595523103ca4",
        splits=("train", "test"),
        columns=("text", "label"),
        rows=_classified("text", "label", dict(enumerate(NEWS))),
        labels=NEWS,
    ),
    "medical-abstracts": PublicSet(
        hub="TimSchopf/medical_abstracts",
        splits=("train", "test"),
        columns=("medical_abstract", "condition_label"),
        rows=_classified("medical_abstract", "condition_label", dict(enumerate(CONDITIONS, start=1))),
        labels=CONDITIONS,
    ),
}.items():
    PUBLIC_SETS.add(_name, _set)
