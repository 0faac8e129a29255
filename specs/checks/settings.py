"""What the types of a cell's tables cannot say: fields of templates, separators, labels that differ."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import pairwise
from typing import Any

from specs.checks.templates import template_problems
from specs.common.names import SIMILARITIES
from specs.common.spelling import nearest, one_of
from specs.errors import Problem
from specs.tables.data import Data
from specs.tables.evaluate import Evaluate
from specs.tables.experiment import Lora, Train
from specs.tables.loss import LARGEST, SMALLEST
from specs.tables.probe import PositionRange, Probe
from specs.tables.target import STUDY_FIELDS, Prompt, Target
from specs.toml.convert import structure
from specs.toml.describe import value as spell
from specs.toml.keys import join
from specs.toml.known_keys import tables

TEMPLATE_FIELDS = ("response", *STUDY_FIELDS)
COLUMN_FIELDS = ("dimension",)
TAKEN_FIELDS = {
    *TEMPLATE_FIELDS, "context", "id", "label", "explanation", "group", "split", "source", "messages",
    "further_explanations",
}  # fmt: skip


def prompt_problems(prompt: Prompt, data: Data, table: str) -> Iterator[Problem]:
    """Yield what is wrong with the templates of a table, for the fields that the data have."""
    known = (*(() if not data.columns.context else ("context",)), *TEMPLATE_FIELDS, *data.columns.fields)
    if prompt.messages:
        yield from _chat(prompt, data, table)
    yield from template_problems(f"{table}.template", prompt.template, known)
    yield from template_problems(f"{table}.system", prompt.system or "", STUDY_FIELDS)


def _chat(prompt: Prompt, data: Data, table: str) -> Iterator[Problem]:
    if data.columns.messages is None:
        message = "found true, but the data has no chats; expected data.columns.messages, or false"
        yield Problem(None, f"{table}.messages", message)
    if not prompt.chat_template:
        message = f"found true with {table}.chat_template = false; expected the chat template, or false"
        yield Problem(None, f"{table}.messages", message)
    for field in ("context", "response"):
        if f"{{{field}}}" in prompt.template:
            message = (
                f"found the field {{{field}}}, which {table}.messages shows already; expected a template "
                'without it, "" for no further message'
            )
            yield Problem(None, f"{table}.template", message)


def _target(settings: Target) -> Iterator[Problem]:
    if settings.explains_first and settings.separator in ("", " "):  # words are joined by single spaces
        message = (
            "expected a text that ends an explanation where it comes first, which no words do by themselves; "
            f"found {spell(settings.separator)}"
        )
        yield Problem(None, "target.separator", message)
    elif settings.explains_first and settings.content == "label+filler":
        parting = settings.parting
        stem = settings.filler * (len(parting) // len(settings.filler) + 2) + parting
        if stem.find(parting) + len(parting) < len(stem):
            message = (
                f"expected a text that does not hold the separator, {spell(parting)}, which would end it too "
                f"early; found {spell(settings.filler)}"
            )
            yield Problem(None, "target.filler", message)
    yield from _loss(settings)


def _loss(settings: Target) -> Iterator[Problem]:
    for segment, weight in settings.loss.weights.items():
        if 0 < weight < SMALLEST:
            message = f"expected 0, or a weight from {SMALLEST:g} to {LARGEST:g}; found {spell(weight)}"
            yield Problem(None, f"target.loss.{segment}", message)
    if not any(settings.loss.weights[segment] for segment in settings.segments):
        names = one_of(f"target.loss.{segment}" for segment in settings.segments)
        message = f'expected a weight above 0 for some token of "{settings.content}" ({names}); all are 0'
        yield Problem(None, "target.loss", message)


def _data(settings: Data) -> Iterator[Problem]:
    yield from _columns("data", settings)


def _columns(table: str, settings: Data) -> Iterator[Problem]:
    for index, name in enumerate(settings.columns.fields):
        if name in TAKEN_FIELDS or name in settings.columns.fields[:index]:
            message = f"{spell(name)} is a field already; expected another column, or none"
            yield Problem(None, f"{table}.columns.fields[{index}]", message)
    sources = [settings.source] if isinstance(settings.source, str) else settings.source
    if not all(source.strip() for source in sources):
        yield Problem(None, f"{table}.source", "expected a file, folder or data set, found an empty text")
    columns = settings.columns
    for index, name in enumerate(columns.further_explanations):
        if name == columns.explanation or name in columns.further_explanations[:index]:
            message = f"{spell(name)} is a column of explanations already; expected another, or none"
            yield Problem(None, f"{table}.columns.further_explanations[{index}]", message)
    named = {"label": columns.label, "explanation": columns.explanation} | {
        f"further_explanations[{index}]": name for index, name in enumerate(columns.further_explanations)
    }
    for key, column in named.items():
        yield from template_problems(f"{table}.columns.{key}", column or "", COLUMN_FIELDS)


def _evaluate(settings: Evaluate) -> Iterator[Problem]:
    if settings.data is not None:
        yield from _columns("evaluate.data", settings.data)
    for index, message in label_mistakes(settings.labels):
        yield Problem(None, f"evaluate.labels[{index}]", message)
    yield from _spellings(settings)
    yield from _counterfactuals(settings)


def label_mistakes(labels: Sequence[str]) -> Iterator[tuple[int, str]]:
    """Yield the place of each label that cannot be one beside those before it, and why."""
    alike: dict[str, str] = {}
    for index, label in enumerate(labels):
        if label.strip() != label or not label:
            yield index, f"expected a text without spaces around it, found {spell(label)}"
        elif label in labels[:index]:
            yield index, f"{spell(label)} is listed twice"
        elif (other := alike.setdefault(label.casefold(), label)) != label:
            yield (
                index,
                f"{spell(label)} differs from {spell(other)} in case alone, which answers do not tell",
            )


def _counterfactuals(settings: Evaluate) -> Iterator[Problem]:
    kinds = settings.counterfactuals
    for index, kind in enumerate(kinds):
        if kind in kinds[:index]:
            yield Problem(None, f"evaluate.counterfactuals[{index}]", f"{spell(kind)} is listed twice")
    if kinds and "loglikelihood" not in settings.scoring:
        message = (
            'expected "loglikelihood" beside evaluate.counterfactuals, which are held against the labels '
            f"scored behind the model's own explanation; found {spell(settings.scoring)}"
        )
        yield Problem(None, "evaluate.scoring", message)


def _spellings(settings: Evaluate) -> Iterator[Problem]:
    meanings = {label.casefold(): label for label in settings.labels}  # generated text is read so
    for label, texts in settings.spellings.items():
        at = ("evaluate", "spellings", label)
        if label not in settings.labels:
            known = one_of(spell(known) for known in settings.labels)
            hint = nearest(label, settings.labels)
            yield Problem(None, join(at), f"unknown label {spell(label)}; expected {known}", hint)
            continue
        for index, text in enumerate(texts):
            other = meanings.setdefault(text.casefold(), label)
            if other != label:
                message = f"{spell(text)} means the label {spell(other)} already"
                yield Problem(None, join((*at, index)), message)


def _train(settings: Train) -> Iterator[Problem]:
    given = [name for name in ("steps", "tokens", "label_tokens") if getattr(settings, name) is not None]
    if len(given) > 1:
        names = " and ".join(f"train.{name}" for name in given)
        yield Problem(None, f"train.{given[-1]}", f"expected one length of the training, found {names}")


def _lora(settings: Lora) -> Iterator[Problem]:
    modules = settings.target_modules
    try:
        re.compile(modules if isinstance(modules, str) else "")
    except re.error as error:
        yield Problem(
            None, "lora.target_modules", f"expected a regular expression, found {spell(modules)}: {error}"
        )
    for index, token in enumerate(settings.trained_tokens):
        if token in settings.trained_tokens[:index]:
            yield Problem(None, f"lora.trained_tokens[{index}]", f"{spell(token)} is listed twice")
    if settings.trained_tokens and not settings.modules_to_save:
        message = (
            f"found {spell(settings.trained_tokens)}, but no embeddings are trained; expected the module of "
            'embeddings in lora.modules_to_save, "embed_tokens" of a Llama say'
        )
        yield Problem(None, "lora.trained_tokens", message)


def _probe(settings: Probe) -> Iterator[Problem]:
    if settings.layers == []:
        yield Problem(None, "probe.layers", 'expected "all" or at least one layer, found none')
    yield from _ranges(settings)
    yield from _geometry(settings)
    yield from _streams(settings)
    yield from _lenses(settings)
    yield from _along(settings)


def _lenses(settings: Probe) -> Iterator[Problem]:
    """Yield lenses that are named twice, and those that two models do not share."""
    for index, name in enumerate(settings.lenses):
        if name in settings.lenses[:index]:
            yield Problem(None, f"probe.lens[{index}]", f"{spell(name)} is listed twice")
    own = {"lens": "tuned", "jacobian": "jacobian"}
    for stage in settings.fitted("trained"):
        for key in ("against", "at"):
            if getattr(settings, key):
                message = (
                    f"found {spell(own[stage])} beside probe.{key}, where each model has a lens of its own; "
                    f'expected "logit", or probe.{own[stage]}.fitted_on = "base"'
                )
                yield Problem(None, "probe.lens", message)


def _along(settings: Probe) -> Iterator[Problem]:
    steps = [value for value in settings.at if isinstance(value, int) and value]
    shares = [value for value in settings.at if isinstance(value, float) and value]
    if steps and shares:
        message = (
            f"expected shares of the steps ({shares[0]:g}, 1.0) or steps (10, 200), "
            f"found both: {shares[0]} and {steps[0]}"
        )
        yield Problem(None, "probe.at", message)
    for index, (earlier, later) in enumerate(pairwise(settings.at), 1):
        if later <= earlier:
            message = f"expected more than {earlier}, which stands before it; found {later}"
            yield Problem(None, f"probe.at[{index}]", message)


def _ranges(settings: Probe) -> Iterator[Problem]:
    """Yield ranges of watch positions that watch one position twice."""
    watched: set[str] = set()
    for index, place in enumerate(settings.places):
        if not isinstance(place, PositionRange):
            continue
        if twice := [name for name in place.names if name in watched]:
            message = f"{twice[0]} is watched already; expected each position once"
            yield Problem(None, f"probe.positions[{index}]", message)
        watched.update(place.names)


def _geometry(settings: Probe) -> Iterator[Problem]:
    """Yield what geometry lacks: models to be compared with, and positions along which a stream bends."""
    for index, name in enumerate(settings.geometry):
        at = f"probe.geometry[{index}]"
        if name in settings.geometry[:index]:
            yield Problem(None, at, f"{spell(name)} is listed twice")
        elif name in SIMILARITIES and not settings.against:
            message = f"{spell(name)} compares with the models of probe.against; expected some there"
            yield Problem(None, at, message)
        elif name == "curvature" and not any(
            isinstance(place, PositionRange) and place.most >= 3 for place in settings.places
        ):
            message = (
                '"curvature" is along the positions of a range; expected one of 3 or more in probe.positions'
            )
            yield Problem(None, at, message)


def _streams(settings: Probe) -> Iterator[Problem]:
    """Yield what streams, attribution and differences lack: tokens, and models to be compared with."""
    for index, name in enumerate(settings.streams):
        if name in settings.streams[:index]:
            yield Problem(None, f"probe.streams[{index}]", f"{spell(name)} is listed twice")
    if settings.attribution and settings.watch == []:
        message = "expected watched tokens beside probe.attribution, which is of their logits; found none"
        yield Problem(None, "probe.watch", message)
    if settings.attribution_per_head and not settings.attribution:
        message = "expected only beside probe.attribution = true; found it false"
        yield Problem(None, "probe.attribution_per_head", message)
    if settings.differences and not settings.against:
        message = "found true, but no model to be compared with; expected some in probe.against, or false"
        yield Problem(None, "probe.differences", message)


# Table → its rules; every cell's table is held against them, each distinct one once.
RULES: Mapping[str, Callable[[Any], Iterator[Problem]]] = {
    "target": _target,
    "data": _data,
    "lora": _lora,
    "train": _train,
    "evaluate": _evaluate,
    "probe": _probe,
}


def settings_problems(raw: Mapping[str, Any]) -> Iterator[Problem]:
    """Yield what is wrong with the tables of a spec whose types are right, whatever is wrong with others."""
    known: dict[str, Any] = {}
    for name in (*RULES, "prompt"):
        settings, _ = structure(raw.get(name, {}), tables()[name], name)
        if settings is not None:
            known[name] = settings
            yield from RULES[name](settings) if name in RULES else ()
    if "prompt" in known and "data" in known:
        yield from prompt_problems(known["prompt"], known["data"], "prompt")
