"""The demo on its real model and dialogues, with few steps."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from commands import engine, ran
from facts import told

import store
from engine.models import loading as models
from specs import load_spec
from specs.tables.experiment import Model

pytestmark = pytest.mark.demo
DEMO = Path(__file__).parents[1] / "specs" / "studies" / "demo.toml"


@pytest.fixture(scope="module")
def demo_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("demo")
    changes = ("train.steps=2", "train.batch_size=2", "data.test=4", "seeds=[0]")
    flags = [flag for change in changes for flag in ("--set", change)]
    first = engine("execute", DEMO, "--store", root, *flags)
    assert ran(first.output) == {"data": 1, "base": 1, "train": 3, "evaluate": 3, "probe": 3}
    assert "Results by condition" in first.output and "label+shuffled" in first.output
    assert told(engine("execute", DEMO, "--store", root, *flags).output, "3 cells")
    return root


def test_the_demo_leaves_labelled_data_and_a_figure(demo_store: Path) -> None:
    probe = store.open_store(demo_store)["demo/probe"].to_dataset()
    assert dict(probe.sizes) == {
        "cell": 3, "example": 4, "layer": 31, "position": 1, "watch": 5, "top": 5,
    }  # fmt: skip
    entropy = probe["entropy"].sel(target="label").values
    assert np.isfinite(entropy).all() and (entropy <= np.log(49152)).all()
    assert (probe["nonfinite"].values == 0).all()
    ranks = probe["watch_rank"].values
    assert (ranks >= 0).all() and (ranks < 49152).all()
    figure = demo_store / "figures" / "demo-entropy-by-layer.png"
    assert figure.read_bytes().startswith(b"\x89PNG") and figure.stat().st_size > 10_000


def test_the_demo_model_is_the_real_one(demo_store: Path) -> None:
    model, tokenizer = models.load(Model(id=load_spec(DEMO).experiment.model.id, dtype="float32"))
    text = tokenizer.apply_chat_template(
        [{"role": "user", "content": "What is the capital of France?"}],
        tokenize=False, add_generation_prompt=True,
    )  # fmt: skip
    ids = tokenizer(text, return_tensors="pt")["input_ids"]
    with torch.inference_mode():
        out = model.generate(ids, max_new_tokens=12, do_sample=False, pad_token_id=0)
    assert "Paris" in tokenizer.decode(out[0, ids.shape[1] :])


def test_the_python_session_of_the_readme_runs(
    demo_store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (session,) = re.findall(r"```python\n(.*?)```", (DEMO.parents[2] / "README.md").read_text("utf-8"), re.S)
    (tmp_path / "stores").mkdir()
    (tmp_path / "stores" / "demo").symlink_to(demo_store)
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {}
    exec(session, names)
    assert names["change"].sizes["layer"] == 31 and np.isfinite(names["change"].values).all()
    assert "accuracy" in capsys.readouterr().out
