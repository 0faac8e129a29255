"""Every file of a store, damaged in every way, and every command that reads or mends it.

The answer is the undisturbed one, or one sentence with exit code 1; `verify` finds the damage; after
`verify --fix` and `execute` the store is the undisturbed one again, to the bit. A drawn part runs in the
suite; ABLATION_ENGINE_MUTATIONS is the number drawn, `all`, or a part of all such as `1-400`.
"""

from __future__ import annotations

import os
import random
import re
import shutil
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import torch
from children import assert_same, contents
from commands import command
from small_study import EVERY_STAGE, small_spec

import store
from store import StoreError

DRAWN = os.environ.get("ABLATION_ENGINE_MUTATIONS", "8")
OUTPUTS = ("figures", "report.html")  # what commands write anew


class Study(NamedTuple):
    """A finished study: what its store holds, and what every command says of it."""

    spec: Path
    root: Path
    whole: Path  # a copy of the store that stays as it is
    expected: dict[str, object]
    said: dict[str, str]
    read: dict[str, np.ndarray]


def readers(root: Path) -> dict[str, tuple[object, str]]:
    """Run every command that reads a store; give exit code and what it said or wrote."""
    page, tables = root.parent / "page.html", root.parent / "tables"
    shutil.rmtree(tables, ignore_errors=True)
    page.unlink(missing_ok=True)
    said = {
        "status": command("status", root),
        "results": command("results", root),
        "show": command("show", root, "--cell", "target=label"),
        "report": command("report", root, "-o", page),
        "export": command("export", root, "--to", "csv", "-o", tables),
    }
    if said["report"][0] == 0:
        said["report"] = 0, re.sub(r'"written":"[^"]*"', "", page.read_text())
    if said["export"][0] == 0:
        files = sorted(path for path in tables.rglob("*") if path.is_file())
        said["export"] = 0, "".join(f"{path.name}\n{path.read_text()}" for path in files)
    return said


def values(root: Path) -> dict[str, np.ndarray]:
    """Read all that `open_store` gives, coordinates included."""
    return {
        f"{node.path}/{name}": np.asarray(variable.values)
        for node in store.open_store(root).subtree
        for name, variable in node.variables.items()
        if name != "cell"
    }


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path, rated_file: Path) -> Study:
    """Two cells, trained, evaluated, probed and intervened in."""
    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("mutations")
    spec = small_spec(folder, tiny_model, rated_file, EVERY_STAGE)
    spec.write_text(spec.read_text().replace("seeds = [0, 1]", "seeds = [0]"))
    code, output = command("execute", spec)
    assert code == 0, output
    root, whole = folder / "store", folder / "whole"
    said = readers(root)
    assert all(code == 0 for code, _ in said.values()), said
    shutil.copytree(root, whole)
    texts = {name: text for name, (_, text) in said.items()}
    return Study(spec, root, whole, contents(root), texts, values(root))


def _flip(path: Path, draw: random.Random) -> None:
    content = bytearray(path.read_bytes())
    content[draw.randrange(len(content))] ^= 1 << draw.randrange(8)
    path.write_bytes(content)


def _truncate(path: Path, draw: random.Random) -> None:
    os.truncate(path, draw.randrange(1, path.stat().st_size))


def _empty(path: Path, draw: random.Random) -> None:
    path.write_bytes(b"")


def _delete(path: Path, draw: random.Random) -> None:
    path.unlink()


def _folder(path: Path, draw: random.Random) -> None:
    path.unlink()
    path.mkdir()


def _link(path: Path, draw: random.Random) -> None:
    path.unlink()
    path.symlink_to("nowhere")


def _json(path: Path, draw: random.Random) -> None:
    path.write_text(draw.choice(["[]", "{}", "null", "7", '"text"', '{"layout": 2}', '{"cells": []}']))


HOW: dict[str, Callable[[Path, random.Random], None]] = {
    "bit flip": _flip, "truncate": _truncate, "empty": _empty, "delete": _delete,
    "folder": _folder, "link": _link, "other JSON": _json,
}  # fmt: skip


