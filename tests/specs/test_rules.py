"""Mistakes in factors, rules and contrasts: each names the place, what was found and what was expected."""

from pathlib import Path

import pytest
from facts import told
from spec_problems import BASE, problems_of

FIRST = BASE.count("\n") + 1  # the first line after it


def factor(body: str, name: str = "new") -> str:
    return f"[factors.{name}]\n{body}\n"


@pytest.mark.parametrize(
    ("text", "line", "key", "message", "hint"),
    [
        (factor(""), 0, "factors.new", "expected either `levels`, or `path` and `values`; found neither", ""),
        (factor('path = "train.lr"'), 0, "factors.new", "found path", ""),
        (factor('levels.a = {}\npath = "train.lr"'), 0, "factors.new", "found levels, path", ""),
        (factor("levels = {}"), 0, "factors.new", "expected at least one level, found none", ""),
        (factor('path = "train.lr"\nvalues = []'), 0, "factors.new", "expected at least one level", ""),
        (factor('path = "train.lrr"\nvalues = [1]'), 1, "factors.new.path", "unknown key", "lr"),
        (
            factor('path = "train.r"\nvalues = [1]'), 1, "factors.new.path",
            "unknown key `train.r`; `r` belongs to [lora]", "",
        ),
        (factor('path = "trian.lr"\nvalues = [1]'), 1, "factors.new.path", "unknown table `trian`", "train"),
        (
            factor('path = "lr"\nvalues = [1]'), 1, "factors.new.path",
            "expected a path such as `train.lr`", "",
        ),
        (factor('path = "seed"\nvalues = [1]'), 1, "factors.new.path", "the run seed is set by `seeds`", ""),
        (factor('path = "train lr"\nvalues = [1]'), 1, "factors.new.path", "expected a dotted path", ""),
        (
            factor('path = "train.lr.x"\nvalues = [1]'), 1, "factors.new.path",
            "`train.lr` holds a value, not a table", "",
        ),
        (
            factor('path = "train.schedule"\nvalues = ["linear", "cosin"]'), 2, "factors.new.values[1]",
            'expected "constant", "linear" or "cosine", found the string "cosin"', "cosine",
        ),
        (
            factor('path = "train.steps"\nvalues = [1, 1.0]'), 2, "factors.new.values[1]",
            "expected an integer >= 0, found the number 1.0", "",
        ),
        (
            factor('path = "train.lr"\nvalues = [1, 2, 1]'), 2, "factors.new.values[2]",
            "1 is listed twice", "",
        ),
        (factor('path = "data.columns"\nvalues = [{}]'), 2, "factors.new.values[0]", "found a table", ""),
        (factor('path = "target.prefix"\nvalues = ["-"]'), 2, "factors.new.values[0]", "is reserved", ""),
        (factor('levels."-" = {}'), 1, 'factors.new.levels.-', "is reserved", ""),
        (
            factor('levels.a = { "train.lr" = "x" }'), 1, 'factors.new.levels.a."train.lr"',
            'expected a number > 0, found the string "x"', "",
        ),
        (
            factor("levels.a = { train.steps = -1 }"), 1, "factors.new.levels.a.train.steps",
            "expected an integer >= 0, found the integer -1", "",
        ),
        (
            factor('[factors.new.levels.a]\n"data.columns".labl = "x"'), 2,
            'factors.new.levels.a."data.columns".labl', "unknown key", "label",
        ),
        (
            factor('levels.a = { "train.lr" = 1, train.lr = 2 }'), 1, "factors.new.levels.a.train.lr",
            "`train.lr` is set twice by this level", "",
        ),
        (
            factor('levels.a = { "evaluate.data.sourc" = "x" }'), 1,
            'factors.new.levels.a."evaluate.data.sourc"', "unknown key", "source",
        ),
        (
            factor('path = "lora.r"\nvalues = [1]'), 1, "factors.new.path",
            "`lora.r` is set by factor `rank` too: a contradiction", "",
        ),
        (factor('path = "train.lr"\nvalues = [1]', "seed"), 0, "factors.seed", "is a name of", ""),
        (
            factor('path = "train.lr"\nvalues = [1]', '"a b"'), 0, 'factors."a b"',
            "expected a name of letters", "",
        ),
        (
            factor('levels.a = {}\nonly_when = { targt = "label" }'), 2, "factors.new.only_when.targt",
            'unknown factor "targt"', "target",
        ),
        (
            factor('levels.a = {}\nonly_when = { target = ["label", "wy"] }'), 2,
            "factors.new.only_when.target[1]", 'expected "label" or "why", found the string "wy"', "why",
        ),
        (
            factor('levels.a = {}\nonly_when = { new = "a" }'), 2, "factors.new.only_when.new",
            "a factor cannot depend on itself", "",
        ),
        (
            "[rules]\nexclude = [{ rank = 8.0 }]", 1, "rules.exclude[0].rank",
            "unknown level of `rank`: expected 8 or 16, found the number 8.0", "",
        ),
        (
            '[rules]\nexclude = [{ rank = "8" }]', 1, "rules.exclude[0].rank",
            'expected 8 or 16, found the string "8"', "",
        ),
        ("[rules]\nexclude = [{ rank = [] }]", 1, "rules.exclude[0].rank", "found an empty list", ""),
        ("[rules]\nexclude = [{}]", 1, "rules.exclude[0]", "an empty pattern matches every cell", ""),
        (
            "[rules]\nexclude = [{ seed = 1 }]", 1, "rules.exclude[0].seed",
            "unknown level of `seed`: expected 0, found the integer 1", "",
        ),
        (
            '[rules]\ninclude = [\n  { rank = 8 },\n  { targe = "label" },\n]', 3, "rules.include[1].targe",
            'unknown factor "targe"; expected target, rank or seed', "target",
        ),
        (
            "[rules]\nexclude = [{ rank = 8 }]\ninclude = [{ rank = [8] }]", 2, "rules.include[0]",
            "the same pattern as exclude[0]: a contradiction", "",
        ),
        ('[rules]\nzip = [["rank", "targt"]]', 1, "rules.zip[0][1]", 'unknown factor "targt"', "target"),
        ('[rules]\nzip = [["rank"]]', 1, "rules.zip[0]", "expected at least 2 factors, found 1", ""),
        (
            '[rules]\nzip = [["rank", "target"], ["seed", "rank"]]\n', 1, "rules.zip[1][1]",
            "`rank` is zipped already, in zip[0]", "",
        ),
        (
            factor("levels.a = {}") + '[rules]\nzip = [["rank", "new"]]', 3, "rules.zip[0]",
            "expected factors with equally many levels: `rank` has 2, `new` has 1", "",
        ),
        (
            "[rules]\nexclude = [{ rank = 8 }, { rank = 16, seed = 0 }]", 1, "rules.exclude",
            "no cell is left of 4: exclude[0] removes 2, exclude[1] removes 2", "",
        ),
        (
            '[[contrasts]]\nfactor = "target"\nbaseline = "labl"', 2, "contrasts[0].baseline",
            'unknown level of `target`: expected "label" or "why", found the string "labl"', "label",
        ),
        (
            '[[contrasts]]\nfactor = "rank"\nbaseline = 8\nlevels = [16, 32]', 3, "contrasts[0].levels[1]",
            "unknown level of `rank`: expected 8 or 16, found the integer 32", "",
        ),
        (
            '[[contrasts]]\nfactor = "rank"\nbaseline = 8\nlevels = [8]', 3, "contrasts[0].levels[0]",
            "8 is the baseline itself", "",
        ),
        (
            '[[contrasts]]\nfactor = "seed"\nbaseline = 0', 1, "contrasts[0].factor",
            "seeds are repetitions", "",
        ),
        (
            '[[contrasts]]\nfactor = "rank"\nbaseline = 8\n[[contrasts]]\nfactor = "rank"\nbaseline = 8', 3,
            "contrasts[1]", "compares what another contrast compares already", "",
        ),
        (
            '[[contrasts]]\nfactor = "rank"\nbaseline = 8\n[rules]\nexclude = [{ rank = 8 }]', 0,
            "contrasts[0]", "no two cells differ in `rank` alone", "",
        ),
    ],
)  # fmt: skip
def test_one_mistake(tmp_path: Path, text: str, line: int, key: str, message: str, hint: str) -> None:
    problems = problems_of(tmp_path, text)
    problem = next(problem for problem in problems if problem.key == key)
    assert message in problem.message
    assert (problem.line, problem.hint) == (FIRST + line, hint)
    if "seed" not in key and "zip[1]" not in key:
        assert len(problems) == 1, problems


