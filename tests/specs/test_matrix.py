"""The matrix: its cells against a naive oracle, settings per cell, contrasts, and speed."""

import itertools
import time
from pathlib import Path
from typing import Any

import pytest
from facts import facts
from hypothesis import assume, given
from hypothesis import strategies as st

from specs import Matrix, Spec, SpecError, load_spec, resolve
from specs.tables.experiment import Experiment
from specs.toml.convert import structure

BASE = 'name = "demo"\nmodel.id = "m"\ndata.source = "s"\n'
PATHS = ("lora.r", "train.steps", "train.batch_size", "data.seed")


def matrix_of(folder: Path, text: str) -> Matrix:
    path = folder / "demo.toml"
    path.write_text(BASE + text)
    return resolve(load_spec(path))


def spec_of(raw: dict[str, Any]) -> Spec:
    raw = {"name": "demo", "model": {"id": "m"}, "data": {"source": "s"}, **raw}
    experiment, problems = structure(raw, Experiment)
    assert experiment is not None, problems
    return Spec(Path("demo.toml"), raw, experiment, (), {})


def labels(matrix: Matrix) -> list[tuple[Any, ...]]:
    return [tuple(matrix.levels(cell).values()) for cell in matrix.cells]


@st.composite
def designs(draw: st.DrawFn) -> dict[str, Any]:
    names = [f"f{i}" for i in range(draw(st.integers(1, 4)))]
    sizes = {name: draw(st.integers(1, 3)) for name in names}
    levels = {name: list(range(1, size + 1)) for name, size in sizes.items()}
    levels["seed"] = draw(st.lists(st.integers(0, 9), min_size=1, max_size=2, unique=True))
    factors: dict[str, Any] = {
        name: {"path": path, "values": levels[name]} for name, path in zip(names, PATHS, strict=False)
    }
    order = draw(st.permutations(names))  # a factor depends only on those before it here

    def pattern(choices: list[str]) -> dict[str, Any]:
        chosen = draw(st.lists(st.sampled_from(choices), min_size=1, max_size=2, unique=True))
        picked = {}
        for name in chosen:
            some = st.lists(st.sampled_from(levels[name]), min_size=1, unique=True)
            picked[name] = draw(st.sampled_from(levels[name]) | some)
        return picked

    for position, name in enumerate(order):
        if position and draw(st.booleans()):
            factors[name]["only_when"] = pattern([*order[:position], "seed"])
    rules: dict[str, Any] = {
        rule: [pattern([*names, "seed"]) for _ in range(draw(st.integers(0, 2)))]
        for rule in ("exclude", "include")
    }
    a, b = draw(st.sampled_from(names)), draw(st.sampled_from(names))
    if a != b and sizes[a] == sizes[b] and draw(st.booleans()):
        rules["zip"] = [[a, b]]
    return {"seeds": levels["seed"], "factors": factors, "rules": rules}


def oracle(design: dict[str, Any]) -> list[tuple[Any, ...]]:
    """Every combination, looked at one by one."""
    factors, rules = design["factors"], design["rules"]
    axes = {name: factor["values"] for name, factor in factors.items()} | {"seed": design["seeds"]}

    def listed(value: Any) -> list[Any]:
        return value if isinstance(value, list) else [value]

    def applies(name: str, combination: dict[str, Any]) -> bool:
        conditions = factors.get(name, {}).get("only_when", {})
        return all(
            applies(other, combination) and combination[other] in listed(wanted)
            for other, wanted in conditions.items()
        )

    def matches(cell: dict[str, Any], pattern: dict[str, Any]) -> bool:
        return all(cell[name] in listed(wanted) for name, wanted in pattern.items())

    cells = []
    for values in itertools.product(*axes.values()):
        combination = dict(zip(axes, values, strict=True))
        places = {name: axes[name].index(value) for name, value in combination.items()}
        if any(places[a] != places[b] for a, b in rules.get("zip", [])):
            continue
        cell = {name: value if applies(name, combination) else None for name, value in combination.items()}
        excluded = any(matches(cell, pattern) for pattern in rules["exclude"])
        included = any(matches(cell, pattern) for pattern in rules["include"])
        if (not excluded or included) and tuple(cell.values()) not in cells:
            cells.append(tuple(cell.values()))
    return cells


@given(designs())
def test_cells_are_those_of_the_oracle(design: dict[str, Any]) -> None:
    wanted = oracle(design)
    try:
        found = labels(resolve(spec_of(design)))
    except SpecError as error:
        assume("a contradiction" not in str(error))
        assert "no cell is left" in str(error)
        found = []
    assert found == wanted


