"""The JSON Schema, the reference page, and what importing the package costs."""

import re
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator

import specs
from specs import json_schema, load_spec, resolve
from specs.reference.introduction import INTRODUCTION
from specs.reference.schema import reference_markdown

PAGE = Path(__file__).parents[2] / "docs" / "spec.md"
EXAMPLES = re.findall(r"```toml\n(.*?)```", INTRODUCTION, re.DOTALL)
GOOD = 'name = "demo"\nmodel.id = "m"\ndata.source = "s"\n'


@pytest.fixture(scope="module")
def validator() -> Draft202012Validator:
    schema = json_schema()
    Draft202012Validator.check_schema(schema)
    return Draft202012Validator(schema)


def test_the_page_is_up_to_date() -> None:
    assert PAGE.read_text(encoding="utf-8") == reference_markdown(), (
        "python -m specs.reference.schema > docs/spec.md"
    )


@pytest.mark.parametrize("example", EXAMPLES[1:])
def test_the_examples_of_the_page_run(tmp_path: Path, example: str, validator: Draft202012Validator) -> None:
    (tmp_path / "explanations.toml").write_text(EXAMPLES[0])
    (tmp_path / "demo.toml").write_text(example)
    assert len(resolve(load_spec(tmp_path / "explanations.toml")).cells) == 12
    assert resolve(load_spec(tmp_path / "demo.toml")).cells
    for text in (EXAMPLES[0], example):
        validator.validate(tomllib.loads(text))


@pytest.mark.parametrize(
    "text",
    [
        "",
        "seeds = [1]\nprobe.layers = [0, -1]\nprobe.positions = ['prompt_end', 3]\n",
        "evaluate.data.dimension = 'd'\nevaluate.data.columns.label = 'l'\n",
        "lora.target_modules = ['q']\n[factors.a]\nlevels.x = {}\nonly_when = {b = [1, 2.5, true]}\n",
        "[rules]\nzip = [['a', 'b']]\nexclude = [{a = 'x'}]\n[[contrasts]]\nfactor = 'a'\nbaseline = 1\n",
    ],
)
def test_the_schema_takes_good_specs(text: str, validator: Draft202012Validator) -> None:
    validator.validate(tomllib.loads(GOOD + text))


@pytest.mark.parametrize(
    "raw",
    [
        {},
        {"name": "a b"},
        {"name": "demo", "model": {"id": "m"}},
        {"name": "demo", "model": {}, "data": {"source": "s"}},
        *(
            {**tomllib.loads(GOOD), **change}
            for change in (
                {"trian": {}},
                {"train": {"lrr": 1}},
                {"train": {"lr": 0}},
                {"train": {"lr": "1"}},
                {"train": {"steps": None}},
                {"train": {"schedule": "cosin"}},
                {"evaluate": {"labels": ["1"]}},
                {"evaluate": {"data": {"sourc": "s"}}},
                {"probe": {"layers": "some"}},
                {"seeds": []},
                {"factors": {"a": {}}},
                {"factors": {"a": {"path": "train.lr"}}},
                {"factors": {"a": {"levels": {}, "path": "train.lr", "values": [1]}}},
                {"contrasts": [{"factor": "a"}]},
            )
        ),
    ],
)
def test_the_schema_rejects_bad_specs(raw: dict[str, Any], validator: Draft202012Validator) -> None:
    assert not validator.is_valid(raw)


def test_importing_loads_nothing_heavy(tmp_path: Path) -> None:
    path = tmp_path / "demo.toml"
    path.write_text(GOOD)
    heavy = (
        "torch",
        "numpy",
        "zarr",
        "xarray",
        "tree_sitter",
        "msgspec.json.schema",
        "engine",
        "store",
        "kernels",
    )
    code = (
        "import sys, specs\n"
        f"specs.resolve(specs.load_spec({str(path)!r}))\n"
        f"print([name for name in {heavy!r} if name in sys.modules])\n"
    )
    root = str(Path(specs.__file__).parents[1])
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=root)
    assert done.stdout.strip() == "[]"


def test_unknown_attributes_stay_unknown() -> None:
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        specs.nothing  # noqa: B018


def test_the_spec_of_the_readme_resolves(tmp_path: Path, validator: Draft202012Validator) -> None:
    readme = (PAGE.parents[1] / "README.md").read_text(encoding="utf-8")
    (text,) = re.findall(r"```toml\n(.*?)```", readme, re.DOTALL)
    validator.validate(tomllib.loads(text))
    (tmp_path / "explanations.toml").write_text(text)
    assert len(resolve(load_spec(tmp_path / "explanations.toml")).cells) == (3 * 2 - 1) * 3
