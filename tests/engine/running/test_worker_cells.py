"""What a worker has to know of cells that it does not run, or of the plan whose cells it runs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from children import assert_same, contents, run, start
from commands import ran

from store import Ledger


def test_a_worker_keeps_the_adapters_along_a_training(write_spec: Any, tmp_path: Path) -> None:
    probe = "[probe]\nexamples = 4\npositions = ['prompt_end']\nat = [0.5, 1.0]\n"
    arguments = ("execute", write_spec(probe, train="steps = 4"), "--set", "seeds=[0]", "--store")
    run(tmp_path, *arguments, tmp_path / "here")
    output = run(tmp_path, *arguments, tmp_path / "store", "--workers", 2)
    assert ran(output)["along"] == 2
    assert_same(contents(tmp_path / "store"), contents(tmp_path / "here"))


def test_a_training_that_another_unit_takes_from_is_done_whatever_fails_of_its_own(
    write_spec: Any, tmp_path: Path
) -> None:
    """All test examples of one target are too long, and the other one's intervention takes its adapter."""
    long = tmp_path / "long.jsonl"
    row = {"context": "words " * 200, "response": "a reply", "rating": "1", "why": "because"}
    long.write_text(
        "".join(json.dumps({**row, "context": f"{n} {row['context']}"}) + "\n" for n in range(40))
    )
    spec = write_spec(
        '[[interventions]]\nname = "graft"\nkind = "graft"\ndonor = { target = "label" }\n'
        'cells = { target = "label+explanation" }\n'
    )
    levels = 'label = { target.content = "label" }'
    tested = f'label = {{ target.content = "label", evaluate.data = {{ source = "{long}" }} }}'
    spec.write_text(
        spec.read_text().replace(levels, tested).replace("[train]\n", "[train]\nmax_length = 64\n")
    )
    child = start(tmp_path, "execute", spec, "--set", "seeds=[0]", "--workers", 2)
    child.join(300)
    output = (tmp_path / "output").read_text()
    assert child.exitcode == 1, output  # it has ended
    assert output.count("failed: cell 1") == 3, output
    assert ran(output)["train"] == 2 and ran(output)["intervene"] == 1
    assert len(Ledger(tmp_path / "store").done("intervene")) == 1
