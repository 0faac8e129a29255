"""The command line: plans, selections, differences, and errors that say what to do."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import click
import pytest
from commands import engine
from facts import told
from jsonschema import Draft202012Validator

from engine.cli.main import cli
from engine.quantities import count
from store import Ledger, write_manifest

ROOT = Path(__file__).parents[3]
PROGRAM = "from engine.cli.main import main; main()"


def plan(spec: Path, *arguments: object) -> dict[str, Any]:
    return json.loads(engine("plan", spec, "--json", *arguments).output)


def test_planning_imports_no_torch(write_spec) -> None:
    code = (
        f"import sys\ntry:\n    {PROGRAM}\nexcept SystemExit: pass\n"
        "print('torch' in sys.modules, 'zarr' in sys.modules)"
    )
    for command in (["plan"], ["plan", "--cells"], ["plan", "--json"], ["status"], ["execute", "--dry-run"]):
        line = [sys.executable, "-c", code, *command, str(write_spec())]
        done = subprocess.run(line, capture_output=True, text=True, check=True)
        assert done.stdout.splitlines()[-1] == "False False", command


def test_a_plan_says_what_there_is_and_what_it_costs(write_spec, tmp_path: Path) -> None:
    spec = write_spec('[[contrasts]]\nfactor = "target"\nbaseline = "label"\n')
    output = engine("plan", spec, "--cells").output
    assert "small: 4 cells →" in output
    assert "label, label+explanation" in output and "4 pending" in output
    assert told(output, "target", "label+explanation", "label", "2 pairs")
    planned = plan(spec, "--cells")
    assert planned["factors"] == {"target": ["label", "label+explanation"], "seed": [0, 1]}
    assert planned["stages"]["data"] == {"cached": 0, "pending": 1, "failed": 0, "running": 0}
    assert [cell["levels"] for cell in planned["matrix"]][:2] == [
        {"target": "label", "seed": 0}, {"target": "label", "seed": 1},
    ]  # fmt: skip
    assert not (tmp_path / "store").exists()  # planning writes nothing


def test_the_estimate_follows_its_rules(write_spec) -> None:
    """Three blocks of a Llama with D = 32, hand-counted."""
    block = 32 * 32 * 2 + 2 * 16 * 32 + 3 * 32 * 64 + 2 * 32
    spec = write_spec()
    estimate = plan(spec, "--set", "seeds=[0]", "--set", 'rules.exclude=[{target="label+explanation"}]')[
        "estimate"
    ]
    examples, tokens = 8, estimate["train"]["tokens"]
    assert tokens > examples
    completion = 2 * examples
    forward = 2 * (3 * block * tokens + 32 * 320 * completion)
    assert estimate["train"]["flops"] == pytest.approx(2 * forward)
    sides = 3 * (32 + 32 + 32 + 16 + 32 + 16 + 32 + 32 + 3 * (32 + 64))
    assert estimate["train"]["store_bytes"] == 2 * sides * 4
    assert estimate["evaluate"]["tokens"] == pytest.approx(6 * (tokens / examples - 2))
    assert estimate["probe"]["store_bytes"] == 6 * 4 * (4 * 7 + 8 * 3 + 8 * 5)
    alone = ("--set", "seeds=[0]", "--set", 'rules.exclude=[{target="label+explanation"}]')
    again = plan(spec, *alone, "--set", "train.gradient_checkpointing=true")["estimate"]["train"]
    assert again["flops"] == pytest.approx(3 * forward)  # the layers run forward once more
    assert again["peak_memory_bytes"] < estimate["train"]["peak_memory_bytes"]
    longer = plan(spec, "--set", "train.steps=4")["estimate"]
    assert longer["train"]["flops"] == pytest.approx(2 * plan(spec)["estimate"]["train"]["flops"])


SWEEPS = """
[probe]
batch_size = 2

[[interventions]]
name = "heads"
kind = "heads"
layers = [2]
ablation = "mean"
"""
TAKING = """
[[interventions]]
name = "off"
kind = "mask"