def test_cycles_of_conditions(tmp_path: Path) -> None:
    text = factor('levels.a = {}\nonly_when = { b = "x" }', "a") + factor(
        'levels.x = {}\nonly_when = { a = "a" }', "b"
    )
    (problem,) = problems_of(tmp_path, text)
    assert problem.message in ("a cycle: a → b → a", "a cycle: b → a → b")


def test_duplicate_seeds(tmp_path: Path) -> None:
    (problem,) = problems_of(tmp_path, "", "seeds = [0, 1, 0]\n" + BASE)
    assert (problem.key, problem.line, problem.message) == ("seeds[2]", 1, "0 is listed twice")


def test_a_matrix_too_large(tmp_path: Path) -> None:
    paths = ("train.steps", "train.batch_size", "data.seed")
    values = list(range(1, 101))
    text = "".join(factor(f'path = "{path}"\nvalues = {values}', f"f{i}") for i, path in enumerate(paths))
    (problem,) = problems_of(tmp_path, text)
    assert problem.key == "factors"
    assert told(problem.message, "4,000,000", "2,000,000")


@pytest.mark.parametrize(
    "name",
    ["cell", "example", "label", "layer", "position", "seed", "statistic", "step", "top", "watch"],
)
def test_reserved_names(tmp_path: Path, name: str) -> None:
    problems = problems_of(tmp_path, factor('path = "train.lr"\nvalues = [1]', name))
    assert told(str(problems[0]), f"factors.{name}", f"`{name}`")