def mutations(whole: Path) -> list[tuple[str, str]]:
    """Give every file of the store, and every way in which it can be damaged."""
    found = []
    for path in sorted(whole.rglob("*")):
        name = path.relative_to(whole).as_posix()
        if not path.is_file() or name.startswith(OUTPUTS):
            continue
        for how in HOW:
            if (name, how) == (".lock", "delete"):  # it is made where it is needed
                continue
            small = path.stat().st_size < 2 and how in ("bit flip", "truncate", "empty")
            if not small and (how != "other JSON" or path.suffix == ".json"):
                found.append((name, how))
    return found


def one_sentence(text: str) -> bool:
    """Tell whether output ends with one error on one line."""
    return text.count("error: ") == 1 and text.rstrip().splitlines()[-1].startswith("error: ")


def trouble(study: Study, name: str, how: str) -> list[str]:
    """Damage one file; give what is wrong with the answers."""
    root = study.root
    shutil.rmtree(root)
    shutil.copytree(study.whole, root, symlinks=True)
    HOW[how](root / name, random.Random(f"{name} {how}"))
    found = []

    def note(what: str, said: object) -> None:
        found.append(f"{name}, {how}: {what}: {str(said)[-700:]}")

    for reader, (code, text) in readers(root).items():
        if isinstance(code, BaseException) or "Traceback" in text:
            note(f"{reader} TRACEBACK", f"{code!r} {text}")
        elif code == 0 and text != study.said[reader]:
            note(f"{reader} VALUE", text)
        elif code not in (0, 1):
            note(f"{reader} CODE", f"{code} {text}")
        elif code == 1 and not one_sentence(text):
            note(f"{reader} SENTENCE", text)
    try:
        read = values(root)
        assert read.keys() == study.read.keys()
        for own, value in read.items():
            np.testing.assert_array_equal(value, study.read[own], err_msg=own)
    except StoreError as error:
        if "\n" in str(error):
            note("open_store SENTENCE", error)
    except AssertionError as error:
        note("open_store VALUE", error)
    except Exception as error:  # what no reader may let through
        note("open_store TRACEBACK", repr(error))
    code, text = command("verify", root)
    if code != 1 or "Traceback" in text:
        note("verify", f"{code!r} {text}")
    code, fixed = command("verify", root, "--fix")
    if code != 1:
        note("verify --fix", f"{code!r} {fixed}")
    code, text = command("execute", study.spec)
    if code != 0:
        note("execute", f"{code!r} {fixed} {text}")
    try:
        assert_same(contents(root), study.expected)
    except Exception as error:  # as above
        note("afterwards VALUE", f"{error!r} {fixed}")
    code, text = command("verify", root)
    if code != 0:
        note("verify afterwards", f"{code!r} {fixed} {text}")
    return found


def part(chosen: list[tuple[str, str]]) -> list[tuple[str, str]]:
    """Give the inputs that ABLATION_ENGINE_MUTATIONS asks for, in an order that parts share."""
    shuffled = random.Random(11).sample(chosen, len(chosen))
    if DRAWN == "all":
        return shuffled
    first, dash, last = DRAWN.partition("-")
    return shuffled[int(first) - 1 : int(last)] if dash else shuffled[: int(DRAWN)]


@pytest.mark.timeout(600 if DRAWN.isdecimal() else 36_000)
def test_no_damage_gives_a_wrong_value_or_a_traceback(study: Study) -> None:
    everything = mutations(study.whole)
    chosen = part(everything)
    wrong: list[str] = []
    kinds: Counter[str] = Counter()
    for name, how in chosen:
        wrong += (found := trouble(study, name, how))
        kinds[how] += 1
        if not DRAWN.isdecimal():
            print(name, how, "wrong" if found else "right", *found, sep="  ", flush=True)  # noqa: T201
    print(f"{len(chosen)} of {len(everything)} inputs ({dict(kinds)}), {len(wrong)} wrong")  # noqa: T201
    assert not wrong, "\n".join(wrong)
