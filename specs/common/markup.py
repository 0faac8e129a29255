"""Small pieces of HTML for notebooks: text is escaped, and styles stand in the elements."""

from __future__ import annotations

import html
from collections.abc import Iterable, Mapping, Sequence

# Each state's colour and sign, so that none rests on colour alone; both themes show them.
STATES: Mapping[str, tuple[str, str]] = {
    "done": ("#2a8f6d", "✓"),
    "running": ("#2b7bbb", "▸"),
    "pending": ("#8a919c", "·"),
    "failed": ("#c2410c", "✕"),
}
_CELL = "text-align:left; padding:0.15em 0.9em 0.15em 0; vertical-align:top"
_QUIET = "opacity:0.7; font-size:0.9em"


class Markup(str):
    """A text that is HTML already."""

    __slots__ = ()


def element(name: str, *children: object, **attributes: object) -> Markup:
    """Give an element; children that are no markup are text."""
    written = "".join(
        f' {key.rstrip("_").replace("_", "-")}="{html.escape(str(value))}"'
        for key, value in attributes.items()
        if value is not None
    )
    inside = "".join(child if isinstance(child, Markup) else html.escape(str(child)) for child in children)
    return Markup(f"<{name}{written}>{inside}</{name}>")


def quiet(*children: object) -> Markup:
    """Give a paragraph in small, pale letters."""
    return element("p", *children, style=f"{_QUIET}; margin:0.2em 0")


def lines(text: str) -> Markup:
    """Give a text with its line breaks."""
    return element("span", text, style="white-space:pre-wrap")


def table(header: Sequence[object], rows: Iterable[Sequence[object]], caption: str = "") -> Markup:
    """Give a table; the first cell of a row names it."""
    head = element("tr", *(element("th", title, scope="col", style=_CELL) for title in header))
    body = [
        element(
            "tr",
            *(
                element("td" if place else "th", cell, style=_CELL, scope=None if place else "row")
                for place, cell in enumerate(row)
            ),
        )
        for row in rows
    ]
    title = [element("caption", caption, style=f"{_QUIET}; text-align:left")] if caption else []
    return element("table", *title, element("thead", head), element("tbody", *body))


def state(name: str, title: str = "") -> Markup:
    """Give the sign of a state, in its colour."""
    colour, sign = STATES.get(name, STATES["pending"])
    style = f"color:{colour}; font-weight:bold; padding-right:0.25em"
    return element("span", sign, style=style, title=title or name, role="img", aria_label=title or name)


def counted(states: Iterable[str]) -> Markup:
    """Give how many are in each state, as `✓ 3 done  · 2 pending`."""
    listed = list(states)
    parts = [
        element("span", state(name), f"{listed.count(name)} {name}", style="padding-right:1em")
        for name in STATES
        if name in listed
    ]
    return element("span", *parts)


def sparkline(
    values: Sequence[float], low: float, high: float, title: str, width: int = 120, height: int = 28
) -> Markup:
    """Give a small line of values over their places, on a scale that others share."""
    span = (high - low) or 1.0
    step = (width - 4) / max(1, len(values) - 1)
    points = " ".join(
        f"{2 + step * place:.1f},{height - 2 - (height - 4) * (value - low) / span:.1f}"
        for place, value in enumerate(values)
        if value == value  # not NaN
    )
    line = element("polyline", points=points, fill="none", stroke="currentColor", stroke_width="1.5")
    return element(
        "svg", line, width=width, height=height, viewBox=f"0 0 {width} {height}", role="img", aria_label=title
    )
