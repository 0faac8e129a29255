"""A published adapter loads with peft alone, and its card says where it comes from and how well it does."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import torch
from commands import engine
from facts import told
from hub_server import hub_server
from peft import PeftModel
from small_study import small_spec
from transformers import AutoModelForCausalLM

import engine as python
from engine.errors import UsageError
from store import open_store

CELL = "target=label+explanation,seed=1"
SIZE = "[factors.size.levels]\nsmall = { lora.r = 2 }\n"


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path, rated_file: Path) -> Path:
    """The spec of a small study that has been executed."""
    folder = tmp_path_factory.mktemp("published")
    spec = small_spec(folder, tiny_model, rated_file)
    engine("execute", spec)
    return spec


@pytest.fixture(scope="module")
def published(study: Path) -> Path:
    folder = study.parent / "adapter"
    said = engine("publish", study, "--cell", CELL, "--to", "folder", "-o", folder).output
    assert said.strip() == str(folder)
    return folder


def test_peft_alone_loads_what_was_trained(study: Path, published: Path, tiny_model: Path) -> None:
    base = AutoModelForCausalLM.from_pretrained(tiny_model, dtype=torch.float32)
    model = PeftModel.from_pretrained(base, str(published)).eval()
    ours = python.load_adapter(study.parent / "store", CELL).model
    ids = torch.tensor([[5, 6, 7]])
    with torch.inference_mode():
        assert torch.equal(model(input_ids=ids).logits, ours(input_ids=ids).logits)
    config = json.loads((published / "adapter_config.json").read_text())
    assert config["base_model_name_or_path"] == str(tiny_model) and config["peft_type"] == "LORA"
    assert {file.name for file in published.iterdir()} == {
        "README.md", "adapter_config.json", "adapter_model.safetensors"
    }  # fmt: skip


def test_the_lines_of_the_card_load_it(published: Path) -> None:
    code = re.search(r"```python\n(.*?)```", (published / "README.md").read_text(), re.DOTALL)
    assert code is not None
    names: dict[str, object] = {}
    exec(code[1], names)
    assert isinstance(names["model"], PeftModel)


def test_the_card_says_how_well_it_does_and_what_made_it(
    study: Path, published: Path, rated_file: Path
) -> None:
    card = (published / "README.md").read_text()
    node = open_store(study.parent / "store")["small"]
    cell = node.ablation.select(target="label+explanation", seed=1)
    accuracy = cell.ablation.means("correct").squeeze()
    mean, low, high = (float(accuracy[name]) for name in ("mean", "low", "high"))
    row = f"{mean:.3f} | {low:.3f} to {high:.3f} | 6 | 1"
    assert f"target=label+explanation, seed=1 | accuracy | {row}" in card
    assert f"has an accuracy of {float(cell['summary']['base_accuracy'].squeeze()):.3f}" in card
    planned = python.plan(study)
    assert planned.files()[str(rated_file)] in card
    assert planned.cells[3].keys["train"] in card
    spec = tomllib.loads(re.search(r"```toml\n(.*?)```", card, re.DOTALL)[1])  # type: ignore[index]
    assert spec["target"] == {"content": "label+explanation"} and spec["seeds"] == [1]
    assert spec["train"] == {"steps": 2, "batch_size": 4, "precision": "float32"}
    assert spec["data"]["source"] == rated_file.name  # and not where it lies on this machine


def test_a_cell_of_no_seed_of_its_own_is_told_over_seeds(study: Path, tmp_path: Path) -> None:
    engine("publish", study, "--cell", "target=label,seed=0", "--to", "folder", "-o", tmp_path / "a")
    card = (tmp_path / "a" / "README.md").read_text()
    assert "| target=label, seed=0 | accuracy |" in card and "| target=label | accuracy |" in card


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--cell", CELL, "--to", "folder"), "expected -o"),
        (("--cell", CELL, "--to", "hub", "-o", "x"), "expected --repo, without -o"),
        (("--cell", "target=label", "--to", "folder", "-o", "x"), "names 2 finished trainings"),
        (("--cell", "size=label", "--to", "folder", "-o", "x"), "no factor 'size'"),
        (
            ("--cell", "targt=label", "--to", "folder", "-o", "x"),
            "no factor 'targt'; expected one of target, seed; the nearest is 'target'",
        ),
        (
            ("--cell", "target=labl,seed=0", "--to", "folder", "-o", "x"),
            'target=labl: factor "target" has no level "labl"; expected one of label, label+explanation; '
            "the nearest is 'label'",
        ),
        (("--cell", "target=label,seed=7", "--to", "folder", "-o", "x"), 'seed=7: factor "seed" has no'),
        (("--cell", CELL, "--to", "folder", "-o", "x", "--experiment", "smal"), "the nearest is 'small'"),
        (("--cell", CELL, "--to", "folder", "-o", "FULL"), "holds something"),
    ],
)
def test_what_cannot_be_published_is_told(study: Path, options: tuple[str, ...], said: str) -> None:
    options = tuple(str(study.parent) if option == "FULL" else option for option in options)
    assert told(engine("publish", study, *options, code=2).output, said)


def test_a_card_says_what_the_model_reads_and_leaves_out_what_no_example_has(
    tmp_path: Path, tiny_model: Path, rated_file: Path
) -> None:
    """The dimension and labels of the cell; absolute errors are none between words."""
    words = {"1": "poor", "2": "fair", "3": "good"}
    rows = [json.loads(line) for line in rated_file.read_text().splitlines()]
    lines = [json.dumps(row | {"rating": words[row["rating"]]}) + "\n" for row in rows]
    (tmp_path / "words.jsonl").write_text("".join(lines))
    template = "{context} {response} {{x}}: the {dimension}, {labels}?"
    text = small_spec(tmp_path, tiny_model, tmp_path / "words.jsonl").read_text()
    text = text.replace('labels = ["1", "2", "3"]', 'labels = ["poor", "fair", "good"]')
    text = text.replace(
        'template = "{context} {response}:"', f"template = '{template}'\nsystem = 'A {{dimension}}'"
    )
    (tmp_path / "small.toml").write_text(text.replace("[data]", '[data]\ndimension = "warmth"'))
    engine("execute", tmp_path / "small.toml", "--only", "target=label", "--only", "seed=0")
    folder = ("--to", "folder", "-o", tmp_path / "adapter")
    engine("publish", tmp_path / "small.toml", "--cell", "target=label,seed=0", *folder)
    card = (tmp_path / "adapter/README.md").read_text()
    assert "```text\nA warmth\n\n{context} {response} {x}: the warmth, poor, fair, good?\n```" in card
    results = card.partition("## Results")[2].partition("## Data")[0]
    assert "absolute error" not in results and "nan" not in results and "Brier score" in results


def test_two_experiments_with_such_a_cell_are_told_apart_by_name(
    study: Path, tmp_path: Path, tiny_model: Path, rated_file: Path
) -> None:
    """Where both have one training it is that; the error tells the option, and Python's argument."""
    store = ("--store", tmp_path / "store")
    engine("execute", small_spec(tmp_path, tiny_model, rated_file, name="same"), *store)
    longer = small_spec(tmp_path, tiny_model, rated_file, SIZE, name="longer", train="steps = 3")
    engine("execute", longer, *store)

    def published(*options: object, cell: str = CELL, code: int = 0) -> str:
        folder = tmp_path / f"adapter-{len(options)}"
        to_folder = ("--cell", cell, "--to", "folder", "-o", folder)
        return engine("publish", tmp_path / "store", *to_folder, *options, code=code).output

    of_size = "target=label+explanation,seed=1,size=small"
    assert published(code=2) == (
        f"error: {tmp_path}/store: target=label+explanation, seed=1 names 2 finished trainings, of the "
        "experiments longer and same; expected one of them by --experiment, or in Python "
        'experiment="longer"\n'
    )
    with pytest.raises(UsageError, match='experiment="longer"'):
        python.load_adapter(tmp_path / "store", CELL)
    published("--experiment", "same")
    assert "no factor 'szie'; expected one of target, size, seed; the nearest is 'size'" in published(
        cell=of_size.replace("size", "szie"), code=2
    )
    published(cell=of_size)  # a factor that the other experiment does not have


