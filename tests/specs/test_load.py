"""Loading: places of problems, `extends`, `--set`, and files that cannot be read."""

import io
import os
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path

import pytest
from facts import told
from hypothesis import given
from hypothesis import strategies as st

from specs import Problem, Spec, SpecError, load_spec, resolve
from specs.toml.keys import join, split
from specs.toml.locate import positions

BASE = """\
name = "demo"
[model]
id = "m"
[data]
source = "s"
"""


def write(folder: Path, text: str, name: str = "demo.toml") -> Path:
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return path


def problems_of(path: Path, *overrides: str) -> list[Problem]:
    with pytest.raises(SpecError) as caught:
        resolve(load_spec(path, overrides))
    return caught.value.problems


def lines_of(path: Path, *overrides: str) -> list[str]:
    return [str(problem).replace(f"{path.parent}/", "") for problem in problems_of(path, *overrides)]


def says(path: Path, *expected: str, overrides: Sequence[str] = ()) -> bool:
    """Tell whether a spec has these problems and no others, each told by its place and its facts."""
    lines = lines_of(path, *overrides)
    return len(lines) == len(expected) and all(map(told, lines, expected))


def test_a_good_spec(tmp_path: Path) -> None:
    path = write(tmp_path, BASE)
    spec = load_spec(str(path))
    assert isinstance(spec, Spec)
    assert (spec.path, spec.experiment.name) == (path, "demo")
    assert spec.raw == {"name": "demo", "model": {"id": "m"}, "data": {"source": "s"}}


def test_five_mistakes_are_reported_with_their_lines(tmp_path: Path) -> None:
    text = (
        BASE
        + """\
[train]
lrr = 1e-4
epochs = "3"
[factors.target]
levels.label = {}
levels.why = { "target.contnt" = "label" }
[rules]
exclude = [{ target = "lable" }]
[[contrasts]]
factor = "targt"
baseline = "label"
"""
    )
    assert says(
        write(tmp_path, text),
        'demo.toml:7:1  train.lrr … "lr"',
        'demo.toml:8:1  train.epochs … > 0 … "3"',
        'demo.toml:11:16  factors.target.levels.why."target.contnt" … "content"',
        'demo.toml:13:14  rules.exclude[0].target … "label" or "why" … "lable" … "label"',
        'demo.toml:15:1  contrasts[0].factor … "targt" … target or seed … "target"',
    )


def test_a_missing_key_is_placed_at_its_table(tmp_path: Path) -> None:
    path = write(tmp_path, 'name = "demo"\n[model]\ndtype = "float32"\n[data]\nsource = "s"\n')
    assert says(path, "demo.toml:2:1  model.id … missing")
    path = write(tmp_path, 'name = "demo"\n[data]\nsource = "s"\n')
    assert says(path, "demo.toml  model … missing")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('name = "demo\n', "demo.toml:1:13 … TOML"),
        (BASE + "[train]\nlr = = 1\n", "demo.toml:7:6 … TOML"),
        (BASE + "[train]\n[train]\n", "demo.toml:7:7 … TOML … train"),
        ("a.'b c'.d = 1\n[a.'b c']\n", 'demo.toml:2:9 … TOML … `a."b c"`'),
        ("a = {}\na.b = 1\n", "demo.toml:2:8 … TOML … `a`"),
        ("a = 1\na = 2\n", "demo.toml:2:6 … TOML … once"),
        ("a = [1,", "demo.toml:1 … TOML"),
    ],
)
def test_syntax_errors(tmp_path: Path, text: str, message: str) -> None:
    path = write(tmp_path, text)
    assert says(path, message) and "('" not in lines_of(path)[0]  # as Python spells a key


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    write(tmp_path, BASE)
    (problem,) = problems_of(tmp_path / "dmo.toml")
    assert problem.hint == str(tmp_path / "demo.toml")
    (tmp_path / "latin.toml").write_bytes(b'name = "a"\n# \xe9\n')
    assert says(tmp_path / "latin.toml", "latin.toml:2 … UTF-8")
    (tmp_path / "folder.toml").mkdir()
    assert says(tmp_path / "folder.toml", 'folder.toml … folder … TOML file … "demo.toml"')
    os.mkfifo(tmp_path / "pipe.toml")
    (line,) = lines_of(tmp_path / "pipe.toml")
    assert told(line, "pipe.toml", "TOML file")


