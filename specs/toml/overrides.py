"""Arguments that override keys: `KEY=VALUE`, as `--set` takes it, and `--unset KEY`."""

from __future__ import annotations

import tomllib
from collections.abc import Sequence
from typing import Any

from specs.errors import Problem
from specs.toml import keys
from specs.toml.parse import parse, words
from specs.toml.unset import UNSET

TAKES_BACK = "--unset "  # what an argument that takes a key back begins with


def read_overrides(overrides: Sequence[str]) -> tuple[dict[str, Any], dict[keys.Path, str], list[Problem]]:
    """What arguments change, which one sets which key, as it was typed, and those that cannot be read."""
    changes: dict[str, Any] = {}
    arguments: dict[keys.Path, str] = {}
    problems: list[Problem] = []
    for argument in overrides:
        typed = argument if argument.startswith(TAKES_BACK) else f"--set {argument}"
        try:
            key, value = _parsed(argument)
        except ValueError as error:
            problems.append(Problem(None, "", f"{typed}: {error}"))
        else:
            arguments[key] = typed
            changes = keys.merge(changes, keys.nest(key, value))
    return changes, arguments, problems


def _parsed(argument: str) -> tuple[keys.Path, Any]:
    if argument.startswith(TAKES_BACK):
        return _path(argument.removeprefix(TAKES_BACK).strip()), UNSET
    key, equals, text = (part.strip() for part in argument.partition("="))
    if not equals or not key:
        raise ValueError("expected KEY=VALUE, as in train.lr=1e-4")
    path = _path(key)
    if text == "null":  # which TOML does not have
        return path, UNSET
    try:
        parsed = parse(f"value = {text}")
    except tomllib.TOMLDecodeError as error:
        if not text or text[0] in "[{\"'":
            raise ValueError(f"not a TOML value: {words(error)}") from None
        return path, text  # a bare word: quotes would be lost to the shell anyway
    return path, parsed["value"] if len(parsed) == 1 else text


def _path(key: str) -> keys.Path:
    try:
        path = keys.split(key)
    except ValueError:
        raise ValueError(f"expected a key, as in train.lr, found {key!r}") from None
    if path[0] == "extends" or any(isinstance(part, int) for part in path):
        raise ValueError(f"`{key}` cannot be set from outside a file")
    return path
