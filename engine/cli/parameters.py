"""Arguments that commands share; a store is named by a folder, or by the URL of a place in a bucket."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click
from click.shell_completion import CompletionItem

from engine.errors import UsageError
from specs.toml.paths import no_such
from store import StoreError
from store.backend.locate import place_of
from store.backend.location import Place, is_url

if TYPE_CHECKING:
    Base = click.ParamType[Any]
else:
    Base = click.ParamType  # click 8.1 knows no type parameters


Command = TypeVar("Command", bound=Callable[..., Any])


class StoreParameter(Base):
    """A store by its folder or URL."""

    name = "store"

    def __init__(self, *, exists: bool) -> None:
        self._exists = exists
        self._folder = click.Path(path_type=Path, exists=exists, file_okay=not exists)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Place | Path:
        """Give the place of a URL, and a folder as click does."""
        if not (isinstance(value, str) and is_url(value)):
            if self._exists and not Path(value).exists():
                raise UsageError(no_such(value, self.name))
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


STORE = StoreParameter(exists=True)
NEW_STORE = StoreParameter(exists=False)
AT = click.option("--store", type=NEW_STORE, help="Folder or URL of the store; by default the spec's.")
LEVELS = "FACTOR=LEVEL,…"
ONLY = click.option(
    "--only", "--cell", "only", multiple=True, metavar=LEVELS,
    help="Only cells on these levels: target=a,b,seed=0 is a or b, with seed 0; repeatable.",
)  # fmt: skip
FAILED = click.option("--failed", is_flag=True, help="Only cells that have failed.")
PENDING = click.option("--pending", is_flag=True, help="Only cells that are not done.")
CELL = click.option(
    "--cell", "--only", "cell", multiple=True, metavar=LEVELS,
    help="The cell, by as many factors as single it out: target=a,seed=0.",
)  # fmt: skip
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