def test_links_in_a_circle_are_no_files(tmp_path: Path) -> None:
    path, source = tmp_path / "demo.toml", tmp_path / "s.jsonl"
    path.symlink_to(path)
    source.symlink_to(source)
    assert says(path, "demo.toml … no such file")
    path.unlink()
    assert "no such file" in lines_of(write(tmp_path, f'extends = "a.toml"\n{BASE}'))[0]
    resolve(load_spec(write(tmp_path, BASE.replace('"s"', '"s.jsonl"'))))  # that it is missing is said later


def test_a_byte_order_mark_is_no_part_of_the_text(tmp_path: Path) -> None:
    (tmp_path / "marked.toml").write_bytes(b"\xef\xbb\xbf" + BASE.encode())
    assert load_spec(tmp_path / "marked.toml").raw == load_spec(write(tmp_path, BASE)).raw


@pytest.mark.parametrize("late", [False, True])
def test_a_spec_comes_through_a_pipe(tmp_path: Path, late: bool) -> None:
    os.mkfifo(tmp_path / "pipe.toml")
    ready = threading.Event()

    def put() -> None:
        with (tmp_path / "pipe.toml").open("w") as pipe:  # waits for the reader
            time.sleep(0.2 * late)
            pipe.write(BASE)

    # A reader of its own, so that the writer is there before the spec is read.
    holder = os.open(tmp_path / "pipe.toml", os.O_RDONLY | os.O_NONBLOCK)
    writer = threading.Thread(target=lambda: (ready.set(), put()))
    writer.start()
    ready.wait()
    time.sleep(0.1)
    found = load_spec(tmp_path / "pipe.toml").raw
    writer.join()
    os.close(holder)
    assert found == load_spec(write(tmp_path, BASE)).raw


def test_a_spec_comes_through_standard_input(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = load_spec(write(tmp_path, BASE)).raw
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(BASE.encode())))
    assert load_spec("-").raw == expected


@pytest.mark.parametrize("key", ["model.id", "data.source", "store", "prompt.template", "data.columns.label"])
def test_no_text_of_a_spec_holds_a_nul(tmp_path: Path, key: str) -> None:
    with pytest.raises(SpecError, match=rf"{key}: expected .*without NUL characters"):
        load_spec(write(tmp_path, BASE), [f'{key}="a\\u0000b"'])


def test_a_name_has_a_length_that_a_file_can_have(tmp_path: Path) -> None:
    with pytest.raises(SpecError, match="name: expected a string"):
        load_spec(write(tmp_path, BASE), [f'name="{"x" * 300}"'])


