"""Key paths to places in a TOML text. Only errors need this, so only they pay for the parser."""

from __future__ import annotations

from typing import TYPE_CHECKING

from specs.toml.keys import Path, unquote

if TYPE_CHECKING:
    from tree_sitter import Node

Places = dict[Path, tuple[int, int]]

_KEYS = ("bare_key", "quoted_key", "dotted_key")


def positions(text: str) -> Places:
    """Line and column, counted from 1, of every key, table and array item in `text`."""
    import tree_sitter_toml
    from tree_sitter import Language, Parser

    tree = Parser(Language(tree_sitter_toml.language())).parse(text.encode())
    places: Places = {}
    lengths: dict[Path, int] = {}  # of the arrays of tables
    for node in tree.root_node.children:
        if node.type == "pair":
            _pair(node, (), places)
        elif node.type in ("table", "table_array_element"):
            _table(node, places, lengths)
    lines = text.split("\n")
    return {path: (line + 1, _column(lines[line], column)) for path, (line, column) in places.items()}


def locate(places: Places, path: Path) -> tuple[int, int] | None:
    """Where `path` is written; for what is not written, the table that should have held it."""
    while path and path not in places:
        path = path[:-1]
    return places.get(path)


def _column(line: str, offset: int) -> int:
    """tree-sitter counts bytes; people count characters."""
    return len(line.encode()[:offset].decode(errors="ignore")) + 1


def _table(node: Node, places: Places, lengths: dict[Path, int]) -> None:
    path: Path = ()
    keys = _segments(next(child for child in node.children if child.type in _KEYS))
    for i_key, (name, _) in enumerate(keys):
        path = (*path, name)
        places.setdefault(path, _start(node))
        if node.type == "table_array_element" and i_key == len(keys) - 1:
            lengths[path] = lengths.get(path, 0) + 1
        if path in lengths:  # what follows belongs to the array's newest table
            path = (*path, lengths[path] - 1)
    places[path] = _start(node)
    for child in node.children:
        if child.type == "pair":
            _pair(child, path, places)


def _pair(node: Node, at: Path, places: Places) -> None:
    key, _, value = (child for child in node.children if child.type != "comment")
    for name, segment in _segments(key):
        at = (*at, name)
        places.setdefault(at, _start(segment))
    _value(value, at, places)


def _value(node: Node, at: Path, places: Places) -> None:
    items = [child for child in node.children if child.is_named and child.type != "comment"]
    if node.type == "inline_table":
        for item in items:
            _pair(item, at, places)
    elif node.type == "array":
        for index, item in enumerate(items):
            places[(*at, index)] = _start(item)
            _value(item, (*at, index), places)


def _segments(key: Node) -> list[tuple[str, Node]]:
    if key.type == "dotted_key":
        return [segment for child in key.children if child.type in _KEYS for segment in _segments(child)]
    return [(unquote((key.text or b"").decode()), key)]


def _start(node: Node) -> tuple[int, int]:
    return node.start_point.row, node.start_point.column
