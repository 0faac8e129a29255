"""Several sources, and sources that are not there yet."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from commands import engine
from facts import facts, told

from engine.data.prepare import load, prepare
from engine.data.reading import read_source
from engine.data.sources import sources
from engine.errors import DataError
from engine.planning.identities import source_identity
from specs.tables.data import Columns, Data

SETS = ("arena", "chosen", "rejected", "amazon", "coqa", "cornell")
COLUMNS = Columns(label="{dimension}", explanation="{dimension}_explanation", group="group")
TRAINED = ("--set", "train.steps=5", "--set", "probe.enabled=true")


@pytest.fixture
def files(tmp_path: Path) -> dict[str, str]:
    """Six rated files as `engine annotate` writes them."""
    found = {}
    for offset, name in enumerate(SETS):
        file = tmp_path / f"{name}.jsonl"
        rows = [
            {
                "id": f"{name}-{n}", "context": f"message {n + offset}", "response": f"{name} replies {n}",
                "group": f"message {n + offset}", "naturalness": 1 + n % 3,
                "naturalness_explanation": f"because {n}",
            }
            for n in range(24)
        ]  # fmt: skip
        file.write_text("".join(json.dumps(row) + "\n" for row in rows))
        found[name] = str(file)
    return found


def test_rows_of_several_sources_tell_where_they_are_from(files: dict[str, str], tmp_path: Path) -> None:
    data = Data(source=[files["coqa"], files["arena"]], columns=COLUMNS, rows=20)
    rows = read_source(data)
    assert rows[0]["id"].startswith("arena:row-") and rows[0]["source"] == "arena"
    assert Counter(row["source"] for row in rows) == {"arena": 20, "coqa": 20}
    assert len({row["id"] for row in rows}) == 40
    other = Data(source=[files["arena"], files["coqa"]], columns=COLUMNS, rows=20)
    for name, each in (("one", data), ("two", other)):
        prepare(each, list("123"), tmp_path / name)
    one, two = ((tmp_path / name / "examples.jsonl").read_bytes() for name in ("one", "two"))
    assert one == two and source_identity(data) == source_identity(other)


def test_a_group_is_on_the_same_side_in_every_source(files: dict[str, str], tmp_path: Path) -> None:
    prepare(Data(source=list(files.values()), columns=COLUMNS), list("123"), tmp_path / "all")
    trained = {row["group"] for row in load(tmp_path / "all", "train", None)}
    for name, file in files.items():
        prepare(Data(source=file, columns=COLUMNS), list("123"), tmp_path / name)
        assert trained.isdisjoint(row["group"] for row in load(tmp_path / name, "test", None))


def test_names_are_as_long_as_they_must_be() -> None:
    def names(*spelled: str) -> list[str]:
        return [source.name for source in sources(Data(source=list(spelled)))]

    assert names("/x/b.jsonl", "/x/a.csv", "me/set") == ["a", "b", "set"]
    assert names("/x/a/rated.jsonl", "/x/b/rated.jsonl") == ["a/rated", "b/rated"]
    assert names("/x/a.jsonl", "/x/a.csv") == ["/x/a.csv", "/x/a.jsonl"]
    with pytest.raises(DataError, match=facts('"/x/a.csv"', "twice")):
        names("/x/a.csv", "/x/a.csv")
    with pytest.raises(DataError, match=facts("data.revision", '"abc"')):
        sources(Data(source=["me/a", "me/b"], revision="abc"))


def test_the_identity_of_several_sources_follows_their_contents_and_names(
    files: dict[str, str], tmp_path: Path
) -> None:
    def identity(*spelled: Any, **settings: Any) -> str:
        return source_identity(Data(source=list(map(str, spelled)), **settings))

    before = identity(files["coqa"], files["arena"])
    assert identity(files["coqa"]) == source_identity(Data(source=files["coqa"]))
    copy = tmp_path / "copy" / "arena.jsonl"
    copy.parent.mkdir()
    copy.write_bytes(Path(files["arena"]).read_bytes())
    assert identity(files["coqa"], copy) == before
    renamed = copy.rename(copy.with_name("other.jsonl"))
    assert identity(files["coqa"], renamed) != before  # the rows' ids hold the name
    renamed.write_text("{}\n")
    assert identity(files["coqa"], renamed.rename(copy)) != before


def spec_of(files: dict[str, str], tiny_model: Path, more: str) -> Path:
    path = Path(files["coqa"]).with_name("spec.toml")
    path.write_text(
        f'name = "transfer"\nmodel.id = "{tiny_model}"\nevaluate.labels = ["1", "2", "3"]\n'
        'train.steps = 0\nprobe.enabled = false\n[data]\nsource = "coqa.jsonl"\n'
        'columns = { label = "{dimension}", explanation = "{dimension}_explanation", group = "group" }\n'
        + more
    )
    return path


def plan(spec: Path, *arguments: object) -> dict[str, Any]:
    planned: dict[str, Any] = json.loads(engine("plan", spec, "--json", *arguments).output)
    return planned


def pending(planned: dict[str, Any]) -> dict[str, int]:
    return {stage: n["pending"] for stage, n in planned["stages"].items() if any(n.values())}


def test_six_training_sets_on_six_test_sets_are_six_trainings(
    files: dict[str, str], tiny_model: Path
) -> None:
    values = json.dumps([f"{name}.jsonl" for name in SETS])
    spec = spec_of(
        files,
        tiny_model,
        f'[factors.train_on]\npath = "data.source"\nvalues = {values}\n'
        f'[factors.test_on]\npath = "evaluate.data.source"\nvalues = {values}\n',
    )
    planned = plan(spec, *TRAINED)
    assert planned["cells"] == 36 and planned["missing"] == []
    assert pending(planned) == {"data": 6, "base": 6, "train": 6, "evaluate": 36, "probe": 36}


def test_leaving_one_set_out(files: dict[str, str], tiny_model: Path) -> None:
    """Each level trains on a list and tests on one file: a list in [data] under a single source, and back."""
    levels = "".join(
        f"{name} = {{ data.source = {json.dumps([f'{other}.jsonl' for other in SETS if other != name])}, "
        f'evaluate.data.source = "{name}.jsonl" }}\n'
        for name in SETS
    )
    spec = spec_of(files, tiny_model, f"[factors.left_out.levels]\n{levels}")
    planned = plan(spec, *TRAINED)
    assert planned["cells"] == 6
    assert pending(planned) == {"data": 12, "base": 6, "train": 6, "evaluate": 6, "probe": 6}
    back = plan(spec_of(files, tiny_model, '[evaluate.data]\nsource = ["arena.jsonl", "cornell.jsonl"]\n'))
    assert back["stages"]["data"]["pending"] == 2


def test_the_report_counts_by_source_and_what_is_left_out(files: dict[str, str], tiny_model: Path) -> None:
    with Path(files["arena"]).open("a") as file:
        for grade in (9, 3, 3):
            row = {"context": "m", "response": "r", "group": "m", "naturalness": grade}
            file.write(json.dumps(row) + "\n")
    both = ("--set", 'data.source=["coqa.jsonl", "arena.jsonl"]')
    spec = spec_of(files, tiny_model, "")
    assert 'row 25: column "naturalness" holds "9"' in engine("data", spec, *both, code=2).output
    output = engine("data", spec, *both, "--set", "data.invalid=drop").output
    lines = [line.split("│")[1:-1] for line in output.splitlines() if line.startswith("│")]
    cells = {line[0].strip(): [cell.strip() for cell in line[1:]] for line in lines}
    assert "arena + coqa:" in output
    assert sum(map(int, cells["arena"])) == 25 and sum(map(int, cells["coqa"])) == 24
    assert cells["with a label that is none of the labels"] == cells["the same as an earlier row"] == ["1"]


def test_a_file_that_is_not_there_yet_is_planned_and_stops_its_own_cells_alone(
    files: dict[str, str], tiny_model: Path
) -> None:
    later = Path(files["cornell"])
    text = later.read_text()
    later.unlink()
    spec = spec_of(
        files,
        tiny_model,
        'test = 2\n[factors.on]\npath = "data.source"\nvalues = ["coqa.jsonl", "cornell.jsonl"]\n',
    )
    store = ("--store", spec.with_name("store"))
    assert f"not there yet: {later}" in engine("plan", spec).output
    planned = plan(spec, "--cells")
    assert planned["missing"] == [str(later)] and planned["stages"]["data"]["pending"] == 2
    output = engine("execute", spec, *store, code=1).output
    assert "data.source" in output and str(later) in output and "finished results stay" in output
    assert plan(spec, *store)["stages"]["evaluate"]["cached"] == 1
    later.write_text(text)
    assert plan(spec, *store, "--cells")["matrix"][1]["state"] == "pending"  # nothing to retry: it never ran
    engine("execute", spec, *store)
    assert plan(spec, *store)["stages"]["evaluate"]["cached"] == 2


def test_data_that_changes_after_the_plan_is_not_taken_for_the_planned(
    files: dict[str, str], tiny_model: Path, tmp_path: Path
) -> None:
    from engine.planning.plan import make_plan
    from engine.progress import StopRequest
    from engine.running.cell_runner import CellRunner
    from engine.running.display import Display
    from engine.running.outcome import Options
    from engine.stages.cell_stages import Stages
    from specs import load_spec, resolve
    from store import Ledger, StoreWriter

    planned = make_plan(resolve(load_spec(spec_of(files, tiny_model, ""))), tmp_path / "store")
    stages = Stages(planned, Ledger(planned.root), StoreWriter(planned.root), {}, StopRequest())
    Path(files["coqa"]).write_text(Path(files["arena"]).read_text())
    outcome = CellRunner(planned, stages, Options(), Display(), StopRequest()).run(planned.cells)
    ((_, stage, message),) = outcome.failed
    assert stage == "data" and told(message, "changed", "plan")
