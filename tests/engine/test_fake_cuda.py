"""Whole studies on a GPU that is not there: all is on one device, and the numbers are the CPU's."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from attrs import evolve
from fake_cuda import fake_cuda
from fake_cuda_tensors import Away, MixedDevices
from peft.helpers import disable_input_dtype_casting
from saved_storages import saved_storages
from small_study import make_tokenizer, spec_text
from trainings import FAST, interrupted, load, many, saved_weights, train

import engine.api
import store
from engine.models.lens import find_lens
from engine.process_group.alone import IGNORED
from engine.stages.training.adapter import attach_adapter
from engine.stages.training.loss import completion_loss
from engine.stages.training.saved_tensors import count_saved
from specs.tables.experiment import Lora, Model, Train

pytestmark = pytest.mark.skipif(torch.cuda.is_available(), reason="there is a real GPU, see `make gpu`")

SIZES = {"vocab_size": 320, "bos_token_id": 0, "eos_token_id": 1, "pad_token_id": 2}
SMALL = SIZES | {
    "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 3, "num_attention_heads": 4,
    "num_key_value_heads": 2, "head_dim": 8, "max_position_embeddings": 512,
}  # fmt: skip
NO_DROPOUT = dict.fromkeys(("attn_pdrop", "embd_pdrop", "resid_pdrop"), 0.0)
CONFIGS: dict[str, Any] = {
    "llama": transformers.LlamaConfig(**SMALL),
    "gpt2": transformers.GPT2Config(**SIZES, n_embd=32, n_layer=3, n_head=4, **NO_DROPOUT),
    "gemma2": transformers.Gemma2Config(**SMALL, sliding_window=8, final_logit_softcapping=3.0),
}
MORE = """
[probe]
batch_size = 2
heads = true
activation = true
positions = ["prompt_end", "completion_end"]
lens = "tuned"
[probe.tuned]
steps = 2
tokens = 40

[[interventions]]
name = "off"
kind = "mask"
layers = [1]

[[interventions]]
name = "from the other"
kind = "graft"
cells = { target = "label" }
donor = { target = "label+explanation" }
layers = [2]

[[interventions]]
name = "and back"
kind = "patch"
cells = { target = "label+explanation" }
donor = { target = "label" }
positions = ["prompt_end"]
layers = [1]

[[interventions]]
name = "heads"
kind = "heads"
layers = [1]
heads = [0, 1]
ablation = "mean"

[[interventions]]
name = "grid"
kind = "patch"
donor = "own"
input = "other example"
positions = ["prompt_end", -2]
grid = true
layers = [1]

[[interventions]]
name = "resampled"
kind = "ablate"
stream = "mlp"
ablation = "resample"
layers = [2]

[[interventions]]
name = "path"
kind = "path"
cells = { target = "label" }
donor = { target = "label+explanation" }
layers = [1]
sender = "heads"
heads = [0]
receiver = "mlp"
receiver_layers = [2]
"""
COMMON = [
    'evaluate.scoring=["loglikelihood", "constrained", "generation"]', "evaluate.max_new_tokens=4",
]  # fmt: skip
# What differs between the studies, so that all of it is run.
STUDIES = {
    "llama": ["train.early_stopping=1", "train.validate_every=1", "train.micro_batch=2"],
    "gpt2": ["train.precision=bfloat16", "lora.dropout=0.1", "train.checkpoint_every=1",
             "evaluate.batch_size=2", 'probe.positions=["prompt_end"]'],  # the probe takes evaluate's passes
    "gemma2": ["train.precision=bfloat16", "model.attention=eager", "train.gradient_checkpointing=true",
               "target.placement=before"],
}  # fmt: skip


@pytest.fixture(params=CONFIGS)
def model(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[str, Path]:
    """A kind of model, and a folder with one."""
    torch.manual_seed(0)
    folder = tmp_path / request.param
    transformers.AutoModelForCausalLM.from_config(CONFIGS[request.param]).save_pretrained(folder)
    make_tokenizer(folder)
    return request.param, folder


def studied(folder: Path, device: str, model: tuple[str, Path], data: Path) -> Any:
    """Give the store of a model's study on a device."""
    kind, weights = model
    spec = folder / f"{device}.toml"
    spec.write_text(spec_text(folder / device, weights, data, MORE, seeds=(0,)))
    assert not engine.api.execute(spec, [f"model.device={device}", *COMMON, *STUDIES[kind]]).failed
    return store.open_store(folder / device)


def test_a_study_on_a_gpu_gives_the_numbers_of_the_cpu(
    model: tuple[str, Path], rated_file: Path, tmp_path: Path
) -> None:
    expected = studied(tmp_path, "cpu", model, rated_file)
    with fake_cuda():
        found = studied(tmp_path, "cuda", model, rated_file)
    exact = model[0] == "llama"  # else autocasts differ in what they compute in float32
    compared = 0
    for name in expected.groups:
        for variable, values in expected[name].data_vars.items():
            own = found[name][variable].values
            compared += 1
            if values.dtype.kind == "f" and "seconds" not in str(variable):
                tolerance = {"rtol": 1e-4, "atol": 1e-4} if exact else {"rtol": 0.02, "atol": 0.05}
                np.testing.assert_allclose(own, values, **tolerance, err_msg=f"{name} {variable}")
            elif exact and values.dtype.kind != "f":
                assert (own == values.values).all(), f"{name} {variable}"
    assert compared > 40
    assert found["small/probe"].attrs["backend"] == "torch"