class TestExtends:
    def test_tables_merge_and_arrays_and_factors_replace(self, tmp_path: Path) -> None:
        (tmp_path / "shared").mkdir()
        write(
            tmp_path / "shared",
            BASE
            + "seeds=[1,2]\n[train]\nlr=1.0\nepochs=2\n[factors.a]\nlevels.x={}\nlevels.y={}\n"
            '[factors.b]\npath="lora.r"\nvalues=[1]\n'.replace("seeds=[1,2]\n", ""),
            "base.toml",
        )
        write(tmp_path / "shared", 'extends = "base.toml"\nseeds = [1, 2]\ntrain.lr = 3.0\n', "middle.toml")
        path = write(
            tmp_path,
            'extends = "shared/middle.toml"\nname = "child"\nseeds = [7]\nfactors.a.levels.z = {}\n',
        )
        spec = load_spec(path)
        assert "extends" not in spec.raw
        assert spec.experiment.extends is None
        assert (spec.experiment.name, spec.experiment.seeds) == ("child", [7])
        assert (spec.experiment.train.lr, spec.experiment.train.epochs) == (3.0, 2.0)
        assert [axis.name for axis in resolve(spec).axes] == ["a", "b", "seed"]
        assert spec.raw["factors"]["a"] == {"levels": {"z": {}}}

    def test_an_inherited_mistake_is_placed_in_the_file_that_wrote_it(self, tmp_path: Path) -> None:
        write(tmp_path, BASE + "[train]\nlr = 0\n", "base.toml")
        path = write(tmp_path, 'extends = "base.toml"\ntrain.epochs = 0\n')
        assert says(
            path, "base.toml:7:1  train.lr … > 0 … integer 0", "demo.toml:2:7  train.epochs … > 0 … integer 0"
        )

    def test_cycles(self, tmp_path: Path) -> None:
        write(tmp_path, 'extends = "demo.toml"\n', "other.toml")
        path = write(tmp_path, 'name = "x"\nextends = "other.toml"\n')
        assert says(path, "other.toml:1:1  extends … demo.toml → other.toml → demo.toml")
        path = write(tmp_path, 'extends = "self.toml"\n', "self.toml")
        assert says(path, "self.toml:1:1  extends … self.toml → self.toml")

    def test_of_several_parents_the_later_wins_over_what_both_extend(self, tmp_path: Path) -> None:
        write(tmp_path, BASE + "[train]\nlr = 1.0\nepochs = 1\nwarmup = 0.1\n", "base.toml")
        write(tmp_path, 'extends = "base.toml"\ntrain.epochs = 2\ntrain.warmup = 0.2\n', "study.toml")
        write(tmp_path, 'extends = "base.toml"\ntrain.warmup = 0.3\nlora.r = 4\n', "small.toml")
        spec = load_spec(write(tmp_path, 'extends = ["study.toml", "small.toml"]\nlora.r = 2\n'))
        train = spec.experiment.train
        assert (train.lr, train.epochs, train.warmup, spec.experiment.lora.r) == (1.0, 2.0, 0.3, 2)
        assert [source.file.name for source in spec.sources] == [
            "demo.toml", "small.toml", "study.toml", "base.toml",
        ]  # fmt: skip

    def test_false_drops_an_inherited_factor_and_no_other(self, tmp_path: Path) -> None:
        factors = '[factors.a]\nlevels.x={}\n[factors.b]\npath="lora.r"\nvalues=[1]\n'
        write(tmp_path, BASE + factors, "base.toml")
        path = write(tmp_path, 'extends = "base.toml"\nfactors.a = false\n')
        assert [axis.name for axis in resolve(load_spec(path)).axes] == ["b", "seed"]
        path = write(tmp_path, 'extends = "base.toml"\nfactors.c = false\n')
        assert says(path, "demo.toml:2:9  factors.c … table … false")

    def test_missing_parents(self, tmp_path: Path) -> None:
        write(tmp_path, BASE, "base.toml")
        path = write(tmp_path, '\nextends = "bse.toml"\n')
        (problem,) = problems_of(path)
        assert (problem.line, problem.key, problem.hint) == (2, "extends", "base.toml")
        path = write(tmp_path, "extends = 3\n")
        assert says(path, "demo.toml:1:1  extends … a string or a list … integer 3")
        path = write(tmp_path, 'extends = ["base.toml", 3]\n')
        assert says(path, "demo.toml:1:25  extends[1] … string … integer 3")
        path = write(tmp_path, 'extends = ["base.toml", "bse.toml"]\n')
        assert problems_of(path)[0].key == "extends[1]"

    def test_a_broken_parent(self, tmp_path: Path) -> None:
        write(tmp_path, "a = \n", "base.toml")
        assert says(write(tmp_path, 'extends = "base.toml"\n'), "base.toml:1:5 … TOML")


