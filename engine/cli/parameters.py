"""Arguments that commands share; a store is named by a folder, or by the URL of a place in a bucket."""

from __future__ import annotations

import math
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click
from attrs import frozen
from click.shell_completion import CompletionItem

from engine.errors import UsageError
from specs.toml.text import STANDARD_INPUT
from store import StoreError
from store.backend.locate import place_of
from store.backend.location import Place, Root, is_url

if TYPE_CHECKING:
    Base = click.ParamType[Any]
else:
    Base = click.ParamType  # click 8.1 knows no type parameters


Command = TypeVar("Command", bound=Callable[..., Any])


class StoreParameter(Base):
    """A store by its folder or URL."""

    name = "store"

    def __init__(self, *, exists: bool) -> None:
        self._folder = click.Path(path_type=Path, exists=exists, file_okay=not exists)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Place | Path:
        """Give the place of a URL, and a folder as click does."""
        if not (isinstance(value, str) and is_url(value)):
            return Path(self._folder.convert(value, param, ctx))
        try:
            return place_of(value)
        except StoreError as error:
            self.fail(str(error), param, ctx)

    def shell_complete(
        self, ctx: click.Context, param: click.Parameter, incomplete: str
    ) -> list[CompletionItem]:
        """Let the shell complete files and folders."""
        return [CompletionItem(incomplete, type="file")]


class FiniteRange(click.FloatRange):
    """A number within bounds; "nan" and "inf", which pass for numbers, are none."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """Give the number, as click does."""
        number = float(super().convert(value, param, ctx))
        if not math.isfinite(number):
            self.fail(
                f"{value} is no finite number; expected one in the range {self._describe_range()}", param, ctx
            )
        return number


@frozen
class Results:
    """Where results lie: a store, and the experiment of the spec that named it (None: all)."""

    store: Root
    experiment: str | None = None


class ResultsParameter(StoreParameter):
    """A store that is there, by its folder, its URL, or a spec whose results it holds."""

    name = "spec|store"

    def __init__(self) -> None:
        super().__init__(exists=True)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Give the store; UsageError for a spec that has none yet, SpecError for one that cannot be read."""
        if not is_spec(value):
            return Results(super().convert(value, param, ctx))
        from specs import load_spec

        spec = load_spec(Path(value))
        store = place_of(spec.store)
        if not store.distant and not Path(str(store)).is_dir():
            command = shlex.join(["engine", "execute", str(value)])
            raise UsageError(f"{store}: nothing has been executed yet; `{command}` makes this store")
        return Results(store, spec.experiment.name)


def is_spec(value: Any) -> bool:
    """Tell whether SPEC|STORE is a spec: a file, a pipe, or what is spelled like one."""
    if isinstance(value, (Place, Results)) or is_url(str(value)):
        return False
    path = Path(value)
    return path == STANDARD_INPUT or (path.exists() and not path.is_dir()) or path.suffix == ".toml"


STORE = StoreParameter(exists=True)
NEW_STORE = StoreParameter(exists=False)
RESULTS = ResultsParameter()
AT = click.option("--store", type=NEW_STORE, help="Folder or URL of the store.")
ONLY = click.option("--only", multiple=True, metavar="FACTOR=LEVEL", help="Only these cells; repeatable.")
FAILED = click.option("--failed", is_flag=True, help="Only cells that have failed.")
PENDING = click.option("--pending", is_flag=True, help="Only cells that are not done.")
EXPERIMENT = click.option("--experiment", metavar="NAME", help="This experiment alone.")
SPEC = click.argument("spec", type=click.Path(path_type=Path))


def _unset(ctx: click.Context, _param: click.Parameter, keys: tuple[str, ...]) -> None:
    ctx.meta["unset"] = tuple(f"--unset {key}" for key in keys)


def _with_unset(ctx: click.Context, _param: click.Parameter, overrides: tuple[str, ...]) -> tuple[str, ...]:
    return (*overrides, *ctx.meta.get("unset", ()))


def SET(command: Command) -> Command:  # noqa: N802 - one of the arguments above, of two options
    """Give a command `--set` and `--unset`, both in its `overrides`."""
    for option in (
        click.option(
            "--unset",
            multiple=True,
            metavar="KEY",
            help="Take a key back, so that its default holds; repeatable.",
            callback=_unset,
            expose_value=False,
            is_eager=True,
        ),
        click.option(
            "--set",
            "overrides",
            multiple=True,
            metavar="KEY=VALUE",
            help="Override a key of the spec; repeatable.",
            callback=_with_unset,
        ),
    ):
        command = option(command)
    return command
