"""What the types of `[annotate]` cannot say: names that agree, ratings within scales, fields of templates."""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Iterator
from urllib.parse import urlsplit

from specs.checks.templates import template_problems
from specs.common.spelling import nearest, one_of
from specs.errors import Problem
from specs.tables.annotate import COLUMNS, FIELDS, MERGE_FIELDS, Annotate, Annotator, Strategy
from specs.toml.describe import value as spell

# Keys of a request that have a place of their own in the spec.
_OWN_KEYS = ("model", "messages", "temperature", "max_tokens", "stream", "n")


def annotate_problems(settings: Annotate | None) -> Iterator[Problem]:
    """Everything that is wrong with the table beyond its types."""
    if settings is None:
        return
    yield from _repeated("dimensions", settings.dimensions)
    for index, name in enumerate(settings.dimensions):
        if name in COLUMNS:
            yield _problem(
                f"dimensions[{index}]", f"`{name}` is a column of the output; expected another name"
            )
    yield from _repeated("annotators", [annotator.name for annotator in settings.annotators])
    yield from _repeated("strategies", [strategy.name for strategy in settings.strategies])
    for index, annotator in enumerate(settings.annotators):
        yield from _annotator(f"annotators[{index}]", annotator)
    for index, strategy in enumerate(settings.strategies):
        yield from _strategy(f"strategies[{index}]", strategy, settings.dimensions)
    for name in settings.definitions:
        if name not in settings.dimensions:
            yield _problem("definitions", *_no_such("dimension", name, settings.dimensions))
    if settings.low >= settings.high:
        yield _problem("high", f"expected more than low = {settings.low}, found {settings.high}")
    if settings.merge == "best" and settings.golden is None:
        yield _problem("merge", 'expected a `golden` set with "best", found none')
    names = [annotator.name for annotator in settings.annotators]
    if settings.merger is not None and settings.merger not in names:
        yield _problem("merger", *_no_such("annotator", settings.merger, names))
    raters = len(settings.annotators) * len(settings.strategies)
    if settings.min_answers > raters:
        yield _problem(
            "min_answers",
            f"expected at most {raters}, one per annotator and strategy; found {settings.min_answers}",
        )
    yield from template_problems(
        "annotate.merge_template", settings.merge_template, MERGE_FIELDS, ("explanations",)
    )


def _annotator(at: str, annotator: Annotator) -> Iterator[Problem]:
    if annotator.endpoint is None:
        for key, default in (("key_env", None), ("temperature", 0.0), ("parameters", {})):
            if getattr(annotator, key) != default:
                yield _problem(
                    f"{at}.{key}", "expected only beside an `endpoint`; a model loaded here has none"
                )
    else:
        url = urlsplit(annotator.endpoint)
        if url.username or url.password or url.query:
            # Not shown: it may hold a secret.
            yield _problem(
                f"{at}.endpoint", "expected a URL without user, password and query; a key goes by `key_env`"
            )
        elif url.scheme not in ("http", "https") or not url.netloc:
            yield _problem(
                f"{at}.endpoint",
                f"expected a URL as in http://localhost:8000/v1, found {spell(annotator.endpoint)}",
            )
    if annotator.key_env is not None and not re.fullmatch(r"[A-Z_][A-Z0-9_]*", annotator.key_env):
        yield _problem(
            f"{at}.key_env",
            "expected the name of an environment variable (capital letters, digits, _), as in MY_API_KEY; "
            "what was found is not shown, in case it is a key",
        )
    for key in sorted(set(annotator.parameters) & set(_OWN_KEYS)):
        yield _problem(
            f"{at}.parameters.{key}", f"`{key}` is not set here; expected further keys of the request"
        )
    try:
        json.dumps(annotator.parameters, allow_nan=False)
    except (TypeError, ValueError) as error:
        yield _problem(f"{at}.parameters", f"expected what JSON can hold: {error}")


def _strategy(at: str, strategy: Strategy, dimensions: Collection[str]) -> Iterator[Problem]:
    low, high = strategy.low, strategy.high
    if low >= high:
        yield _problem(f"{at}.high", f"expected more than low = {low}, found {high}")
    required = ("context", "response", *(["examples"] if strategy.examples else []))
    yield from template_problems(f"annotate.{at}.template", strategy.template, FIELDS, required)
    for index, example in enumerate(strategy.examples):
        if not low <= example.rating <= high:
            yield _problem(
                f"{at}.examples[{index}].rating",
                f"expected an integer from {low} to {high}, found {example.rating}",
            )
        if example.dimension is not None and example.dimension not in dimensions:
            yield _problem(
                f"{at}.examples[{index}].dimension", *_no_such("dimension", example.dimension, dimensions)
            )


def _repeated(at: str, names: list[str]) -> Iterator[Problem]:
    for index, name in enumerate(names):
        if name in names[:index]:
            yield _problem(f"{at}[{index}]", f"{spell(name)} is listed twice")


def _no_such(kind: str, name: str, known: Collection[str]) -> tuple[str, str]:
    return f"unknown {kind} {spell(name)}; expected {one_of(map(spell, known))}", nearest(name, known)


def _problem(at: str, message: str, hint: str = "") -> Problem:
    return Problem(None, f"annotate.{at}", message, hint)
