"""Templates of text: which fields they may have, and what keeps one from being filled in."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from string import Formatter

from specs.common.spelling import nearest, one_of
from specs.errors import Problem


def template_problems(
    key: str, template: str, known: Collection[str], required: Iterable[str] = ()
) -> Iterator[Problem]:
    """Yield unknown, decorated and missing fields, and braces that belong to none."""
    try:
        parts = [part for part in Formatter().parse(template) if part[1] is not None]
    except ValueError as error:
        yield Problem(None, key, f"not a template: {error}; a brace that is no field is written twice")
        return
    names = {str(name) for _, name, _, _ in parts}
    for unknown in sorted(names - set(known)):
        message = f"unknown field {{{unknown}}}; expected {one_of(known)} in braces"
        yield Problem(None, key, message, nearest(unknown, known))
    for _, name, form, conversion in parts:
        if name in known and (form or conversion):
            written_field = f"{name}{'!' + conversion if conversion else ''}{':' + form if form else ''}"
            yield Problem(None, key, f"expected the field alone, {{{name}}}; found {{{written_field}}}")
    for field in required:
        if field not in names:
            yield Problem(None, key, f"expected the field {{{field}}}, found none")