[[interventions]]
name = "stream of base"
kind = "patch"
sweep = "below"
"""


def test_the_estimate_counts_the_layers_that_interventions_run(write_spec) -> None:
    def estimated(more: str, *options: object) -> dict[str, Any]:
        one = ("--set", "seeds=[0]", "--set", 'rules.exclude=[{target="label+explanation"}]')
        found: dict[str, Any] = plan(write_spec(more), *one, *options)["estimate"]
        return found

    heads, both = estimated(SWEEPS), estimated(SWEEPS + TAKING)
    tokens = both["evaluate"]["tokens"]  # one pass over the prompts of six examples
    # The model itself, a pass for the heads' means, and layers 2 and 3 for each of four heads.
    assert heads["intervene"]["tokens"] == pytest.approx(tokens * (2 + 4 * 2 / 3))
    # Without the adapter in layer 1 a pass is the base model's up to there; a patch goes on behind the last.
    more = 1 + (2 + 2 + 1 + 2 + 1 + 0) / 3
    assert both["intervene"]["tokens"] == pytest.approx(tokens * (2 + 4 * 2 / 3 + more))
    changes = 2 + 4 + 3 + 3
    assert both["intervene"]["store_bytes"] == 6 * changes * 4 * (3 + 4 + 4)
    block = 32 * 32 * 2 + 2 * 16 * 32 + 3 * 32 * 64 + 2 * 32
    rows = 6 * ((1 * 4) + (1 + 4 * 3) + 5)
    forward = 3 * block * heads["intervene"]["tokens"] + 32 * 320 * rows
    assert heads["intervene"]["flops"] == pytest.approx(2 * forward)
    kept = 2 * tokens / 6 * 32 * 4 * 4  # of one model more: a batch of two, D = 32, L + 1 streams, 4 bytes
    grown = both["intervene"]["peak_memory_bytes"] - heads["intervene"]["peak_memory_bytes"]
    assert grown == pytest.approx(kept)
    assert estimated(SWEEPS, "--set", "probe.examples=3")["intervene"]["tokens"] == pytest.approx(
        heads["intervene"]["tokens"] / 2
    )
    assert estimated("")["intervene"]["tokens"] == 0


def test_cells_with_other_donors_are_estimated_by_themselves(write_spec) -> None:
    more = TAKING + '[[interventions]]\nname = "to it"\nkind = "graft"\ndonor = { target = "label" }\n'
    scoped = more + 'cells = { target = "label+explanation" }\n'
    seed = ("--set", "seeds=[0]")
    alone, with_graft = (plan(write_spec(own), *seed)["estimate"]["intervene"] for own in (TAKING, scoped))
    tokens = plan(write_spec(), *seed)["estimate"]["evaluate"]["tokens"] / 2
    # Of two cells one takes from the other: that runs whole, and three grafts above their first layer.
    assert with_graft["tokens"] - alone["tokens"] == pytest.approx(tokens * (1 + (2 + 2 + 1) / 3))


def test_the_estimate_counts_the_training_of_a_tuned_lens(write_spec) -> None:
    more = '[probe]\nlens = "tuned"\n[probe.tuned]\nsteps = 5\ntokens = 40\n'
    found = plan(write_spec(more), "--set", "seeds=[0]")["estimate"]["lens"]
    assert found["tokens"] == 2 * 5 * 40
    assert found["store_bytes"] == 2 * 4 * (3 * 32 * 33 + 5 * 3)


def test_the_resolved_spec_shows_every_default_and_is_a_spec_itself(write_spec) -> None:
    spec = write_spec()
    text = engine("plan", spec, "--resolved").output
    assert "weight_decay = 0.0" in text and 'statistics = ["logsumexp"' in text
    resolved = spec.with_name("resolved.toml")
    resolved.write_text(text)
    assert plan(resolved, "--cells")["matrix"] == plan(spec, "--cells")["matrix"]
    for key in ("model.revision", "data.test_split", "prompt.system"):
        assert f"# {key.split('.')[1]} is unset" in text, key


def test_the_resolved_spec_is_one_in_the_current_folder(
    write_spec, tmp_path: Path, tiny_model: Path, rated_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    base = write_spec()
    child = tmp_path / "study" / "child.toml"
    child.parent.mkdir()
    child.write_text('extends = "../small.toml"\n')
    text = base.read_text().replace(f"{tmp_path}/", "./")
    for path in (tiny_model, rated_file):
        text = text.replace(str(path), os.path.relpath(path, tmp_path))
    assert str(tmp_path.parent) not in text
    base.write_text(text)
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    for folder, named in ((child.parent, "child.toml"), (elsewhere, "../study/child.toml")):
        monkeypatch.chdir(folder)
        Path("resolved.toml").write_text(engine("plan", named, "--resolved").output)
        assert plan(Path("resolved.toml"), "--cells")["matrix"] == plan(child, "--cells")["matrix"]


def test_a_difference_names_what_changes_and_why(write_spec) -> None:
    one = write_spec()
    assert json.loads(engine("plan", one, "--diff", one, "--json").output)["shared"].__len__() == 4
    two = one.with_name("two.toml")
    two.write_text(one.read_text().replace("seeds = [0, 1]", "seeds = [0, 2]").replace("r = 2", "r = 4"))
    difference = json.loads(engine("plan", one, "--diff", two, "--json").output)
    assert [len(difference[k]) for k in ("shared", "changed", "added", "removed")] == [0, 2, 2, 2]
    changed = difference["changed"][0]
    assert changed["levels"] == {"target": "label", "seed": 0}
    assert changed["stages"] == ["train", "evaluate", "probe"] and changed["why"] == [
        "lora.r: 2 here, 4 there"
    ]
    assert "lora.r: 2 here, 4 there" in engine("plan", one, "--diff", two).output
    changed = engine("plan", one, "--set", "probe.top_k=1", "--diff", one, "--json").output
    assert {tuple(cell["stages"]) for cell in json.loads(changed)["changed"]} == {("probe",)}


def test_a_dry_run_counts_and_does_nothing(write_spec, tmp_path: Path) -> None:
    spec = write_spec()
    output = engine("execute", spec, "--dry-run", "--only", "target=label").output
    assert "2 of 4 cells would run" in output and output.count("would run  target=label") == 2
    assert "1 of 4 cells would run" in engine("execute", spec, "--dry-run", "--max-cells", 1).output
    assert "3 of 4" not in output and not (tmp_path / "store").exists()


def test_five_mistakes_are_five_lines_and_exit_code_2(tmp_path: Path) -> None:
    spec = tmp_path / "bad.toml"
    spec.write_text(
        'name = "bad"\nseeds = [0]\n[model]\nid = "m"\n[data]\nsource = "s"\n[train]\nlrr = 1e-4\n'
        'batch_size = "8"\n[lora]\nr = 0\n[factors.target.levels]\nlabel = { target.contents = "label" }\n'
        '[[contrasts]]\nfactor = "target"\nbaseline = "lable"\n'
    )
    lines = engine("plan", spec, code=2).output.splitlines()
    assert len(lines) == 5
    for line, expected in zip(
        lines,
        [
            'bad.toml:8:1  train.lrr: unknown key; did you mean "lr"?',
            'bad.toml:9:1  train.batch_size: expected an integer >= 1, found the string "8"',
            "bad.toml:11:1  lora.r: expected an integer >= 1, found the integer 0",
            'unknown key; did you mean "content"?',
            'did you mean "label"?',
        ],
        strict=True,
    ):
        assert expected in line
    assert engine("execute", spec, code=2).output.splitlines() == lines
    assert engine("status", spec, code=2).output.splitlines() == lines


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["plan", "missing.toml"], 2, "missing.toml  no such file"),
        (["execute", "SPEC", "--only", "tarket=label"], 2, "'tarket' … 'target'"),
        (["execute", "SPEC", "--only", "target=lable"], 2, "label, label+explanation"),
        (["execute", "SPEC", "--only", "target"], 2, "--only target … FACTOR=LEVEL"),
        (["execute", "SPEC", "--max-cells", "0"], 2, "0 is not in the range"),
        (["plan", "SPEC", "--set", "train.lr"], 2, "expected KEY=VALUE"),
        (["plan", "SPEC", "--set", "train.lrr=1"], 2, 'did you mean "lr"?'),
        (
            ["plan", "SPEC", "--set", "model.id=package:no_such_package/x"],
            2,
            '"no_such_package"',
        ),
        (["plan", "SPEC", "--set", "data.source=none.csv"], 0, "not there yet: "),
        (["data", "SPEC", "--set", "data.source=none.csv"], 2, "which is no file"),
        (["plan", "SPEC", "--set", 'data.source=""'], 2, "data.source"),
        (["plan", "SPEC", "--set", 'model.id=""'], 2, "model.id … string"),
        (["plan", "SPEC", "--set", "probe.layers=[]"], 2, "probe.layers: expected"),
        (["execute", "SPEC", "--set", 'train.report_to=["x"]'], 2, "train.report_to: found"),
        (["execute", "SPEC", "--set", 'probe.backend="triton"'], 2, "probe.backend: found"),
        (["plna", "SPEC"], 2, "No such command 'plna'"),
        (["results", "nowhere"], 2, 'found "nowhere", which is no spec or store'),
        (["results", "empt"], 2, 'found "empt", which is no spec or store; did you mean "empty"?'),
        (["verify", "empt"], 2, 'found "empt", which is no spec or store; did you mean "empty"?'),
        (["publish", "EMPTY", "--cell", "a=1"], 2, "Missing option '--to'. Choose from: folder, hub"),
        (["plan", "SPEC", "--set", "model.id=./data.txt"], 2, "model.id: found the file … .gguf"),
        (["plan", "SPEC", "--set", "data.source=./data.txt"], 2, "data.source: found … .jsonl, .json, .csv"),
        (
            ["plan", "SPEC", "--set", "data.source=./empty"],
            2,
            "data.source: found the folder … no data files",
        ),
        (
            ["data", "SPEC", "--set", "data.source=./empty"],
            2,
            "data.source: found the folder … no data files",
        ),
        (["plan", "SPEC", "--set", "model=tiny"], 2, 'expected a table such as { id = "tiny" }, found the'),
        (["plan", "SPEC", "--set", "data=r.csv"], 2, 'expected a table such as { source = "r.csv" }'),
        (["plan", "SPEC", "--set", "factors.rank=[4,8]"], 2, 'such as { path = "lora.r", values = [8, 16] }'),
        (["plan", "SPEC", "--set", 'name="my study"'], 2, "name: expected a string of letters, digits, dots"),
        (["plan", "SPEC", "--set", "data.columns.text=x"], 2, "here it is called `data.columns.response`"),
        (["status", "EMPTY"], 1, "store … folder"),
    ],
)
def test_mistakes_on_the_command_line(
    write_spec,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    arguments: list[str],
    code: int,
    message: str,
) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "data.txt").write_text("some text\n")
    monkeypatch.chdir(tmp_path)
    places = {"SPEC": str(write_spec()), "EMPTY": str(tmp_path / "empty")}
    output = engine(*(places.get(argument, argument) for argument in arguments), code=code).output
    assert told(output, message) and "Traceback" not in output


def test_one_cell_is_no_cells(write_spec) -> None:
    one = ("--set", "seeds=[0]", "--set", "rules.exclude=[{target='label'}]")
    said = (
        engine("plan", write_spec(), *one).output + engine("execute", write_spec(), "--dry-run", *one).output
    )
    assert told(said, "small", "1 cell") and told(said, "1 of 1 cell") and "1 cells" not in said
    assert [count(number, "cell") for number in (0, 1, 1000)] == ["0 cells", "1 cell", "1,000 cells"]


def test_status_of_a_spec_that_has_never_run_shows_all_pending(write_spec) -> None:
    lines = engine("status", write_spec()).output.splitlines()
    counts = {words[1]: words[3::2] for line in lines if (words := line.split())[:1] == ["│"]}
    assert counts["train"] == counts["probe"] == ["0", "0", "0", "4"]
    assert lines[-1].endswith("store: nothing has been executed yet")


def test_status_shows_failed_data_and_of_a_spec_its_own_experiment(write_spec, tmp_path: Path) -> None:
    spec, root = write_spec(), tmp_path / "store"
    key = plan(spec, "--cells")["matrix"][0]["keys"]["data"]
    known = {"packages": {"ablation-engine": "0"}, "git": ""}
    for name in ("small", "other"):
        write_manifest(root, name, {"factors": [], "cells": [], "data": [key], **known})
    record = {"error": "DataError: [gone]", "traceback": "Traceback of [it]", "levels": {"target": "[INST]"}}
    Ledger(root).fail("data", key, record)
    said = f"failed: DataError: [gone] (data {key}, target=[INST])"
    both, own = engine("status", root).output, engine("status", spec).output
    assert both.count(said) == 2 and "other: 0 cells" in both
    assert own.count(said) == 1 and "other" not in own and "Traceback" not in own
    whole = engine("status", spec, "--traceback").output
    assert said in whole and "Traceback of [it]" in whole and "--traceback" in own


def test_what_the_system_refuses_is_a_sentence(write_spec, tmp_path: Path) -> None:
    """A folder where a file is written, and a file where a folder is expected."""
    cells = [{"levels": {"seed": 0}, "keys": {"probe": "k"}}]
    write_manifest(root := tmp_path / "store", "study", {"factors": ["seed"], "cells": cells})
    (tmp_path / "page.html").mkdir()
    output = engine("report", root, "-o", tmp_path / "page.html", code=1).output
    assert told(output, f"{tmp_path}/page.html", "directory")
    (tmp_path / "file").write_text("")
    output = engine("plan", write_spec(), "--store", tmp_path / "file", code=1).output
    assert output.startswith("error: ") and "found a file where a store has a folder" in output
    output = engine("export", root, "--to", "csv", "-o", tmp_path / "file/x", code=1).output
    assert output.startswith("error: ") and "Traceback" not in output


def test_the_schema_is_printed_and_ships_beside_the_specs() -> None:
    printed = json.loads(engine("schema").output)
    Draft202012Validator.check_schema(printed)
    assert json.loads((ROOT / "specs" / "schema.json").read_text()) == printed, (
        "engine schema > specs/schema.json"
    )
    assert (ROOT / "specs/studies/demo.toml").read_text().startswith("#:schema ../schema.json\n")


def test_foreign_code_is_announced(write_spec) -> None:
    assert told(
        engine("plan", write_spec(), "--set", "model.trust_remote_code=true").output, "trust_remote_code"
    )


def test_every_command_and_option_is_documented() -> None:
    page = (ROOT / "README.md").read_text() + (ROOT / "docs" / "commands.md").read_text()
    for name, command in cli.commands.items():
        assert f"engine {name}" in page
        for option in command.params:
            if isinstance(option, click.Option):
                for spelling in (*option.opts, *option.secondary_opts):
                    assert f"`{spelling}" in page, f"{name} {spelling}"


def test_a_key_is_taken_back_on_the_command_line(write_spec) -> None:
    spec = write_spec()
    assert plan(spec)["cells"] == plan(spec, "--unset", "lora.r", "--set", "lora.r=2")["cells"]
    taken = engine("plan", spec, "--resolved", "--unset", "lora.r", "--unset", "train.batch_size").output
    assert "r = 16" in taken and "\nbatch_size = 8" in taken
    assert engine("plan", spec, "--resolved", "--set", "lora.r=null").output == engine(
        "plan", spec, "--resolved", "--unset", "lora.r"
    ).output  # fmt: skip
    assert "the spec does not set this key" in engine("plan", spec, "--unset", "train.lrr", code=2).output


def test_an_execution_says_as_much_as_it_is_asked_to(write_spec, tmp_path: Path) -> None:
    def executed(name: str, *options: object, code: int = 0) -> str:
        spec = write_spec(name=name)
        return engine(
            "execute", spec, "--store", tmp_path / name, "--max-cells", 1, *options, code=code
        ).output

    quiet, usual, verbose = executed("a", "-q"), executed("b"), executed("c", "--verbose")
    assert [line.split(";")[0] for line in quiet.splitlines()] == [
        "Ran 1 data, 1 base, 1 train, 1 evaluate, 1 probe"
    ]
    assert "begins" not in usual and "done    cell 1/4" in usual and "accuracy" in usual
    assert "begins  cell 1/4 target=label, seed=0: train" in verbose and "train_steps 2" in verbose
    bad = ("--set", 'evaluate.labels=["good", "bad"]', "--fail-fast")
    assert "none of the labels" in executed("d", "-q", *bad, code=1)
    assert "Traceback" in executed("e", "-v", *bad, code=1) and "Traceback" not in executed("f", *bad, code=1)
    assert "expected one of the two" in executed("g", "-q", "-v", code=2)
