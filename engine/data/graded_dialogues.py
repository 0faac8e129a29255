"""The built-in data set `graded-dialogues`: ratings that are true by construction.

The dialogues are the English part of the package chatterbot-corpus (BSD licence). Each message and reply
gives one example per dimension, for which a rating from 5 down to 1 is drawn. As
`graded-dialogues/all-ratings` it gives five in one group, one for each rating. The reply is damaged to match:

- naturalness: the share of its words that are put out of order is 0, 1/4, 1/2, 3/4, 1;
- comprehensiveness: the share of its words that is kept, from the start, is 1, 3/4, 1/2, 1/3, 1/5;
- on-topic: it is replaced by the reply to the most similar message of the same topic (4), to another
  message of that topic (3), of another topic of the same field (2), of another field (1).

So the ratings grade a known, mechanical defect, not human judgement, and the explanation names that defect.
"""

from __future__ import annotations

import random
import string
from collections.abc import Callable, Iterator
from functools import partial
from importlib import resources
from typing import NamedTuple

from engine.data.data_sets import DataSet
from engine.errors import DataError
from specs.registry import DATA_SETS

NAME = "graded-dialogues"
VERSION = "1"  # raise when a change alters any example
DIMENSIONS = ("naturalness", "comprehensiveness", "on-topic")
SHUFFLED_SHARE = {5: 0.0, 4: 0.25, 3: 0.5, 2: 0.75, 1: 1.0}
KEPT_SHARE = {5: 1.0, 4: 3 / 4, 3: 1 / 2, 2: 1 / 3, 1: 1 / 5}
MIN_WORDS, MAX_WORDS = 6, 24

FIELDS = {
    "machines": ("ai", "botprofile", "coding", "computers", "tech_support"),
    "people": ("conversations", "emotion", "gossip", "greetings", "health", "humor", "psychology"),
    "world": ("food", "history", "literature", "money", "movies", "politics", "science", "sports", "trivia"),
}


class Dialogue(NamedTuple):
    """One message and its reply."""

    topic: str
    message: str
    reply: str


class Graded(NamedTuple):
    """A reply, damaged or not, and the words that say what is wrong with it."""

    reply: str
    explanation: str


def examples(dimension: str, field: str | None = None, all_ratings: bool = False) -> Iterator[dict[str, str]]:
    """Yield every example of a dimension, or those of one of the `FIELDS`, in the corpus's order.

    With `all_ratings`, a dialogue gives five examples, from the one rated 5 to the one rated 1, not one.

    Keys: id, context, response, label ("1" to "5"), explanation, group. Raises DataError if the dimension
    is unknown or the corpus is not installed.
    """
    graders: dict[str, Callable[[int, Dialogue, list[Dialogue], random.Random], Graded]] = {
        "naturalness": _naturalness,
        "comprehensiveness": _comprehensiveness,
        "on-topic": _on_topic,
    }
    if dimension not in graders:
        raise DataError(f'data.dimension: found "{dimension}"; graded-dialogues has {", ".join(DIMENSIONS)}')
    dialogues = read_dialogues()
    ratings = [1 + index % 5 for index in range(len(dialogues))]
    random.Random(f"ratings {dimension}").shuffle(ratings)
    for index, (dialogue, rating) in enumerate(zip(dialogues, ratings, strict=True)):
        if field not in (None, _field(dialogue.topic)):
            continue
        for given in range(5, 0, -1) if all_ratings else [rating]:
            rng = random.Random(f"{dimension} {dialogue.message} {dialogue.reply}")
            reply, explanation = graders[dimension](given, dialogue, dialogues, rng)
            yield {
                "id": f"{dialogue.topic}-{index}-{given}" if all_ratings else f"{dialogue.topic}-{index}",
                "context": dialogue.message,
                "response": reply,
                "label": str(given),
                "explanation": explanation,
                "group": dialogue.message.casefold(),
            }


