"""Hours and memory of a named GPU, sizes of models that are not on this machine, and memory by counting."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, get_args

import pytest
from commands import engine
from facts import told

from engine.planning.devices import DEVICES, UTILISATION
from engine.planning.known_models import _ROWS, known_model
from engine.planning.own_machine import UTILISATION as UTILISATION_HERE
from specs.tables.executor import DeviceName
from specs.tables.experiment import Model

# Parameters that the models' makers name, in 10^9.
PARAMETERS = {
    "meta-llama/Llama-3.2-1B-Instruct": 1.236, "meta-llama/Llama-3.2-3B": 3.213,
    "meta-llama/Llama-3.1-8B": 8.030, "meta-llama/Llama-3.3-70B-Instruct": 70.55,
    "HuggingFaceTB/SmolLM2-135M": 0.1345, "mistralai/Mistral-7B-v0.3": 7.248, "Qwen/Qwen2.5-0.5B": 0.494,
    "Qwen/Qwen2.5-7B-Instruct": 7.616, "Qwen/Qwen3-0.6B": 0.596, "google/gemma-2-2b-it": 2.614,
    "google/gemma-3-1b-it": 1.000, "microsoft/phi-2": 2.780, "microsoft/phi-4": 14.66,
    "EleutherAI/pythia-1b-deduped": 1.012, "openai-community/gpt2": 0.1244,
    "allenai/OLMo-2-1124-7B-Instruct": 7.299,
}  # fmt: skip


@pytest.fixture(autouse=True)
def _empty_hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))


def plan(spec: Path, *arguments: object) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(engine("plan", spec, "--json", *arguments).output)
    return found


@pytest.mark.parametrize("name", PARAMETERS)
def test_the_table_has_the_sizes_that_makers_name(name: str) -> None:
    known = known_model(Model(id=name))
    assert known is not None
    card = known.card
    assert card.parameters + card.unembedding + card.outside == pytest.approx(
        PARAMETERS[name] * 1e9, rel=0.003
    )


def test_the_table_makes_the_models_of_transformers() -> None:
    """One model of each type: as many numbers in the layers, under the same names."""
    import torch
    import transformers

    from engine.planning.sizes import card_of

    for kind, rows in _ROWS.items():
        known = known_model(Model(id=min(rows, key=lambda name: rows[name][0] * rows[name][2])))
        assert known is not None
        config = transformers.AutoConfig.for_model(known.type, **known.config)
        with torch.device("meta"):
            model = transformers.AutoModelForCausalLM.from_config(config)
        shapes = {name: list(parameter.shape) for name, parameter in model.named_parameters()}
        real = card_of(config.to_dict(), shapes)
        assert real is not None
        assert known.card.parameters == real.parameters, kind
        assert known.card.facts.layer == real.facts.layer, kind
        ours = {(module.inputs, module.outputs, module.count) for module in known.card.facts.linear}
        assert ours == {(module.inputs, module.outputs, module.count) for module in real.facts.linear}, kind


def test_a_plan_has_numbers_before_a_model_is_here(write_spec) -> None:
    spec = write_spec()
    known = ("--set", "model.id=meta-llama/Llama-3.1-8B", "--set", "model.dtype=bfloat16")
    output = engine("plan", spec, *known).output
    assert "sizes from a table" in output and "meta-llama/Llama-3.1-8B" in output
    assert plan(spec, *known)["estimate"]["train"]["peak_memory_bytes"] > 16e9
    assert plan(spec)["sizes_from_table"] == []
    assert "No estimate" in engine("plan", spec, "--set", "model.id=nobody/nothing").output


def test_a_named_gpu_gives_hours_and_tells_what_does_not_fit(write_spec) -> None:
    spec = write_spec()
    model = ("--set", "model.id=meta-llama/Llama-3.1-8B", "--set", "model.dtype=bfloat16")
    here = (*model, "--set", "train.precision=bfloat16", "--set", "executor.device=h100")
    found = plan(spec, *here)
    seconds = found["estimate"]["train"]["flops"] / (989e12 * UTILISATION)
    assert found["estimate"]["train"]["gpu_seconds"] == pytest.approx(seconds)
    assert found["time"]["gpu_hours"] == pytest.approx(found["time"]["hours"]) and not found["warnings"]
    halves = plan(spec, *here, "--set", "executor.workers=2")["time"]
    assert halves["hours"] == pytest.approx(found["time"]["hours"] / 2)
    small = engine("plan", spec, *model, "--set", "executor.device=t4").output
    assert "t4: " in small and "35% of its peak" in small
    told = plan(spec, *model, "--set", "executor.device=t4")["warnings"]
    assert any(line.startswith("executor.device: train needs about") and "16 GB" in line for line in told)
    assert any(" for a batch of 1 × " in line and "train.max_length below 1024" in line for line in told)
    assert plan(spec)["time"] is None
    keys = [plan(spec, *model, *more, "--cells")["matrix"] for more in ((), ("--set", "executor.device=t4"))]
    assert keys[0] == keys[1]


def test_the_rates_of_this_machine_give_hours_where_no_gpu_is_named(
    write_spec: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.delenv("ABLATION_ENGINE_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr("engine.cli.measured_rates.SECONDS", 0.01)
    spec = write_spec()
    assert plan(spec)["time"] is None
    assert "GFLOP/s" in engine("doctor", "--measure").output
    (file,) = tmp_path.glob("ablation-engine/rates-*.json")
    rates = json.loads(file.read_text())
    assert all(number > 0 for number in rates["cpu"].values())
    rates["cpu"]["float32"] = 2.0
    file.write_text(json.dumps({"cpu": rates["cpu"], "cuda": rates["cpu"] | {"float32": 4.0}}))
    found = plan(spec, "--set", "model.device=cpu")
    train = found["estimate"]["train"]
    assert train["gpu_seconds"] == pytest.approx(train["flops"] / (2e12 * UTILISATION_HERE))
    assert found["time"]["measured"] and found["time"]["device"] == "this machine"
    on_gpu = plan(spec)["estimate"]["train"]["gpu_seconds"]  # "auto" takes the GPU
    assert on_gpu == pytest.approx(train["gpu_seconds"] / 2)
    shared = plan(spec, "--set", "model.device=cpu", "--set", "executor.workers=2")["time"]
    assert shared["hours"] == pytest.approx(found["time"]["hours"])  # of one CPU
    told = engine("plan", spec).output
    assert "this machine: " in told and "engine doctor --measure" in told and str(tmp_path) in told
    assert not plan(spec, "--set", "executor.device=t4")["time"]["measured"]
    assert plan(spec, "--set", "executor.kind=ray")["time"] is None
    file.write_text("{}")
    assert plan(spec)["time"] is None


def test_exact_counts_beside_the_rule(write_spec) -> None:
    one = ("--set", "seeds=[0]", "--set", 'rules.exclude=[{target="label+explanation"}]', "--exact")
    (exact,) = plan(write_spec(), *one, "--set", "model.id=HuggingFaceTB/SmolLM2-135M")["exact"]
    assert exact["rule"] == pytest.approx(exact["counted"], rel=0.15)
    output = engine("plan", write_spec(), *one).output  # by the model's own configuration
    assert told(output, "memory", "training") and "by the rule" in output and " B counted" not in output


def test_the_key_names_the_devices_of_the_table() -> None:
    assert get_args(DeviceName) == tuple(DEVICES)
