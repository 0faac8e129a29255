"""What a stage asks the store to hold: a family of equally shaped cells, without any array library."""

import json
import re
from collections.abc import Iterable
from functools import cached_property
from hashlib import blake2b
from typing import Any, Literal, get_args

from attrs import asdict, field, frozen

from store.errors import StoreError

DType = Literal["float32", "int32", "int16", "bool", "string"]
Value = str | int | float | bool

RESERVED = frozenset({"cell", "row", "statistic"})


def _plain(values: Iterable[Any]) -> tuple[Value, ...]:
    """Return array or sequence elements as Python values of one type (whole numbers join fractions)."""
    plain = tuple(value.item() if hasattr(value, "item") else value for value in values)
    types = {type(value) for value in plain}
    if types == {int, float}:
        return tuple(float(value) for value in plain)
    if len(types) > 1 or not types <= {str, int, float, bool}:
        kinds = ", ".join(sorted(kind.__name__ for kind in types))
        raise StoreError(f"coordinate values: expected all text, all numbers or all booleans, found {kinds}")
    return plain


@frozen
class Variable:
    """A named statistic of shape `dims`, the row of its cell left out; `dims[0]` is streamed."""

    name: str
    dims: tuple[str, ...] = field(converter=tuple[str, ...])
    dtype: DType
    units: str = ""
    long_name: str = ""


@frozen
class Coordinate:
    """Labels along `dim`: the dimension's own when `name == dim`, else auxiliary ones of equal length."""

    name: str
    dim: str
    values: tuple[Value, ...] = field(converter=_plain, repr=False)
    units: str = ""
    long_name: str = ""


@frozen
class Family:
    """The shape that the cells of one stage share: coordinates and variables along one streaming dim.

    Anything inconsistent raises StoreError that names the entry.
    """

    stage: str
    coordinates: tuple[Coordinate, ...] = field(converter=tuple[Coordinate, ...])
    variables: tuple[Variable, ...] = field(converter=tuple[Variable, ...])

    def __attrs_post_init__(self) -> None:
        _check_names(self)
        _check_coordinates(self)
        _check_variables(self)

    @property
    def sizes(self) -> dict[str, int]:
        """Length of every dimension, in the order of the coordinates."""
        return {c.dim: len(c.values) for c in self.coordinates if c.name == c.dim}

    @property
    def streaming_dim(self) -> str:
        """The first dimension of every variable, along which a cell is written batch by batch."""
        return self.variables[0].dims[0]

    @property
    def size(self) -> int:
        """Items along the streaming dimension."""
        return self.sizes[self.streaming_dim]

    @cached_property
    def key(self) -> str:
        """16 hex digits that identify all of this family: equal families, equal keys."""
        canonical = json.dumps(asdict(self), sort_keys=True, separators=(",", ":"))
        return blake2b(canonical.encode(), digest_size=8).hexdigest()

    @property
    def label(self) -> str:
        """Readable shape, such as example64-layer31-position2; two families can have the same."""
        return "-".join(f"{dim}{size}" for dim, size in self.sizes.items())


def _check_names(family: Family) -> None:
    named = [c.name for c in family.coordinates] + [v.name for v in family.variables]
    for name in [family.stage, *named]:
        if not re.fullmatch(r"[A-Za-z]\w*", name, re.ASCII):
            raise StoreError(f"{family.stage}: {name!r} must be a letter, then letters, digits or _")
    for name in named:
        if name in RESERVED:
            raise StoreError(f"{family.stage}: the name {name!r} is the store's own")
        if named.count(name) > 1:
            raise StoreError(f"{family.stage}: the name {name!r} is given {named.count(name)} times")


def _check_coordinates(family: Family) -> None:
    sizes = family.sizes
    for coordinate in family.coordinates:
        where, count = f"{family.stage}: coordinate {coordinate.name!r}", len(coordinate.values)
        if coordinate.dim not in sizes:
            raise StoreError(f"{where}: its dimension {coordinate.dim!r} has no coordinate of its own name")
        if count != sizes[coordinate.dim]:
            expected = sizes[coordinate.dim]
            raise StoreError(f"{where}: expected {expected} values along {coordinate.dim!r}, found {count}")
        if count == 0:
            raise StoreError(f"{where}: has no values")


def _check_variables(family: Family) -> None:
    if not family.variables:
        raise StoreError(f"{family.stage}: a family needs at least one variable")
    first = family.variables[0]
    for variable in family.variables:
        where = f"{family.stage}: variable {variable.name!r}"
        if variable.dtype not in get_args(DType):
            raise StoreError(f"{where}: expected one of {get_args(DType)}, found dtype {variable.dtype!r}")
        if not variable.dims or variable.dims[0] != first.dims[0]:
            raise StoreError(f"{where}: its first dimension is not {first.name!r}'s, found {variable.dims}")
        if len(set(variable.dims)) < len(variable.dims):
            raise StoreError(f"{where}: a dimension is repeated in {variable.dims}")
        for dim in variable.dims:
            if dim not in family.sizes:
                raise StoreError(f"{where}: dimension {dim!r} has no coordinate")
