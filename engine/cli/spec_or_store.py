"""SPEC|STORE, the argument of all commands that read a store: one rule for where its results lie."""

from __future__ import annotations

import functools
import shlex
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from attrs import frozen

from engine.cli.parameters import AT, NEW_STORE, SET
from engine.errors import EngineError, UsageError
from engine.terminal import say
from specs.toml.paths import no_such
from specs.toml.text import STANDARD_INPUT
from store import StoreError
from store.backend.locate import place_of
from store.backend.location import Place, Root, is_url

if TYPE_CHECKING:
    from engine.planning.plan import Plan


@frozen
class Results:
    """Where results lie: a store, and the experiment of the spec that named it (None: all)."""

    store: Root
    experiment: str | None = None
    spec: str | None = None
    """As it was named, where a spec was."""
    overrides: tuple[str, ...] = ()
    """Of the spec."""

    @property
    def is_there(self) -> bool:
        """Whether the store's folder is there; a bucket is not asked."""
        place = place_of(self.store)
        return place.distant or Path(str(place)).is_dir()

    def check(self) -> Results:
        """Raise UsageError where the store is not there."""
        if self.is_there:
            return self
        if self.spec is None:
            raise UsageError(no_such(str(self.store), "spec or store"))
        command = shlex.join(["engine", "execute", self.spec])
        raise UsageError(f"{self.store}: nothing has been executed yet; `{command}` makes this store")

    def plan(self) -> Plan | None:
        """Give the plan of the spec; None where a store was named."""
        from engine.planning.from_spec import plan_from_spec

        return None if self.spec is None else plan_from_spec(self.spec, self.overrides, self.store)

    def told_apart(self) -> Results:
        """Say where the store's finished cells are others than the spec's, as far as it can be planned."""
        from engine.planning.other_form import other_form
        from specs import SpecError

        with suppress(EngineError, SpecError, StoreError, OSError):  # results can be read without all that
            if (planned := self.plan()) and (said := other_form(planned)):
                say(said, error=True)
        return self


def OF(command: Callable[..., Any]) -> Callable[..., Any]:  # noqa: N802 - an argument, with its options
    """Give a command `of`, the results of SPEC|STORE, which have to be there."""

    def checked(of: Results, **options: Any) -> Any:
        return command(of=of.check(), **options)

    return OF_ANY(functools.wraps(command)(checked))


def OF_CELLS(command: Callable[..., Any]) -> Callable[..., Any]:  # noqa: N802 - as above
    """Give a command that shows finished cells `of`, and say where they are others than those of SPEC."""

    def told(of: Results, **options: Any) -> Any:
        return command(of=of.told_apart(), **options)

    return OF(functools.wraps(command)(told))


def OF_ANY(command: Callable[..., Any]) -> Callable[..., Any]:  # noqa: N802 - as above
    """Give a command `of`, the results of SPEC|STORE, whether or not there are any yet."""

    @functools.wraps(command)
    def of_target(
        target: Path | Place, store: Root | None, overrides: tuple[str, ...], **options: Any
    ) -> Any:
        return command(of=results_of(target, store, overrides), **options)

    argument = click.argument("target", type=NEW_STORE, metavar="SPEC|STORE")
    return argument(SET(AT(of_target)))


def results_of(target: Path | Place, store: Root | None = None, overrides: tuple[str, ...] = ()) -> Results:
    """Give where the results of a spec or a store lie.

    Raises:
        UsageError: for `--store` or `--set` beside a store, which names no spec.
        SpecError: for a spec that cannot be read.
    """
    if not is_spec(target):
        check_alone(target, store, overrides)
        return Results(target)
    from specs import load_spec

    spec = load_spec(Path(str(target)), overrides)
    return Results(store or place_of(spec.store), spec.experiment.name, str(target), overrides)


def check_alone(target: Root, store: Root | None, overrides: tuple[str, ...]) -> None:
    """Raise UsageError for options that go with a spec, beside a store."""
    for option, given in (("--store", store), ("--set", overrides)):
        if given:
            raise UsageError(f"{option}: expected it beside a spec, found it beside the store {target}")


def is_spec(target: Any) -> bool:
    """Tell whether SPEC|STORE is a spec: a file, a pipe, or what is spelled like one."""
    if isinstance(target, Place) or is_url(str(target)):
        return False
    path = Path(target)
    return path == STANDARD_INPUT or (path.exists() and not path.is_dir()) or path.suffix == ".toml"
