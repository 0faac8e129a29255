"""One example in a terminal: what every layer of one cell predicts, as a heat map of characters."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import xarray as xr
from rich.style import Style
from rich.table import Table
from rich.text import Text

from engine.errors import UsageError
from engine.planning.levels import describe, has_levels, known_levels, named_levels
from engine.terminal import joined, styled
from specs.common.spelling import hint
from store import open_store
from store.analysis.nodes import first_lens, stage_nodes
from store.backend.location import Root
from store.ledger.levels import level_text
from store.ledger.vocabulary import probed_vocabularies
from store.tokens import token_text

BAR = "▏▎▍▌▋▊▉█"
BAR_WIDTH = 8
TOKEN_WIDTH = 14
MAX_WATCHED = 6
COLUMN_WIDTH = 16  # of a position, where several stand side by side
# From light to dark, each with a text colour that stands out on it.
SHADES = ("#f7fbff", "#d6e6f4", "#abd0e6", "#6aaed6", "#3787c0", "#105ba4")


def show(
    root: Root,
    cell: Sequence[str],
    example: str | None,
    experiment: str | None,
    position: str | None,
    width: int = 80,
) -> Iterator[Table | Text]:
    """Yield a heading and the layers of one cell and example, the last layer on top.

    cell: FACTOR=LEVEL, as many as single out one cell. example: an id, by default the first. With one watch
    position (or `position`) ranks of the watched tokens stand beside entropy and top token; several stand
    side by side. Of several lenses the first is read. UsageError for what is not there, or not single.
    """
    node = _experiment(root, experiment)
    probe, levels = _one_cell(node, cell)
    ids = [str(name) for name in probe["example"].values]
    chosen = _known("--example", example, ids) if example is not None else ids[0]
    shown = probe.isel(example=ids.index(chosen))
    known = probed_vocabularies(root, str(probe.attrs.get("vocabulary", "")))
    texts = known[0] if len(known) == 1 else None
    yield styled(f"{describe(levels)}; example {chosen}, true label {shown['gold'].item()}")
    positions = [str(name) for name in shown["position"].values]
    if position is not None:
        positions = [_known("--position", position, positions)]
    if len(positions) == 1 or "entropy" not in shown:
        for name in positions:
            yield _detail(shown.sel(position=name), name, texts)
        return
    fit = max(1, (width - 6) // (COLUMN_WIDTH + 1))
    for start in range(0, len(positions), fit):
        yield _side_by_side(shown.sel(position=positions[start : start + fit]), texts)


def _experiment(root: Root, name: str | None) -> xr.DataTree:
    tree = open_store(root, name)
    known = list(tree.children)
    if len(known) != 1:
        raise UsageError(f"{root}: expected --experiment with one of {', '.join(known) or 'none'}")
    return tree.children[known[0]]


def _known(option: str, given: str, known: list[str]) -> str:
    if given not in known:
        raise UsageError(f"{option} {given}: the store has none of this name{hint(given, known)}")
    return given


def _one_cell(node: xr.DataTree, wanted: Sequence[str]) -> tuple[xr.Dataset, dict[str, Any]]:
    """Give the probe data of the one cell on the wanted levels, and all its levels."""
    if "probe" not in node.children:
        raise UsageError(f"{node.name}: expected a cell that has been probed, found none")
    probed: list[tuple[xr.Dataset, int, dict[str, Any]]] = []
    for dataset in map(first_lens, stage_nodes(node, "probe").values()):
        names = [str(name) for name in dataset.indexes["cell"].names]
        for number, key in enumerate(dataset.indexes["cell"]):
            plain = (level.item() if isinstance(level, np.generic) else level for level in key)
            probed.append((dataset, number, dict(zip(names, plain, strict=True))))
    known = known_levels(levels for *_, levels in probed)
    named = named_levels(wanted, known, "--cell")
    matching = [(dataset, number, levels) for dataset, number, levels in probed if has_levels(levels, named)]
    if len(matching) != 1:
        single = {name for name, levels in named.items() if len(levels) == 1}
        left = {name: of for name, of in known.items() if name not in single and len(of) > 1}
        also = " and ".join(f"{name} ({', '.join(map(level_text, of))})" for name, of in left.items())
        raise UsageError(f"--cell: expected one cell, found {len(matching)}; name {also or 'other levels'}")
    ((dataset, number, levels),) = matching
    return dataset.isel(cell=number), levels


def _detail(shown: xr.Dataset, position: str, texts: list[str] | None) -> Table:
    """Give one position: entropy with a bar, the top token with its probability, ranks of watched tokens."""
    watched = [str(text) for text in shown["watch"].values][:MAX_WATCHED] if "watch_rank" in shown else []
    table = Table(title=f"position {position}", box=None, pad_edge=False, padding=(0, 1))
    table.add_column("layer", justify="right")
    if "entropy" in shown:
        table.add_column("entropy (nat)", no_wrap=True, width=6 + BAR_WIDTH)
    if "top_id" in shown:
        table.add_column("top token", no_wrap=True, width=TOKEN_WIDTH)
        table.add_column("p", justify="right")
    for text in watched:
        table.add_column(joined(["rank", text], "\n"), justify="right")
    most = float(shown["entropy"].max()) if "entropy" in shown else 1.0
    for number in reversed(range(shown.sizes["layer"])):
        layer = shown.isel(layer=number)
        row = [Text(str(layer["layer"].item()))]
        if "entropy" in shown:
            row.append(_shaded(float(layer["entropy"]), most))
        if "top_id" in shown:
            top = layer.isel(top=0)
            row.append(Text(token_text(int(top["top_id"]), texts)))
            row.append(Text(f"{float(np.exp(top['top_logprob'])):.2f}"))
        if watched:
            ranks = layer["watch_rank"].values[: len(watched)]
            row += [Text(f"{int(rank):,}", "bold" if rank == 0 else "") for rank in ranks]
        table.add_row(*row)
    return table


def _side_by_side(shown: xr.Dataset, texts: list[str] | None) -> Table:
    """Give several positions: entropy and top token of each."""
    table = Table(box=None, pad_edge=False, padding=(0, 1, 0, 0))
    table.add_column(joined(["", "layer"], "\n"), justify="right")
    for position in shown["position"].values:
        table.add_column(joined([str(position), " nat  top token"], "\n"), no_wrap=True, width=COLUMN_WIDTH)
    most = float(shown["entropy"].max())
    for number in reversed(range(shown.sizes["layer"])):
        row = [Text(str(shown["layer"].values[number]))]
        for place in range(shown.sizes["position"]):
            one = shown.isel(layer=number, position=place)
            word = token_text(int(one["top_id"][0]), texts) if "top_id" in shown else ""
            value = float(one["entropy"])
            text = f"{value:5.2f} {word}"[:COLUMN_WIDTH].ljust(COLUMN_WIDTH)
            row.append(Text(text, _shade(value, most)))
        table.add_row(*row)
    return table


def _shaded(value: float, most: float) -> Text:
    """Give a number and its bar, which says without colour what the shade says with it."""
    eighths = round(BAR_WIDTH * 8 * value / most) if most > 0 and np.isfinite(value) else 0
    bar = BAR[-1] * (eighths // 8) + (BAR[eighths % 8 - 1] if eighths % 8 else "")
    return Text(f"{value:5.2f} ", _shade(value, most)) + Text(bar.ljust(BAR_WIDTH))


def _shade(value: float, most: float) -> Style:
    if not np.isfinite(value) or most <= 0:
        return Style()
    number = min(len(SHADES) - 1, int(len(SHADES) * value / most))
    return Style(color="black" if number < 4 else "white", bgcolor=SHADES[number])