def test_the_hub_is_sent_the_same_files_and_no_path(study: Path, published: Path, tiny_model: Path) -> None:
    with hub_server() as hub:
        done = _to_hub(study, hub.url, "me/adapter", "--base-model", "someone/model")
        assert done.returncode == 0, done.stderr
        assert done.stdout.strip() == f"{hub.url}/me/adapter"
        assert hub.made[0]["name"] == "adapter" and _is_private(hub.made[0])
        assert {*hub.files} == {file.name for file in published.iterdir()}
        weights = "adapter_model.safetensors"
        assert hub.files[weights] == (published / weights).read_bytes()
        assert not any(str(study.parent).encode() in content for content in hub.files.values())
        assert not any(str(tiny_model).encode() in content for content in hub.files.values())
        card = hub.files["README.md"].decode()
        assert 'PeftModel.from_pretrained(base, "me/adapter")' in card and "base_model: someone/model" in card
        public = _to_hub(study, hub.url, "me/other", "--public")
        assert public.returncode == 0 and not _is_private(hub.made[1])


def test_a_hub_that_refuses_is_told_of_in_a_sentence(study: Path) -> None:
    with hub_server() as hub:
        hub.refuses = True
        done = _to_hub(study, hub.url, "me/adapter")
    assert done.returncode == 1 and told(done.stderr, "publish --to hub: me/adapter was not written", "403")
    assert len(done.stderr.strip().splitlines()) == 1
    wrong = _to_hub(study, hub.url, "no such/name/here")
    assert wrong.returncode == 2 and told(wrong.stderr, "--repo", "OWNER/NAME")


def _is_private(made: dict[str, object]) -> bool:
    return bool(made.get("private")) or made.get("visibility") == "private"


def _to_hub(spec: Path, url: str, repository: str, *more: str) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"HF_ENDPOINT": url, "HF_HUB_OFFLINE": "0", "HF_TOKEN": "stub"}
    command = ["-m", "engine", "publish", spec, "--cell", CELL, "--to", "hub", "--repo", repository, *more]
    return subprocess.run(
        [sys.executable, *map(str, command)], capture_output=True, text=True, env=environment, check=False
    )
