"""What a file with tasks of Inspect holds, told without running it: its tasks, and what it reads."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

from engine.errors import DataError
from store.backend.records import hash_file

LONGEST = 250  # letters of a text that may be a file's name
KEY = "evaluate.inspect.tasks"


def tasks_of(file: Path) -> list[str]:
    """Name the tasks of a file as Inspect finds them: functions under `@task`, or what that calls them."""
    functions = [node for node in _parsed(file).body if isinstance(node, ast.FunctionDef)]
    return [name for node in functions for name in _task_names(node)]


def _task_names(function: ast.FunctionDef) -> Iterator[str]:
    for decorator in function.decorator_list:
        call = decorator if isinstance(decorator, ast.Call) else None
        called = call.func if call else decorator
        if isinstance(called, ast.Name) and called.id == "task":
            named = {word.arg: word.value for word in (call.keywords if call else ())}
            match named.get("name"):
                case ast.Constant(value=str(name)):
                    yield name
                case _:
                    yield function.name


def content_of(file: Path) -> dict[str, str]:
    """Hash a file and what it reads, by names relative to it.

    That is what lies beside or below it and is named in it in full: modules that it imports, with what these
    read, and files and folders whose paths stand in it as texts.
    """
    waiting, seen = [file], dict[Path, str]()
    while waiting:
        path = waiting.pop()
        if path in seen:
            continue
        seen[path] = hash_file(path)
        if path.suffix == ".py":
            waiting += _named_in(path)
    return {_relative(path, file.parent): content for path, content in sorted(seen.items())}


def _relative(path: Path, folder: Path) -> str:
    return path.relative_to(folder).as_posix() if path.is_relative_to(folder) else path.as_posix()


def _named_in(file: Path) -> Iterator[Path]:
    """Yield the files that a module names."""
    for node in ast.walk(_parsed(file)):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield from _files(file.parent, node.value)
        elif isinstance(node, ast.Import):
            for alias in node.names:
                yield from _modules(file.parent, alias.name)
        elif isinstance(node, ast.ImportFrom):
            folder = file.parents[max(node.level - 1, 0)] if node.level <= len(file.parents) else file.parent
            for name in ("", *(alias.name for alias in node.names)):
                yield from _modules(folder, ".".join(filter(None, [node.module, name])))


def _modules(folder: Path, name: str) -> Iterator[Path]:
    """Yield the files of a module of this name in a folder."""
    place = folder.joinpath(*name.split(".")) if name else folder
    candidates = [place.with_suffix(".py")] if name else []
    yield from (path for path in (*candidates, place / "__init__.py") if path.is_file())


def _files(folder: Path, text: str) -> Iterator[Path]:
    """Yield the file of this path, or the files of the folder below this one."""
    if not text.strip("./ ") or len(text) > LONGEST or not text.isprintable():
        return
    path = folder / text
    try:
        if path.is_file():
            yield path
        elif path.is_dir() and path.resolve().is_relative_to(folder.resolve()):
            yield from (
                inner for inner in sorted(path.rglob("*")) if inner.is_file() and _is_kept(inner, path)
            )
    except OSError:  # a text that no file can be called
        return


def _is_kept(path: Path, folder: Path) -> bool:
    """Tell whether a file is none that Python or an editor made there."""
    return not any(part.startswith((".", "__pycache__")) for part in path.relative_to(folder).parts)


def _parsed(file: Path) -> ast.Module:
    try:
        return ast.parse(file.read_bytes())
    except (SyntaxError, ValueError) as error:
        line = f", line {error.lineno}" if isinstance(error, SyntaxError) and error.lineno else ""
        raise DataError(f"{KEY}: {file}{line}: found no Python ({error.args[0]})") from error