class TestSet:
    @pytest.mark.parametrize(
        ("argument", "value"),
        [
            ("model.id=3b", "3b"),
            ("model.id=meta-llama/Llama-3.1-8B", "meta-llama/Llama-3.1-8B"),
            ('model.id="quoted name"', "quoted name"),
            ('"model" . id = spaced', "spaced"),
            ("model.id=a=b", "a=b"),
        ],
    )
    def test_values(self, tmp_path: Path, argument: str, value: str) -> None:
        assert load_spec(write(tmp_path, BASE), [argument]).experiment.model.id == value

    def test_types_and_order(self, tmp_path: Path) -> None:
        spec = load_spec(
            write(tmp_path, BASE),
            ["train.lr=1e-3", "seeds=[3, 4]", "train.resume=false", "train.lr=2e-3",
             'factors.f={path = "lora.r", values = [1, 2]}'],
        )  # fmt: skip
        assert spec.experiment.train.lr == 2e-3
        assert spec.experiment.train.resume is False
        matrix = resolve(spec)
        assert [matrix.levels(cell) for cell in matrix.cells] == [
            {"f": 1, "seed": 3}, {"f": 1, "seed": 4}, {"f": 2, "seed": 3}, {"f": 2, "seed": 4},
        ]  # fmt: skip

    @pytest.mark.parametrize(
        ("argument", "line"),
        [
            ("train.lrr=3", 'train.lrr … (from --set train.lrr=3) … "lr"'),
            ("train.lr", "--set train.lr … KEY=VALUE"),
            ("=3", "--set =3 … KEY=VALUE"),
            ("train lr=3", "--set train lr=3 … key … 'train lr'"),
            ("seeds=[1,", "--set seeds=[1, … TOML"),
            ("extends=x.toml", "--set extends=x.toml … `extends`"),
            ("seeds[0]=1", "--set seeds[0]=1 … `seeds[0]`"),
            ("train=3", "train … table … integer 3 (from --set train=3)"),
            (
                "factors.f.values=[1]",
                "factors.f … `levels`, or `path` and `values` … found values "
                "(from --set factors.f.values=[1])",
            ),
        ],
    )
    def test_mistakes_name_the_argument(self, tmp_path: Path, argument: str, line: str) -> None:
        assert says(write(tmp_path, BASE), line, overrides=[argument])

    def test_all_mistakes_come_together(self, tmp_path: Path) -> None:
        path = write(tmp_path, BASE + "[lora]\nr = 0\n")
        assert says(
            path,
            "--set oops … KEY=VALUE",
            'train.lr … > 0 … "x" (from --set train.lr=x)',
            "demo.toml:7:1  lora.r … >= 1 … integer 0",
            overrides=["train.lr=x", "oops"],
        )


class TestEvaluationData:
    def test_it_is_laid_over_data(self, tmp_path: Path) -> None:
        path = write(tmp_path, BASE + 'dimension = "d"\n[evaluate.data]\nsource = "t"\n')
        spec = load_spec(path)
        assert spec.experiment.evaluate.data is not None
        assert (spec.experiment.evaluate.data.source, spec.experiment.evaluate.data.dimension) == ("t", "d")
        assert spec.raw["evaluate"]["data"] == {"source": "t"}
        assert load_spec(write(tmp_path, BASE)).experiment.evaluate.data is None

    def test_mistakes_are_not_reported_twice(self, tmp_path: Path) -> None:
        path = write(tmp_path, BASE + "holdout = 2\n[evaluate.data]\nsorce = 1\n")
        assert says(
            path,
            "demo.toml:6:1  data.holdout … > 0 and < 1 … integer 2",
            'demo.toml:8:1  evaluate.data.sorce … "source"',
        )


def test_positions() -> None:
    text = """\
a.b = 1
"q.r" = { s.t = 2, u = [1, {v = 3}] }
[t.'x y']
"é"."ä" = "ö" # comment
[[rows]]
k = 1
[[rows]]
k = [
  1, # one
  2,
]
[rows.sub]
k = 3
"""
    places = {join(path): place for path, place in positions(text).items()}
    assert places == {
        "a": (1, 1), "a.b": (1, 3),
        '"q.r"': (2, 1), '"q.r".s': (2, 11), '"q.r".s.t': (2, 13), '"q.r".u': (2, 20),
        '"q.r".u[0]': (2, 25), '"q.r".u[1]': (2, 28), '"q.r".u[1].v': (2, 29),
        "t": (3, 1), 't."x y"': (3, 1),
        "rows": (5, 1), "rows[0]": (5, 1), "rows[0].k": (6, 1),
        "rows[1]": (7, 1), "rows[1].k": (8, 1), "rows[1].k[0]": (9, 3), "rows[1].k[1]": (10, 3),
        "rows[1].sub": (12, 1), "rows[1].sub.k": (13, 1),
        't."x y"."é"': (4, 1), 't."x y"."é"."ä"': (4, 5),
    }  # fmt: skip


@given(st.lists(st.text() | st.integers(0, 99), min_size=1).filter(lambda path: isinstance(path[0], str)))
def test_paths_are_spelled_and_read_back(path: list[str | int]) -> None:
    assert split(join(tuple(path))) == tuple(path)
