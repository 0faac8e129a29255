"""Paths by the file in which they stand; keys that are taken back; mistakes told together."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import tomlkit

from specs import Matrix, SpecError, load_spec, resolve
from specs.relocation import from_current_folder
from specs.tables.experiment import TABLE_STAGES
from specs.toml.convert import unstructure
from specs.toml.paths import near_file

BASE = 'name = "demo"\nmodel.id = "m"\ndata.source = "s"\n'


def write(file: Path, text: str) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text)
    return file


def problems(spec: Path, *overrides: str) -> list[str]:
    with pytest.raises(SpecError) as error:
        resolve(load_spec(spec, overrides))
    return [str(problem).replace(f"{spec.parent}{os.sep}", "") for problem in error.value.problems]


def family(tmp_path: Path) -> Path:
    """A study in one folder that extends a base in another."""
    write(
        tmp_path / "base/base.toml",
        'name = "base"\nstore = "../results"\nmodel.id = "./model"\ndata.source = "rows.csv"\n'
        "[evaluate.data]\nsource = 'tested.csv'\n"
        "[factors.set.levels]\n"
        'one = { data.source = "one.csv" }\ntwo = { "data.source" = ["two.csv", "me/hub"] }\n',
    )
    return write(tmp_path / "study/spec.toml", 'extends = "../base/base.toml"\nname = "study"\n')


def test_a_path_is_relative_to_the_file_in_which_it_stands(tmp_path: Path) -> None:
    spec = family(tmp_path)
    matrix = resolve(load_spec(spec))
    one, two = matrix.cells
    base = tmp_path / "base"
    assert matrix.table("model", one).id == str(base / "model")
    assert matrix.table("data", one).source == str(base / "one.csv")
    assert matrix.table("data", two).source == [str(base / "two.csv"), "me/hub"]
    assert matrix.table("evaluate", one).data.source == str(base / "tested.csv")
    assert Path(load_spec(spec).store) == tmp_path / "results"
    own = 'extends = "../base/base.toml"\nname = "study"\nmodel.id = "./mine"\nfactors.set = false\n'
    again = write(spec, own)
    matrix = resolve(load_spec(again))
    assert matrix.table("model", matrix.cells[0]).id == str(tmp_path / "study/mine")
    assert matrix.table("data", matrix.cells[0]).source == str(base / "rows.csv")


def test_the_store_is_the_same_from_every_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spec = write(tmp_path / "study/spec.toml", BASE)
    for folder, spelled in ((tmp_path, "study/stores/demo"), (tmp_path / "study", "stores/demo")):
        monkeypatch.chdir(folder)
        assert load_spec(spec).store == spelled  # as it is spelled from here
    monkeypatch.chdir("/")
    assert load_spec(spec).store == str(tmp_path / "study/stores/demo").removeprefix("/")
    monkeypatch.chdir(write(tmp_path / "other/x", "").parent)
    assert load_spec(spec).store == str(tmp_path / "study/stores/demo")
    assert load_spec(spec, ["store=there"]).store == str(tmp_path / "study/there")
    assert load_spec(spec, ["store=s3://bucket/x"]).store == "s3://bucket/x"


def test_the_shipped_stores_stay_where_they_were_for_the_clones_root(monkeypatch: pytest.MonkeyPatch) -> None:
    root = Path(__file__).parents[2]
    monkeypatch.chdir(root)
    names = {file.stem: load_spec(file).store for file in (root / "specs/studies").glob("*.toml")}
    assert names["demo"] == "stores/demo" and names["ablation"] == "stores/study"
    assert names["ablation-small"] == "stores/small"


def test_a_spec_of_a_pipe_goes_by_the_current_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    reading, writing = os.pipe()
    os.write(writing, f'{BASE}data.columns.label = "x"\n'.replace('"s"', '"s.csv"').encode())
    os.close(writing)
    monkeypatch.chdir(tmp_path)
    matrix = resolve(load_spec(f"/dev/fd/{reading}"))
    os.close(reading)
    assert matrix.table("data", matrix.cells[0]).source == str(tmp_path / "s.csv")
    assert matrix.spec.store == "stores/demo"


def test_another_process_finds_the_same_places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    family(tmp_path)
    monkeypatch.chdir(tmp_path / "study")
    anchored = load_spec("spec.toml").anchored()
    here = resolve(anchored)
    monkeypatch.chdir("/")
    assert resolve(anchored).table("model", here.cells[0]).id == str(tmp_path / "base/model")
    assert Path("/", anchored.store) == tmp_path / "results"


def test_a_child_takes_back_what_it_inherits(tmp_path: Path) -> None:
    inherited = 'train = { steps = 5, lr = 1e-3 }\ncontrasts = [{ factor = "x", baseline = 1 }]\n'
    write(tmp_path / "base.toml", BASE + inherited)
    spec = write(
        tmp_path / "spec.toml",
        'extends = "base.toml"\ntrain.steps = { unset = true }\ntrain.epochs = 2\n'
        "contrasts = { unset = true }\n",
    )
    loaded = load_spec(spec)
    assert loaded.experiment.train.steps is None and loaded.experiment.train.lr == 1e-3
    assert loaded.experiment.contrasts == [] and "steps" not in loaded.raw["train"]
    assert load_spec(spec, ["train.lr=null"]).experiment.train.lr == 2e-4
    assert load_spec(spec, ["train.lr=null", "train.lr=1.0"]).experiment.train.lr == 1.0


def test_what_is_not_there_cannot_be_taken_back(tmp_path: Path) -> None:
    write(tmp_path / "base.toml", BASE)
    spec = write(tmp_path / "spec.toml", 'extends = "base.toml"\n[train]\nlrr = { unset = true }\n')
    assert problems(spec) == [
        "spec.toml:3:1  train.lrr: there is nothing to unset: no file that this one extends sets this key; "
        'did you mean "train.lr"?'
    ]
    spec.write_text('extends = "base.toml"\ntarin.lr = { unset = true }\n')
    (line,) = problems(spec)
    assert "tarin.lr: there is nothing to unset" in line and 'did you mean "train.lr"?' in line
    (line,) = problems(tmp_path / "base.toml", "train.steps=null")
    assert line == "--set train.steps=null: the spec does not set this key, whose default holds"
    (line,) = problems(tmp_path / "base.toml", "model.id=null")
    assert "model.id" in line and "required" in line


@pytest.mark.parametrize(
    ("key", "end"),
    [
        ("tarin.lr", 'the spec does not set this key; did you mean "train.lr"?'),
        ("train.steps", "the spec does not set this key, whose default holds"),
        ("probe.tuned.lr", "the spec does not set this key, whose default holds"),
        ("data.sorce", 'the spec does not set this key; did you mean "data.source"?'),
        ("factors.traget", 'the spec does not set this key; did you mean "factors.target"?'),
        ("zzzzzz", "the spec does not set this key"),
        ("a b", "expected a key, as in train.lr, found 'a b'"),
        ("", "expected a key, as in train.lr, found ''"),
    ],
)
def test_a_key_that_cannot_be_taken_back_is_named_once_as_it_was_typed(
    tmp_path: Path, key: str, end: str
) -> None:
    spec = write(tmp_path / "spec.toml", f"{BASE}[factors.target.levels]\na = {{ lora.r = 1 }}\n")
    assert problems(spec, f"--unset {key}") == [f"--unset {key}: {end}"]


def test_what_is_missing_without_a_key_that_was_taken_back_names_the_argument(tmp_path: Path) -> None:
    (line,) = problems(write(tmp_path / "spec.toml", BASE), "--unset model.id")
    assert line == "model.id: missing; this key is required (from --unset model.id)"


@pytest.mark.parametrize(
    ("text", "key", "lines"),
    [
        ("[train]\nlr = 1e-3\nsteps = 3\nlr = 1e-4\n", "train.lr", (5, 7)),
        ("[train]\nsteps = 1\n[lora]\n[train]\nlr = 1\n", "train", (4, 7)),
        ("seeds = [0]\nseeds = [1]\n", "seeds", (4, 5)),
        ('prompt = { system = "a", system = "b" }\n', "prompt.system", (4, 4)),
    ],
)
def test_a_key_that_stands_twice_is_named_with_both_lines(
    tmp_path: Path, text: str, key: str, lines: tuple[int, int]
) -> None:
    (line,) = problems(write(tmp_path / "spec.toml", BASE + text))
    assert f"`{key}` stands in lines {lines[0]} and {lines[1]}" in line


def test_all_keys_that_stand_twice_are_named(tmp_path: Path) -> None:
    text = 'seeds = [0]\nseeds = [1]\n[train]\nlr = 1\nlr = 2\n[[contrasts]]\nfactor = "a"\nfactor = "b"\n'
    text += '[[contrasts]]\nfactor = "a"\n[train]\nlr = 3\n'
    told = problems(write(tmp_path / "spec.toml", BASE + text))
    expected = (
        ("seeds", "4 and 5"), ("contrasts[0].factor", "10 and 11"), ("train", "6 and 14"),
        ("train.lr", "7, 8 and 15"),
    )  # fmt: skip
    assert len(told) == 4
    for line, (key, lines) in zip(told, expected, strict=True):
        assert f"`{key}` stands in lines {lines}; expected each key and table once" in line


def test_another_mistake_of_this_kind_is_told_beside_them(tmp_path: Path) -> None:
    told = problems(write(tmp_path / "spec.toml", "a = {}\na.b = 1\nb = 1\nb = 2\n"))
    assert len(told) == 2
    assert "`a` has its value already" in told[0] and "`b` stands in lines 3 and 4" in told[1]


def test_five_thousand_unknown_keys_are_twenty_lines(tmp_path: Path) -> None:
    spec = write(tmp_path / "spec.toml", BASE + "[train]\n" + "".join(f"k{n} = 1\n" for n in range(5000)))
    with pytest.raises(SpecError) as error:
        load_spec(spec)
    assert len(error.value.problems) == 5000
    assert len(error.value.lines()) == 20 and error.value.lines()[-1] == "… and 4,981 more problems"
    assert [line for line in error.value.lines() if "expected one of" in line] == error.value.lines()[:1]
    assert "epochs, steps" in error.value.lines()[0]


def test_each_table_says_once_what_keys_it_has(tmp_path: Path) -> None:
    wrong = "[train]\nqqq = 1\nzzz = 2\n[lora]\nqqq = 1\nwww = 2\n"
    told = problems(write(tmp_path / "spec.toml", BASE + wrong))
    assert ["expected one of" in line for line in told] == [True, False, True, False]
    assert "epochs, steps" in told[0] and "r, alpha" in told[2]


def test_mistakes_of_settings_are_told_with_all_others(tmp_path: Path) -> None:
    wrong = '[evaluate.spellings]\n6 = ["six"]\n[factors.x]\npath = "train.lrr"\nvalues = [1]\n'
    told = problems(write(tmp_path / "spec.toml", BASE + wrong))
    assert any("evaluate.spellings.6" in line for line in told) and any(
        "factors.x.path" in line for line in told
    )
    told = problems(write(tmp_path / "spec.toml", f"{BASE}[train]\nlrr = 1\n{wrong}"))
    assert any("evaluate.spellings.6" in line for line in told) and any("train.lrr" in line for line in told)


ANNOTATED = """
[annotate]
output = "made/{set}.jsonl"
golden = "true.csv"
dimensions = ["tone"]
annotators = [{ name = "one", model = "m", endpoint = "http://localhost:1/v1" }]
strategies = [{ name = "plain", template = "{context} {response} {dimension} {low} {high}" }]
"""


def meant(matrix: Matrix) -> list[object]:
    """Give what the paths of a spec decide: settings of every cell, the store, files of annotation."""
    settings = matrix.experiment.annotate
    assert settings is not None
    annotated = [
        os.path.realpath(matrix.spec.folder(("annotate", key)) / getattr(settings, key))
        for key in ("output", "golden")
    ]
    cells = [
        [matrix.levels(cell), *(matrix.table(name, cell) for name in TABLE_STAGES)] for cell in matrix.cells
    ]
    return [cells, annotated, os.path.realpath(matrix.spec.store)]


@pytest.mark.parametrize("stored", [True, False])
@pytest.mark.parametrize("current", ["study", "base", ".", "else:where/deep"])
def test_a_resolved_spec_means_the_same_in_the_current_folder(
    current: str, stored: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = family(tmp_path)
    base = tmp_path / "base/base.toml"
    text = base.read_text() if stored else base.read_text().replace('store = "../results"\n', "")
    factor = '[factors.model]\npath = "model.id"\nvalues = ["./first", "me/second", "./else:where"]\n'
    base.write_text(text + factor + ANNOTATED)
    here = tmp_path / current
    here.mkdir(parents=True, exist_ok=True)
    monkeypatch.chdir(here)
    matrix = resolve(load_spec(os.path.relpath(spec)))
    written = write(here / "resolved.toml", tomlkit.dumps(unstructure(from_current_folder(matrix))))
    assert meant(resolve(load_spec("resolved.toml"))) == meant(matrix)
    if current == "study":
        assert "/base/rows.csv" in written.read_text()  # out of this folder: absolute
    if current == "base":
        assert 'source = "rows.csv"' in written.read_text()  # as it is written


def test_a_resolved_spec_keeps_what_is_found_from_here(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = family(tmp_path)
    monkeypatch.chdir(tmp_path)
    moved = from_current_folder(resolve(load_spec(spec)))
    assert (moved.model.id, moved.data.source, moved.store) == ("./base/model", "./base/rows.csv", "results")
    assert moved.factors["set"].levels == {
        "one": {"data": {"source": "./base/one.csv"}},
        "two": {"data": {"source": ["./base/two.csv", "me/hub"]}},
    }


def test_nothing_to_unset_names_a_key_that_is_like_it_or_none(tmp_path: Path) -> None:
    write(tmp_path / "base.toml", BASE)
    child = 'extends = "base.toml"\n'
    spec = write(tmp_path / "child.toml", child)
    assert "did you mean" not in problems(spec, "nothing=null")[0]
    assert 'did you mean "lora.dropout"?' in problems(spec, "dropuot=null")[0]
    assert 'did you mean "lora.dropout"?' in problems(spec, "lora.dropuot=null")[0]
    write(spec, child + "[lora]\nunset = true\n")
    (said,) = problems(spec)
    assert "nothing to unset" in said and "did you mean" not in said


def test_a_file_of_that_name_above_a_folder_that_is_missing_is_named(tmp_path: Path) -> None:
    write(tmp_path / "rows.csv", "")
    assert near_file(tmp_path / "nosuch/rows.csv") == str(tmp_path / "rows.csv")
    assert near_file(tmp_path / "nosuch/other.csv") == ""
    assert near_file(tmp_path / "rows.csv") == ""  # which is there, and something else is wrong with it
