"""The page: a template, its style, scripts and data in one HTML file that fetches nothing."""

import base64
import html
import json
import os
from hashlib import sha256
from importlib import resources
from pathlib import Path
from string import Template
from typing import Any

from specs.common.whole_files import named
from store.backend.locate import place_of
from store.backend.location import Root
from store.follow import Follow, ignored
from store.report.collect import collect

SCRIPTS = (
    "data.js", "dom.js", "address.js", "csv.js", "copying.js", "axes.js", "charts.js", "tables.js",
    "pins.js", "overview.js", "outcomes.js", "measures.js", "wordings.js", "layers.js", "interventions.js",
    "next_spec.js", "tuned.js", "along.js", "lens.js", "sections.js", "live.js", "report.js",
)  # fmt: skip


def write_report(
    root: Root, file: str | os.PathLike[str], experiment: str | None = None, *, follow: Follow = ignored
) -> Path:
    """Write the report of a store, or of one experiment in it, as one HTML file; return its path.

    `follow` is told of every section. StoreError when the store, or the experiment, is not there.
    """
    path = Path(file)
    path.parent.mkdir(parents=True, exist_ok=True)
    text = page(collect(root, experiment, follow))
    with named(path, path):
        path.write_text(text, "utf-8")
    return path


def keep_report(root: Root, experiment: str | None = None, *, follow: Follow = ignored) -> str:
    """Write the report into the store itself; return where it is."""
    place = place_of(root)
    place.write("report.html", page(collect(place, experiment, follow)).encode())
    return f"{place}/report.html"


def live_page(root: Root, state: str, experiment: str | None = None) -> str:
    """Return the page of a report that is served, and asks its server whether the store is as it shows it.

    Args:
        state: a text that changes with the store, as the server's `/state` gives it.
    """
    return page(collect(root, experiment) | {"live": state})


def page(data: dict[str, Any]) -> str:
    """Return the HTML of a report's data.

    The page's policy lets it load nothing, and run only the script that is hashed here: text from data could
    not run even if it came to stand where markup is read. A page that is served may ask its own server.
    """
    style = _template("report.css")
    script = f'"use strict";\n(() => {{\n{"".join(map(_template, SCRIPTS))}\n}})();\n'
    return Template(_template("report.html")).substitute(
        title=html.escape(_printable(f"{data['store']}: ablation report")),
        policy=f"default-src 'none'; style-src {_hash(style)}; script-src {_hash(script)}; "
        + "img-src blob:"  # of a figure's own copy
        + ("; connect-src 'self'" if "live" in data else ""),
        style=style,
        script=script,
        data=embedded(data),
    )


def embedded(data: Any) -> str:
    """Return JSON that is safe inside a script element: ASCII alone, and no "<" that could end it."""
    text = json.dumps(data, ensure_ascii=True, allow_nan=False, separators=(",", ":"))
    return text.replace("<", "\\u003c")


def _printable(text: str) -> str:
    """Return a text whose control characters, and bytes that were no text, are spelled: `\\x1b`."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text)


def _hash(text: str) -> str:
    return f"'sha256-{base64.b64encode(sha256(text.encode()).digest()).decode()}'"


def _template(name: str) -> str:
    return resources.files("store.report").joinpath("template", name).read_text("utf-8")
