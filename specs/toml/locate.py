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
    places: Places = {}
    lengths: dict[Path, int] = {}  # of the arrays of tables
    for node in _parsed(text):
        if node.type == "pair":
            _pair(node, (), places)
        elif node.type in ("table", "table_array_element"):
            _table(node, places, lengths)
    lines = text.split("\n")
    return {path: (line + 1, _column(lines[line], column)) for path, (line, column) in places.items()}


def doubled(text: str) -> dict[Path, list[int]]:
    """Every key and table that `text` writes more than once, with the lines, counted from 1, of all."""
    lines: dict[Path, list[int]] = {}
    lengths: dict[Path, int] = {}
    for node in _parsed(text):
        at: Path = ()
        written: list[tuple[Path, Node]] = []
        if node.type in ("table", "table_array_element"):
            at = _header(node, lengths)[-1]
            written = [(at, node)]
        pairs = [node] if node.type == "pair" else [child for child in node.children if child.type == "pair"]
        for pair in pairs:
            written += _keys_of(pair, at)
        for path, place in written:
            lines.setdefault(path, []).append(place.start_point.row + 1)
    return {path: places for path, places in lines.items() if len(places) > 1}


def _parsed(text: str) -> list[Node]:
    import tree_sitter_toml
    from tree_sitter import Language, Parser

    return list(Parser(Language(tree_sitter_toml.language())).parse(text.encode()).root_node.children)


def _keys_of(pair: Node, at: Path) -> list[tuple[Path, Node]]:
    """The key of a pair, and those of the inline tables that are its value."""
    key, _, value = (child for child in pair.children if child.type != "comment")
    path = (*at, *(name for name, _ in _segments(key)))
    inner = value.children if value.type == "inline_table" else ()
    return [(path, key), *(entry for item in inner if item.type == "pair" for entry in _keys_of(item, path))]


def locate(places: Places, path: Path) -> tuple[int, int] | None:
    """Where `path` is written; for what is not written, the table that should have held it."""
    while path and path not in places:
        path = path[:-1]
    return places.get(path)


def _column(line: str, offset: int) -> int:
    """tree-sitter counts bytes; people count characters."""
    return len(line.encode()[:offset].decode(errors="ignore")) + 1


def _header(node: Node, lengths: dict[Path, int]) -> list[Path]:
    """The path of each part of a table's header, and last that of the table, in an array with its index."""
    paths: list[Path] = []
    path: Path = ()
    keys = _segments(next(child for child in node.children if child.type in _KEYS))
    for i_key, (name, _) in enumerate(keys):
        path = (*path, name)
        paths.append(path)
        if node.type == "table_array_element" and i_key == len(keys) - 1:
            lengths[path] = lengths.get(path, 0) + 1
        if path in lengths:  # what follows belongs to the array's newest table
            path = (*path, lengths[path] - 1)
    return [*paths, path]


def _table(node: Node, places: Places, lengths: dict[Path, int]) -> None:
    *parts, path = _header(node, lengths)
    for part in parts:
        places.setdefault(part, _start(node))
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