def test_the_fake_gpu_refuses_what_a_gpu_refuses() -> None:
    here = torch.arange(3.0)
    with fake_cuda():
        there = here.cuda()
        assert isinstance(there, Away) and there.device.type == "cuda"
        assert (there + torch.tensor(1.0)).cpu().tolist() == [1, 2, 3]
        assert there[torch.tensor([2])].tolist() == [2]
        for mixed in (
            lambda: there + here,
            lambda: here.add_(there),
            lambda: here @ there,
            lambda: torch.where(there > 1, here, there),
            lambda: torch.cat([here, there]),
            lambda: here[there.long()],
            lambda: there.index_put((torch.tensor([0]),), here[:1]),
        ):
            with pytest.raises(MixedDevices, match="same device"):
                mixed()
        with pytest.raises(TypeError, match="numpy"):
            np.asarray(there)


def test_the_fake_gpu_notes_where_the_cpu_waits_for_it() -> None:
    with fake_cuda() as waits:
        there = torch.arange(3.0).to("cuda", non_blocking=True)
        total = (there * 2).sum()
        chosen = there[torch.tensor([0, 2], device="cuda")]
        at_first = len(waits)  # of torch.tensor
        for wait in (
            lambda: float(total),
            lambda: there[there > 1],
            lambda: chosen.tolist(),
            lambda: there.cpu(),
            lambda: torch.zeros(3).to("cuda"),
            lambda: bool((there > 1).any()),
        ):
            wait()
        assert (at_first, len(waits)) == (1, 7)


def test_a_training_on_a_gpu_goes_on_from_its_checkpoint(
    tiny_model: Path, tokenizer: Any, tmp_path: Path
) -> None:
    settings = evolve(FAST, steps=4, checkpoint_every=1, precision="float16")
    with fake_cuda():
        base = load(tiny_model).to("cuda")
        whole = train(base, tokenizer, tmp_path / "whole", settings=settings)
        interrupted(2, base, tokenizer, tmp_path / "stopped", settings=settings)
        resumed = train(base, tokenizer, tmp_path / "stopped", settings=settings)
    np.testing.assert_array_equal(resumed.curves["loss"], whole.curves["loss"])
    for name, weights in saved_weights(tmp_path / "whole").items():
        assert torch.equal(saved_weights(tmp_path / "stopped")[name], weights), name


@pytest.mark.parametrize(
    ("settings", "count"),
    [({}, 3), ({"micro_batch": 2, "accumulation": 2}, 3), ({"precision": "float16"}, 4)],
)  # fmt: skip
def test_a_step_waits_for_the_gpu_only_for_what_it_logs(
    tiny_model: Path, tokenizer: Any, tmp_path: Path, settings: dict[str, Any], count: int
) -> None:
    """For the loss, the gradient's norm, the sums by segment and, of float16, the scale; at a step's end."""
    found = {}
    with fake_cuda() as waits:
        base = load(tiny_model).to("cuda")
        for steps in (2, 4):
            chosen = evolve(FAST, batch_size=4, steps=steps, **settings)
            waits.clear()
            train(base, tokenizer, tmp_path / str(steps), many(24), settings=chosen)
            found[steps] = Counter(waits)
    assert sum((found[4] - found[2]).values()) == 2 * count, found[4] - found[2]


@pytest.mark.parametrize("precision", ["bfloat16", "float32"])
@pytest.mark.parametrize("kind", CONFIGS)
def test_what_a_gpu_keeps_for_a_backward_pass_is_what_the_plan_counts(kind: str, precision: str) -> None:
    config, lora, rows, length, completion = CONFIGS[kind], Lora(r=4), 2, 24, 4
    labels = torch.full((rows, length), IGNORED)
    labels[:, -completion:] = 5
    ones = torch.ones_like(labels)
    batch = {"input_ids": ones, "attention_mask": ones, "labels": labels, "segments": labels.clamp(max=0)}
    model = Model(id=kind, attention="eager" if kind == "gemma2" else "sdpa")
    with fake_cuda():
        base = transformers.AutoModelForCausalLM.from_config(
            config, dtype=torch.bfloat16, attn_implementation=model.attention
        ).requires_grad_(False).to("cuda")  # fmt: skip
        adapted = attach_adapter(base, lora).train()
        half = precision != "float32"
        with (
            torch.autocast("cuda", torch.bfloat16, enabled=half),
            disable_input_dtype_casting(adapted, active=half),
            saved_storages(adapted, lambda tensor: getattr(tensor, "inner", tensor)) as kept,
        ):
            completion_loss(find_lens(adapted), {name: values.to("cuda") for name, values in batch.items()})
    counted = count_saved(config, model, lora, Train(precision=precision), rows, length, completion)
    assert counted.peak == pytest.approx(sum(storage.nbytes() for storage in kept), rel=0.05)
