"""The documentation's examples on a real small store, and what every result carries."""

from __future__ import annotations

import ast
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
import xarray as xr
from commands import engine
from facts import facts

import store
from specs.checks.reserved_names import RESERVED
from store import analysis
from store.backend.locate import place_of
from store.ledger.version import mark_new

FACTORS = {"target", "instruction", "train_on", "test_on", "seed"}
DOCS = Path(__file__).parents[3] / "docs" / "analysis.md"


@pytest.fixture
def small_store(tmp_path: Path, tiny_model: Path, rated_file: Path) -> Path:
    """Two experiments on the tiny model: explanation × instruction, and training × test labels."""
    rows = [json.loads(line) for line in rated_file.read_text().splitlines()]
    data = tmp_path / "rated.jsonl"
    more = [row | {"other": str(1 + number % 2)} for number, row in enumerate(rows)]
    data.write_text("".join(json.dumps(row) + "\n" for row in more))
    common = f"""
store = "{tmp_path}/stores/small"
model = {{ id = "{tiny_model}", dtype = "float32" }}
data = {{ source = "{data}", columns = {{ label = "rating", explanation = "why" }}, train = 8, test = 6 }}
prompt = {{ chat_template = false, template = "{{context}} {{response}}:" }}
lora = {{ r = 2 }}
train = {{ steps = 1, batch_size = 4, precision = "float32" }}
evaluate.labels = ["1", "2", "3"]
evaluate.max_new_tokens = 4
evaluate.sampling.samples = 2
evaluate.counterfactuals = ["agreeing", "contradicting"]
"""
    designs = {
        "ablation-small": """
probe.heads = true
probe.against = ["base", { target = "label" }]
probe.geometry = ["effective_rank", "cka", "gram"]
probe.at = [0, 1.0]
probe.streams = ["mlp"]
probe.attribution = true
probe.differences = true
interventions = [{ name = "off", kind = "mask" }, { name = "grid", kind = "patch", donor = "own", \
    input = "other label", positions = [-1, -2], grid = true, layers = [1, 2] }, \
    { name = "steer", kind = "steer", layers = [2], random_directions = 1 }]
[factors.target.levels]
label = { target.content = "label" }
"label+explanation" = { target = { content = "label+explanation", placement = "before" } }
[factors.instruction.levels]
none = {}
original = { prompt.system = "Rate." }
""",
        "transfer-small": """
probe.lens = ["logit", "jacobian"]
probe.jacobian = { skip = 2, prompts = 4, fitted_on = "base", corpus = "builtin" }
[factors.train_on]
path = "data.columns.label"
values = ["rating", "other"]
[factors.test_on]
path = "evaluate.data.columns.label"
values = ["rating", "other"]
""",
    }
    for (name, factors), seeds in zip(designs.items(), ([0, 1], [0]), strict=True):
        spec = tmp_path / f"{name}.toml"
        spec.write_text(f'name = "{name}"\nseeds = {seeds}\n{common}{factors}')
        engine("execute", spec)
    return tmp_path


def test_the_examples_run_and_every_result_is_labelled(
    small_store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(small_store)
    names: dict[str, object] = {}
    used, results = set(), 0
    for block in re.findall(r"```python\n(.*?)```", DOCS.read_text("utf-8"), re.DOTALL):
        for statement in ast.parse(
            block.replace("slice(10, 20)", "slice(1, 2)").replace('"world"', '"rating"')
        ).body:
            source = ast.unparse(statement)
            used |= set(re.findall(r"\.ablation\.(\w+)", source))
            if not isinstance(statement, ast.Expr):
                exec(source, names)
                continue
            found = eval(source, names)
            if isinstance(found, xr.Dataset):
                results += 1
                check(found, source)
    assert used == set(dir(xr.Dataset().ablation)) and results > 10


def check(found: xr.Dataset, source: str) -> None:
    assert re.fullmatch(r"[A-Z].*\.", found.attrs["method"]), source
    assert re.search(r"\d", found.attrs["method"]) or "confusion" in source
    names = {str(name) for name in (*found.variables, *found.dims)}
    assert names - FACTORS - {"rank", "lens"} <= RESERVED, source
    for name, variable in found.data_vars.items():
        assert "units" in variable.attrs and variable.attrs["long_name"], (source, name)


def test_every_function_stands_in_the_documentation() -> None:
    text = DOCS.read_text("utf-8")
    listed = set(re.findall(r"^\| [^|]* \| `(\w+)\(", text, re.MULTILINE))
    assert listed == {n for n in analysis.__all__ if n.islower()}


def test_the_analyses_are_imported_when_first_used() -> None:
    code = "import sys, store.analysis.proportions; print({'xarray', 'pandas'} & {*sys.modules})"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "set()\n"
    modules = {file.stem for file in Path(analysis.__file__).parent.glob("*.py")}
    assert not modules & {*analysis.__all__}  # an imported module would take the function's place
    assert all(callable(getattr(analysis, name)) for name in analysis.__all__)


def test_opening_a_store_does_not_cost_the_import_of_scipy() -> None:
    code = "import sys, store; store.open_store; print({'scipy', 'statsmodels', 'torch'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


def test_an_unknown_analysis_is_named(tmp_path: Path) -> None:
    mark_new(place_of(tmp_path))
    tree = store.open_store(tmp_path)
    with pytest.raises(AttributeError, match=facts("'contrasted'", "accuracy_model")):
        _ = tree.ablation.contrasted
    assert analysis.change.__doc__ == tree.ablation.change.__doc__
