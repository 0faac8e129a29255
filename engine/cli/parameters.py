"""Arguments that commands share; a store is named by a folder, or by the URL of a place in a bucket."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from store import StoreError
from store.backend.locate import place_of
from store.backend.location import Place, is_url

if TYPE_CHECKING:
    Base = click.ParamType[Any]
else:
    Base = click.ParamType  # click 8.1 knows no type parameters


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
SPEC = click.argument("spec", type=click.Path(path_type=Path))
SET = click.option(
    "--set", "overrides", multiple=True, metavar="KEY=VALUE", help="Override a key of the spec; repeatable."
)
JSON = click.option("--json", "as_json", is_flag=True, help="Print JSON.")
