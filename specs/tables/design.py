"""The tables of a spec that say which cells there are: factors, rules, contrasts."""

from __future__ import annotations

from typing import Annotated, Any

from attrs import field, frozen
from msgspec import Meta


@frozen(kw_only=True)
class Factor:
    """`[factors.NAME]`: one axis of the matrix, by named `levels` or by `path` and `values`."""

    levels: Annotated[
        dict[str, dict[str, Any]] | None,
        Meta(description="Level name → the keys it sets, as dotted paths or nested tables."),
    ] = None
    path: Annotated[str | None, Meta(description="The one key that this factor sets.")] = None
    values: Annotated[list[Any] | None, Meta(description="The values of `path`; each names its level.")] = (
        None
    )
    only_when: Annotated[
        dict[str, Any],
        Meta(description="Factor → level or levels; elsewhere this factor does not apply (level `-`)."),
    ] = field(factory=dict)


@frozen(kw_only=True)
class Rules:
    """`[rules]`: which combinations become cells."""

    exclude: Annotated[
        list[dict[str, Any]],
        Meta(description="Patterns (factor → level or levels) of cells to leave out."),
    ] = field(factory=list)
    include: Annotated[
        list[dict[str, Any]],
        Meta(description="Patterns of cells that stay in although an `exclude` names them."),
    ] = field(factory=list)
    zip: Annotated[list[list[str]], Meta(description="Factors that vary together, level by level.")] = field(
        factory=list
    )


@frozen(kw_only=True)
class Contrast:
    """`[[contrasts]]`: every level of a factor compared with its baseline, all else equal."""

    factor: Annotated[str, Meta(description="The factor that differs.")]
    baseline: Annotated[Any, Meta(description="Its baseline level.")]
    levels: Annotated[list[Any] | None, Meta(description="Levels to compare; default: all others.")] = None
