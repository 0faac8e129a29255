"""The command in child processes that are forked with all imports done, so that a test can kill many."""

from __future__ import annotations

import json
import multiprocessing
import os
import runpy
import signal
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

import store
from store.analysis.nodes import with_cell_index

FORKS = multiprocessing.get_context("forkserver")
FORKS.set_forkserver_preload(
    [
        "children",
        "engine.cli.main",
        "engine.cli.terminal_display",
        "engine.cli.results",
        "engine.running.executors.worker",
        "engine.running.scheduler",
        "engine.stages.training.files",
        "transformers.models.llama.modeling_llama",
        "peft",
    ]
)
# What Python says before it changes a file; writes themselves fall between these moments.
EVENTS = {"open", "os.rename", "os.link", "os.remove", "os.mkdir", "os.rmdir", "shutil.rmtree"}


def start(folder: Path, *arguments: object, **options: Any) -> ForkServerProcess:
    """Start `engine` with its output in `folder/output`.

    Options: `before_event`, it dies before the n-th event in the store's folder, of those whose path holds
    `among`, or gets the signal `how` instead; `before_request`, it dies before the n-th request to a bucket;
    `patience`, how long it tries requests again; `environment`, added to its own; `deaths`, by stage at which
    operation it or a worker of it dies, counted in the folder `counts`: tests/dying says how.
    """
    words = [str(argument) for argument in arguments]
    process = FORKS.Process(target=_run, args=(folder, words), kwargs=options)
    process.start()
    return process


def run(folder: Path, *arguments: object, **options: Any) -> str:
    """Run `engine` to its good end; give its output."""
    process = start(folder, *arguments, **options)
    process.join(300)
    output = (folder / "output").read_text()
    assert process.exitcode == 0, output
    return output


def _run(
    folder: Path,
    arguments: list[str],
    *,
    before_event: int | None = None,
    among: str = "",
    how: signal.Signals = signal.SIGKILL,
    before_request: int | None = None,
    patience: float | None = None,
    environment: Mapping[str, str] | None = None,
    deaths: Mapping[str, tuple[int, str]] | None = None,
    counts: Path | None = None,
) -> None:
    signal.signal(signal.SIGHUP, signal.SIG_DFL)  # whatever the tests run under, such as nohup
    os.environ.update(environment or {})
    if environment:
        _to_a_bucket(before_request, patience)
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "output").open("w") as output:
        for descriptor in (1, 2):
            os.dup2(output.fileno(), descriptor)
    os.environ["COLUMNS"] = "200"
    sys.argv = ["engine", *arguments]
    import torch

    torch.set_num_threads(1)  # another number may sum in another order
    sys.addaudithook(_counting(folder, before_event, among, how))
    if counts is not None:
        settings = {"root": f"{folder}/store", "counts": str(counts), "deaths": deaths, "parent": os.getpid()}
        os.environ["ABLATION_TEST_DEATHS"] = json.dumps(settings)
        dying = Path(__file__).parent / "dying"
        os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [os.environ.get("PYTHONPATH"), str(dying)]))
        runpy.run_path(str(dying / "sitecustomize.py"))
    from engine.cli.main import main

    main()


def _counting(
    folder: Path, last: int | None, among: str, how: signal.Signals
) -> Callable[[str, tuple[object, ...]], None]:
    """Count what happens to files of the store `among` all; at the `last` event the process gets a signal."""
    count, inside = 0, f"{folder}/store"

    def hook(event: str, arguments: tuple[object, ...]) -> None:
        nonlocal count
        if event in EVENTS and (path := str(arguments[0])).startswith(inside) and among in path:
            count += 1
            if count == last:
                os.kill(os.getpid(), how)

    return hook


def _to_a_bucket(last: int | None, patience: float | None) -> None:
    """Count the requests to a bucket; at the `last` one the process dies."""
    from store.backend import bucket as objects
    from store.backend import requests

    requests.PATIENCE = patience or requests.PATIENCE
    attempts, count = requests.attempts, 0

    def counting(where: str, name: str) -> Iterator[AbstractContextManager[None]]:
        nonlocal count
        count += 1
        if count == last:
            os.kill(os.getpid(), signal.SIGKILL)
        return attempts(where, name)

    objects.attempts = requests.attempts = counting


def contents(root: Path | str) -> dict[str, object]:
    """Give all results of the one experiment in a store: arrays, adapters and data, by name."""
    found: dict[str, object] = {
        f"{node.path}/{name}": np.asarray(variable.values)
        for node in store.open_store(root).subtree
        for name, variable in node.data_vars.items()
        if not name.endswith("seconds")
    }
    ledger = store.Ledger(root)
    for name in (f"train/{key}/adapter" for key in ledger.done("train")):
        file = ledger.place.local(name) / "adapter_model.safetensors"
        found[f"{name}/{file.name}"] = file.read_bytes()
    for name in (f"data/{key}/examples.jsonl" for key in ledger.done("data")):
        found[name] = ledger.place.local(name).read_bytes()
    for stage in ("data", "base", "train", "evaluate", "probe"):
        found[f"done {stage}"] = sorted(ledger.done(stage))
        assert not ledger.failed(stage) | ledger.running(stage), stage
    return found


def assert_same(left: dict[str, object], right: dict[str, object]) -> None:
    assert left.keys() == right.keys()
    for name, value in left.items():
        np.testing.assert_array_equal(np.asarray(value), np.asarray(right[name]), err_msg=name)


def assert_whole(root: Path | str, undisturbed: Path) -> None:
    """Whatever cells a reader sees are the undisturbed ones."""
    tree, whole = store.open_store(root), store.open_store(undisturbed)
    seen = tree["small"].attrs["cells_complete"]
    for stage in ("train", "evaluate", "probe") if seen else ():
        found, expected = _by_cell(tree, stage), _by_cell(whole, stage)
        assert len(found) == seen
        for cell, values in found.items():
            assert values.keys() == expected[cell].keys()
            for name, value in values.items():
                np.testing.assert_array_equal(value, expected[cell][name], err_msg=f"{stage} {cell} {name}")


def _by_cell(tree: xr.DataTree, stage: str) -> dict[object, dict[str, np.ndarray]]:
    """Give a stage's arrays by cell; cells of other shapes, such as fewer steps, lie in nodes below."""
    node = tree[f"small/{stage}"]
    found = {}
    for part in (node, *node.children.values()):
        data = part.to_dataset()
        cells = with_cell_index(data).indexes["cell"] if "cell" in data.dims else ()
        for place, cell in enumerate(cells):
            one = data.isel(cell=place)
            found[cell] = {str(name): np.asarray(one[name].values) for name in data.data_vars}
    return found