def read_dialogues() -> list[Dialogue]:
    """Read the first exchange of every conversation whose reply has 6 to 24 words on one line."""
    try:
        folder = resources.files("chatterbot_corpus") / "data" / "english"
    except ModuleNotFoundError as error:
        raise DataError(
            "data.source: graded-dialogues needs the package chatterbot-corpus; "
            "`make demo` installs it, or: pip install --no-deps chatterbot-corpus"
        ) from error
    import yaml

    known = {topic for topics in FIELDS.values() for topic in topics}
    dialogues: dict[tuple[str, str], Dialogue] = {}
    for file in sorted(folder.iterdir(), key=lambda file: file.name):
        topic = file.name.removesuffix(".yml")
        if topic not in known:
            continue
        loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
        for turns in yaml.load(file.read_text("utf-8"), Loader=loader)["conversations"]:
            if len(turns) < 2:
                continue
            message, reply = (" ".join(str(turn).split()) for turn in turns[:2])
            if "\n" not in str(turns[1]).strip() and MIN_WORDS <= len(reply.split()) <= MAX_WORDS:
                dialogues.setdefault((message.casefold(), reply.casefold()), Dialogue(topic, message, reply))
    return list(dialogues.values())


def displace(words: list[str], share: float, rng: random.Random) -> tuple[list[str], list[int]]:
    """Move a share of the words among themselves; give the new order and the positions that moved."""
    count = round(share * len(words))
    if count < 2:
        return list(words), []
    places = rng.sample(range(len(words)), count)
    moved = list(words)
    # A cycle over the drawn places leaves no drawn word where it was.
    for place, source in zip(places, places[1:] + places[:1], strict=True):
        moved[place] = words[source]
    return moved, sorted(places)


def _naturalness(rating: int, dialogue: Dialogue, _dialogues: list[Dialogue], rng: random.Random) -> Graded:
    words = dialogue.reply.split()
    moved, places = displace(words, SHUFFLED_SHARE[rating], rng)
    if not places:
        return Graded(
            dialogue.reply, f"Every word stands in its place, from {_quote(words[0])} to {_quote(words[-1])}."
        )
    amount = {4: "A few words", 3: "About half of the words", 2: "Most words", 1: "All words"}[rating]
    first = places[0]
    return Graded(
        " ".join(moved),
        f"{amount} are out of order: {_quote(moved[first])} stands where {_quote(words[first])} belongs.",
    )


def _comprehensiveness(
    rating: int, dialogue: Dialogue, _dialogues: list[Dialogue], _rng: random.Random
) -> Graded:
    words = dialogue.reply.split()
    kept = words[: max(1, round(KEPT_SHARE[rating] * len(words)))]
    if len(kept) == len(words):
        return Graded(dialogue.reply, f"Nothing is missing: the reply is whole up to {_quote(words[-1])}.")
    amount = {4: "The end", 3: "The second half", 2: "Most of the reply", 1: "Nearly everything"}[rating]
    return Graded(" ".join(kept), f"{amount} is missing: the reply breaks off after {_quote(kept[-1])}.")


def _on_topic(rating: int, dialogue: Dialogue, dialogues: list[Dialogue], rng: random.Random) -> Graded:
    if rating == 5:
        return Graded(dialogue.reply, f"The reply answers the message about {_subject(dialogue)}.")
    field = _field(dialogue.topic)
    others = [other for other in dialogues if other.reply != dialogue.reply]
    same_topic = [other for other in others if other.topic == dialogue.topic]
    pools = {
        4: sorted(same_topic, key=lambda other: -_overlap(dialogue.message, other.message))[:1],
        3: same_topic,
        2: [other for other in others if _field(other.topic) == field and other.topic != dialogue.topic],
        1: [other for other in others if _field(other.topic) != field],
    }
    other = rng.choice(pools[rating] or others)
    distance = {4: "a similar message", 3: "another message", 2: "another subject", 1: "another field"}
    return Graded(
        other.reply,
        f"The message is about {_subject(dialogue)}, but the reply belongs to {distance[rating]}: "
        f"{_subject(other)}.",
    )


def _field(topic: str) -> str:
    return next(field for field, topics in FIELDS.items() if topic in topics)


def _subject(dialogue: Dialogue) -> str:
    return _quote(max(dialogue.message.split(), key=len))


def _quote(word: str) -> str:
    return f'"{word.strip(string.punctuation) or word}"'


def _overlap(left: str, right: str) -> float:
    a, b = set(left.casefold().split()), set(right.casefold().split())
    return len(a & b) / len(a | b)


_PARTS: dict[str, Callable[..., Iterator[dict[str, str]]]] = {
    NAME: examples,
    **{f"{NAME}/{part}": partial(examples, field=part) for part in FIELDS},
    f"{NAME}/all-ratings": partial(examples, all_ratings=True),
}
for _name, _examples in _PARTS.items():
    # A few of the damaged replies coincide, all in one group.
    DATA_SETS.add(_name, DataSet(_examples, unique=False, version=VERSION))
