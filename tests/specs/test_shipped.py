"""Every spec that ships resolves to its cells; the small studies run, with one step, on a narrow model.

It has the tokenizer, the chat template and the number of layers of the model that they name, on which
test_demo.py runs.
"""

from __future__ import annotations

import json
import tomllib
from pathlib import Path

import pytest
import torch
import xarray as xr
from commands import engine
from jsonschema import Draft202012Validator
from transformers import LlamaConfig, LlamaForCausalLM

import store
from engine.models.loading import load_tokenizer
from specs import json_schema, load_spec, resolve
from specs.common.names import GEOMETRY, GRAM, LENS_STATISTICS, SIMILARITIES

SPECS = Path(__file__).parents[2] / "specs" / "studies"
# Cells, and trainings that serve them.
SIZES = {
    "annotate": (8, 8),  # one source each
    "demo": (6, 6),
    "finding": (48, 48),
    "study": (108, 108),  # 2 models, 6 sets, 3 dimensions, 3 seeds
    "small": (1, 1),
    "conditions": (648, 648),
    "conditions-small": (6, 6),
    "controls": (1080, 1080),
    "controls-small": (10, 10),
    "ablation": (432, 432),
    "ablation-small": (4, 4),
    "instruction": (864, 864),
    "instruction-small": (8, 8),
    "placement": (324, 324),
    "placement-small": (3, 3),
    "gradient": (540, 540),
    "gradient-small": (5, 5),
    "transfer": (648, 108),  # six trainings for the 36 pairs of sets, per model, dimension and seed
    "transfer-small": (9, 3),
    "held-out": (216, 216),
    "held-out-small": (6, 6),
    "cross-domain": (72, 36),
    "cross-domain-small": (2, 2),
    "variability": (72, 72),
    "variability-small": (4, 4),
    "saturation": (72, 72),
    "saturation-small": (4, 4),
    "dip": (12, 12),
    "dip-small": (2, 2),
    "specialisation": (216, 216),
    "specialisation-small": (6, 6),
    "causality": (216, 216),
    "causality-small": (2, 2),
    "lenses-small": (6, 2),
}
LENSES = "lenses-small"
STUDIES = [name for name in SIZES if name.endswith("-small") and name != LENSES]


def test_every_spec_is_listed_here() -> None:
    assert {file.stem for file in SPECS.glob("*.toml")} == set(SIZES)


@pytest.mark.parametrize("name", SIZES)
def test_a_shipped_spec_resolves_to_its_cells(name: str) -> None:
    file = SPECS / f"{name}.toml"
    Draft202012Validator(json_schema()).validate(tomllib.loads(file.read_text("utf-8")))
    assert file.read_text("utf-8").startswith("#:schema ../schema.json\n# ")
    assert len(resolve(load_spec(file)).cells) == SIZES[name][0]


@pytest.mark.demo
@pytest.mark.parametrize("name", SIZES)
def test_trainings_are_shared(name: str, tmp_path: Path) -> None:
    plan = json.loads(engine("plan", SPECS / f"{name}.toml", "--store", tmp_path, "--json").output)
    assert plan["stages"]["train"]["pending"] == SIZES[name][1]
    assert plan["stages"]["probe"]["pending"] == SIZES[name][0]


@pytest.fixture(scope="module")
def narrow_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a model of 30 layers, D = 24, random weights, and the small studies' own tokenizer."""
    settings = resolve(load_spec(SPECS / "small.toml")).experiment.model
    tokenizer = load_tokenizer(settings)
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=24,
        intermediate_size=48,
        num_hidden_layers=30,
        num_attention_heads=3,
        num_key_value_heads=3,
        max_position_embeddings=2048,
        tie_word_embeddings=True,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
    )
    folder = tmp_path_factory.mktemp("narrow")
    LlamaForCausalLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.mark.demo
def test_the_small_studies_run_and_share_what_they_have_in_common(tmp_path: Path, narrow_model: Path) -> None:
    for name in STUDIES:
        run(name, tmp_path, narrow_model, "data.test=2", "evaluate.max_new_tokens=4")
    trained = {file.name for file in (tmp_path / "train").iterdir()}
    # Alone the studies train 65 times; the genuine explanation behind the label is a cell of seven of them.
    assert (len(trained), sum(SIZES[name][1] for name in STUDIES)) == (41, 65)
    placement = store.open_store(tmp_path)["placement-small/probe"].to_dataset()
    same = placement["entropy"].sel(position="prompt_end") == placement["entropy"].sel(position="label")
    assert same.sel(placement="after").all() and not same.sel(placement="before").all()


def run(name: str, root: Path, model: Path, *changes: str) -> xr.DataTree:
    """A study of this name on the narrow model, every cell of it, with one step of training."""
    small = [f'model.id="{model}"', "train.steps=1", "train.batch_size=1", *changes]
    flags = [flag for change in small for flag in ("--set", change)]
    engine("execute", SPECS / f"{name}.toml", "--store", root, *flags)
    study = store.open_store(root)[name]
    assert study.attrs["cells_complete"] == study.attrs["cells_total"] == SIZES[name][0]
    return study


@pytest.mark.demo
def test_one_study_has_every_statistic_of_the_probe(tmp_path: Path, narrow_model: Path) -> None:
    smaller = "data.test=6", "probe.layers=[0,10,20,30]", "probe.tuned.steps=1", "probe.jacobian.prompts=1"
    study = run(LENSES, tmp_path, narrow_model, *smaller)
    found: dict[str, bool] = {}
    for node in study["probe"].subtree:
        if "entropy" in node:
            assert {str(name) for name in node["lens"].values} == {"logit", "tuned", "jacobian"}
        for name, values in node.data_vars.items():
            numbers = values.dtype.kind in "fi"
            found[str(name)] = found.get(str(name), False) or (numbers and bool(values.notnull().any()))
    wanted = {*LENS_STATISTICS, "renyi_2", "activation_entropy", "head_entropy", "kl_against", "js_against"}
    wanted |= {*GEOMETRY, *(f"{name}_against" for name in SIMILARITIES), GRAM}
    wanted |= {"watch_rank", "watch_logprob", "attribution", "head_attribution", "stream_entropy"}
    assert not [name for name in sorted(wanted) if not found.get(name)]
    differences = [node for node in study["differences"].subtree if "mean_difference" in node]
    assert differences and all(node["mean_difference"].notnull().any() for node in differences)
    assert (study.ablation.steering("towards the training")["random_effect"].notnull()).any()
    assert study.ablation.patching_grid("where the label comes from")["effect"].notnull().any()