@given(designs())
def test_settings_are_those_of_the_levels(design: dict[str, Any]) -> None:
    try:
        matrix = resolve(spec_of(design))
    except SpecError:
        assume(False)
    for cell in matrix.cells:
        found = matrix.levels(cell)
        for name, factor in design["factors"].items():
            table, _, key = factor["path"].partition(".")
            settings = matrix.table(table, cell)
            default = getattr(getattr(matrix.experiment, table), key)
            assert getattr(settings, key) == (default if found[name] is None else found[name])
        assert matrix.seed(cell) == found["seed"]


def test_choices_share_tables(tmp_path: Path) -> None:
    matrix = matrix_of(
        tmp_path,
        "seeds = [5, 6]\n"
        "[factors.a]\nlevels.x = {}\n"
        'levels.y = { "train.lr" = 1, target.separator = " ", "data.columns" = { label = "l" } }\n'
        '[factors.b]\npath = "lora.r"\nvalues = [1, 2]\n',
    )
    assert [axis.name for axis in matrix.axes] == ["a", "b", "seed"]
    assert matrix.axes[0].levels[1].overrides == {
        "train.lr": 1, "target.separator": " ", "data.columns.label": "l",
    }  # fmt: skip
    first, last = matrix.cells[0], matrix.cells[-1]
    assert (first, last) == ((0, 0, 0), (1, 1, 1))
    assert [matrix.choice(table, last) for table in ("train", "lora", "model", "seed")] == [
        (1,),
        (1,),
        (),
        (1,),
    ]
    assert matrix.table("train", last) is matrix.table("train", (1, 0, 0))
    assert (matrix.table("train", first).lr, matrix.table("train", last).lr) == (2e-4, 1.0)
    assert matrix.table("data", last).columns.label == "l"
    assert matrix.table("model", first) == matrix.experiment.model


def test_a_transfer_matrix(tmp_path: Path) -> None:
    matrix = matrix_of(
        tmp_path,
        '[factors.train_on]\npath = "data.dimension"\nvalues = ["a", "b"]\n'
        "[factors.test_on]\nlevels.same = {}\n"
        'levels.c = { evaluate.data.dimension = "c", evaluate.data.test = 3 }\n',
    )
    found = [
        (matrix.table("data", cell).dimension, matrix.table("evaluate", cell).data) for cell in matrix.cells
    ]
    assert [(train, test and (test.dimension, test.source, test.test)) for train, test in found] == [
        ("a", None), ("a", ("c", "s", 3)), ("b", None), ("b", ("c", "s", 3)),
    ]  # fmt: skip
    assert [matrix.choice("evaluate", cell) for cell in matrix.cells] == [(0, 0), (0, 1), (1, 0), (1, 1)]
    assert matrix.choice("data", matrix.cells[1]) == (0,)
    plain = matrix_of(tmp_path, '[factors.train_on]\npath = "data.dimension"\nvalues = ["a", "b"]\n')
    assert plain.choice("evaluate", plain.cells[1]) == ()


def test_sources_are_relative_to_the_spec_alone_or_listed_unless_they_are_names(tmp_path: Path) -> None:
    (tmp_path / "coqa").mkdir()
    (tmp_path / "mirror").mkdir()

    def found(source: str) -> list[str]:
        text = f'name = "demo"\nmodel.id = "m"\ndata.source = {source}\n'
        (tmp_path / "demo.toml").write_text(text)
        matrix = resolve(load_spec(tmp_path / "demo.toml"))
        sources: list[str] = matrix.table("data", matrix.cells[0]).source
        return sources

    local = [str(tmp_path / name) for name in ("a.jsonl", "mirror", "later")]
    assert found('["a.jsonl", "mirror", "./later"]') == local
    assert found('["coqa", "me/set", "graded-dialogues"]') == ["coqa", "me/set", "graded-dialogues"]
    assert found('"./coqa"') == str(tmp_path / "coqa")


def test_a_filter_is_a_factor_by_column(tmp_path: Path) -> None:
    matrix = matrix_of(
        tmp_path,
        'data.filter = { turns = 1 }\n[factors.language]\npath = "data.filter.language"\n'
        'values = ["English", "German"]\n[factors.turns.levels]\nany = { data.filter.turns = [] }\n',
    )
    filters = [matrix.table("data", cell).filter for cell in matrix.cells]
    assert filters == [{"turns": [], "language": language} for language in ("English", "German")]
    with pytest.raises(SpecError, match=facts("a string, an integer, true or false", "list")):
        matrix_of(tmp_path, '[factors.bad]\npath = "data.filter.language"\nvalues = [1.5, 2.5]\n')


def test_levels_of_different_types_are_different(tmp_path: Path) -> None:
    text = '[factors.f]\npath = "train.epochs"\nvalues = [1, 1.0]\n[rules]\nexclude = [{{ f = {} }}]\n'
    for excluded, left in (("1", 1.0), ("1.0", 1)):
        ((label, _),) = labels(matrix_of(tmp_path, text.format(excluded)))
        assert (label, type(label)) == (left, type(left))
    with pytest.raises(SpecError, match=r"expected 1 or 1.0, found true"):
        matrix_of(tmp_path, text.format("true"))


def test_a_list_names_its_level_by_its_items(tmp_path: Path) -> None:
    matrix = matrix_of(
        tmp_path, '[factors.f]\npath = "lora.target_modules"\nvalues = ["all-linear", ["q", "v"]]\n'
    )
    assert labels(matrix) == [("all-linear", 0), ("q+v", 0)]
    assert matrix.table("lora", matrix.cells[1]).target_modules == ["q", "v"]


class TestPairs:
    TARGET = '[factors.target]\nlevels.label = {}\nlevels.why = { "target.content" = "label+explanation" }\n'
    CONTRAST = '[[contrasts]]\nfactor = "target"\nbaseline = "label"\n'

    def named(self, matrix: Matrix) -> list[tuple[str, Any, Any]]:
        cells = labels(matrix)
        return [(name, cells[condition], cells[baseline]) for name, condition, baseline in matrix.pairs()]

    def test_all_else_is_equal(self, tmp_path: Path) -> None:
        rank = '[factors.rank]\npath = "lora.r"\nvalues = [8, 16]\n'
        rules = '[rules]\nexclude = [{ rank = 8, target = "label", seed = 1 }]\n'
        pairs = self.named(
            matrix_of(tmp_path, "seeds = [0, 1]\n" + self.TARGET + rank + rules + self.CONTRAST)
        )
        assert pairs == [
            ("target: why vs label", ("why", 8, 0), ("label", 8, 0)),
            ("target: why vs label", ("why", 16, 0), ("label", 16, 0)),
            ("target: why vs label", ("why", 16, 1), ("label", 16, 1)),
        ]

    def test_factors_that_do_not_apply_at_the_baseline(self, tmp_path: Path) -> None:
        sub = (
            '[factors.sep]\npath = "target.separator"\nvalues = ["a", "b"]\nonly_when = { target = "why" }\n'
        )
        pairs = self.named(matrix_of(tmp_path, self.TARGET + sub + self.CONTRAST))
        assert [pair[1:] for pair in pairs] == [
            (("why", "a", 0), ("label", None, 0)),
            (("why", "b", 0), ("label", None, 0)),
        ]

    def test_zipped_factors_stand_where_the_first_of_them_stands(self, tmp_path: Path) -> None:
        factors = {name: {"path": path, "values": [1, 2]} for name, path in zip("abc", PATHS, strict=False)}
        found = labels(resolve(spec_of({"factors": factors, "rules": {"zip": [["c", "a"]]}})))
        assert found == [(1, 1, 1, 0), (1, 2, 1, 0), (2, 1, 2, 0), (2, 2, 2, 0)]

    def test_zipped_factors_move_together(self, tmp_path: Path) -> None:
        sub = '[factors.rank]\npath = "lora.r"\nvalues = [8, 16]\n[rules]\nzip = [["target", "rank"]]\n'
        pairs = self.named(matrix_of(tmp_path, self.TARGET + sub + self.CONTRAST))
        assert [pair[1:] for pair in pairs] == [(("why", 16, 0), ("label", 8, 0))]

    def test_listed_levels(self, tmp_path: Path) -> None:
        text = '[factors.rank]\npath = "lora.r"\nvalues = [4, 8, 16]\n'
        text += '[[contrasts]]\nfactor = "rank"\nbaseline = 8\nlevels = [16]\n'
        assert self.named(matrix_of(tmp_path, text)) == [("rank: 16 vs 8", (16, 0), (8, 0))]


def test_a_hundred_thousand_cells(tmp_path: Path) -> None:
    text = "".join(
        f'[factors.f{i}]\npath = "{path}"\nvalues = {list(range(1, 11))}\n' for i, path in enumerate(PATHS)
    )
    path = tmp_path / "demo.toml"
    path.write_text(BASE + f"seeds = {list(range(10))}\n" + text)
    start = time.perf_counter()
    matrix = resolve(load_spec(path))
    for cell in matrix.cells:
        matrix.table("train", cell)
    assert len(matrix.cells) == 100_000
    assert time.perf_counter() - start < 1.0  # 0.1 s on a quiet machine
