"""No cell touches another: whatever fails in one, the base model of the next is as it was loaded."""

from __future__ import annotations

import gc
import os
import random
import shutil
from collections.abc import Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import faults
import pytest
import torch
from children import assert_same, assert_whole, contents
from facts import facts
from small_study import make_llama, spec_text
from transformers import AutoModelForCausalLM, Phi3Config, Phi3ForCausalLM

from engine.errors import Interrupted
from engine.models import loading as models
from engine.models.base_model import BaseModel, as_it_was
from engine.planning.plan import make_plan
from engine.process_group.alone import ALONE
from engine.progress import StopRequest
from engine.running.cell_runner import CellRunner
from engine.running.display import Display
from engine.running.manifest import manifest
from engine.running.outcome import Options, Outcome
from engine.stages.cell_stages import Stages
from engine.stages.training.adapter import attach_adapter
from specs import load_spec, resolve
from specs.tables.experiment import Lora
from store import Ledger, LostClaimError, StoreError, StoreWriter, open_store, write_manifest

# File operations that are drawn to fail, or "all", or from one to another of them: "1-400".
FAULTS = os.environ.get("ABLATION_ENGINE_FAULTS", "8")
CELLS = """
[factors.adapter.levels]
all = { lora.target_modules = "all-linear" }
some = { lora.target_modules = ["q_proj"] }
head = { lora.target_modules = ["v_proj"], lora.modules_to_save = ["lm_head"] }
dora = { lora.dora = true }
"""
PAIR = """
[factors.adapter.levels]
much = { lora.target_modules = "all-linear", lora.modules_to_save = ["lm_head"], lora.dora = true }
some = { lora.target_modules = ["q_proj"] }
"""


class Study:
    """A study that runs in this process, as often as one likes, into stores of its own."""

    def __init__(self, folder: Path, model: Path, data: Path, more: str, train: str = "steps = 2") -> None:
        self.folder, self.model = folder, model
        self.spec = folder / "study.toml"
        train += "\nlr = 1e-2\nwarmup = 0.0"
        self.spec.write_text(spec_text(folder, model, data, seeds=(0,), factors=more, train=train))
        self.cells = resolve(load_spec(self.spec)).cells
        self.loaded: list[Any] = []  # base models, in the order in which they were loaded

    def run(self, root: Path, **options: bool) -> Outcome:
        """Run what is pending."""
        plan = make_plan(resolve(load_spec(self.spec)), root)
        write_manifest(plan.root, "small", manifest(plan, {}))
        load = models.load

        def noted(*arguments: Any) -> Any:
            found = load(*arguments)
            self.loaded.append(found[0])
            return found

        ledger = Ledger(plan.root)
        stages = Stages(plan, ledger, StoreWriter(plan.root), {}, StopRequest())
        execution = CellRunner(plan, stages, Options(**options), Display(), StopRequest())
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(models, "load", noted)
            try:
                return execution.run(plan.cells)
            finally:
                for stage, key in list(ledger._held):  # as the end of the process would
                    ledger.release(stage, key)

    @cached_property
    def fresh(self) -> dict[str, Any]:
        """The state of the model as it is loaded."""
        model = AutoModelForCausalLM.from_pretrained(
            self.model, dtype=torch.float32, attn_implementation="sdpa"
        )
        return state_of(model.requires_grad_(False))


def state_of(model: torch.nn.Module) -> dict[str, Any]:
    """All of a model that a cell can leave its traces on."""
    found: dict[str, Any] = {
        "config": model.config.to_dict(),
        "attention": model.config._attn_implementation,
        "generation": model.generation_config.to_dict(),
        "weights": {name: tensor.numpy().tobytes() for name, tensor in model.state_dict().items()},
        "buffers": {name: tensor.numpy().tobytes() for name, tensor in model.named_buffers()},
        "trained": [name for name, p in model.named_parameters() if p.requires_grad or p.grad is not None],
    }
    for name, module in model.named_modules():
        plain = {key: value for key, value in vars(module).items() if isinstance(value, bool | int | str)}
        hooks = {key: len(value) for key, value in vars(module).items() if key.endswith("hooks") and value}
        found[f"module {name}"] = type(module), sorted(vars(module)), plain, hooks
    return found


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory, rated_file: Path) -> Iterator[Study]:
    """Four adapters on a model of one layer."""
    torch.manual_seed(0)
    sizes = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    model = make_llama(tmp_path_factory.mktemp("model"), **sizes)
    gc.freeze()  # each training collects garbage, which among all that is imported takes longer than itself
    yield Study(tmp_path_factory.mktemp("study"), model, rated_file, CELLS)
    gc.unfreeze()


@pytest.fixture(scope="module")
def undisturbed(study: Study) -> dict[str, object]:
    """What the study comes to when nothing fails."""
    outcome = study.run(study.folder / "undisturbed")
    assert not outcome.failed and len(study.loaded) == 1
    return contents(study.folder / "undisturbed")


def check(
    study: Study, root: Path, undisturbed: dict[str, object], disturbed: Outcome | None, where: str
) -> None:
    """The model is clean, all other cells are what they are without the error, and a retry mends the rest."""
    assert state_of(study.loaded[-1]) == study.fresh, where
    if (root / "experiments" / "small.json").exists():  # else it ended before there was a study to read
        assert_whole(root, study.folder / "undisturbed")
    if disturbed is not None:  # it went on behind the error
        stopped = [stage for _, stage, _ in disturbed.failed] + ["held"] * len(disturbed.held)
        assert len(stopped) <= 1, where
        hit = len(study.cells) if "data" in stopped else len([stage for stage in stopped if stage != "base"])
        assert open_store(root)["small"].attrs["cells_complete"] == len(study.cells) - hit, where
    study.run(root, retry_failed=True)
    assert_same(contents(root), undisturbed)


# Where a cell fails, and by what. `behind`: when the function has done its work.
BOUNDARIES = [
    ("engine.stages.data.prepare.prepare", OSError("injected"), False),
    ("engine.stages.cell_stages.loading.load", OSError("injected"), False),
    ("engine.stages.training.stage.train_adapter", OSError("injected"), False),
    ("engine.stages.training.train.attach_adapter", RuntimeError("injected"), True),
    ("engine.stages.training.train.CompletionTrainer.train", RuntimeError("injected"), True),
    ("engine.stages.training.train.CompletionTrainer.train", KeyboardInterrupt(), True),
    ("engine.stages.training.train.CompletionTrainer.train", Interrupted(), True),
    ("engine.stages.training.trainer.completion_loss", RuntimeError("injected"), True),
    ("engine.stages.records.Claim.check", LostClaimError("injected"), True),
    ("engine.stages.training.train.save_adapter", OSError("injected"), False),
    ("engine.stages.training.train.save_adapter", OSError("injected"), True),
    ("engine.stages.training.train.save_adapter", KeyboardInterrupt(), False),
    ("peft.PeftModel.save_pretrained", OSError("injected"), False),
    ("store.writer.write_block", OSError("injected"), False),
    ("store.writer.write_block", KeyboardInterrupt(), True),
    ("engine.stages.records.Ledger.commit", LostClaimError("injected"), False),
    ("engine.stages.records.Ledger.commit", OSError("injected"), False),
    ("engine.stages.training.stage.load_adapter", OSError("injected"), False),
    ("engine.stages.training.stage.load_adapter", RuntimeError("injected"), True),
    ("peft.peft_model.set_peft_model_state_dict", RuntimeError("injected"), False),
    ("engine.stages.untrained.evaluate", torch.OutOfMemoryError("injected"), True),
    ("engine.stages.probe.probe_layers", RuntimeError("injected"), False),
    ("engine.stages.lens_values.lens_statistics", RuntimeError("injected"), True),
    ("engine.stages.lens_values.lens_statistics", KeyboardInterrupt(), False),
]


@pytest.mark.parametrize(
    ("name", "error", "behind", "call"),
    [
        *((*own, 1) for own in BOUNDARIES),
        ("engine.stages.evaluate.evaluate", RuntimeError("injected"), True, 1),
    ],
)
def test_an_error_at_a_stages_boundary_harms_no_other_cell(
    study: Study,
    undisturbed: dict[str, object],
    tmp_path: Path,
    name: str,
    error: BaseException,
    behind: bool,
    call: int,  # the first evaluation is the untrained model's
) -> None:
    with faults.calls(name, faults.raising(error), behind=behind, at=call) as fault:
        disturbed = run_into(study, tmp_path, type(error))
    assert fault.what, f"{name} was not called"
    check(study, tmp_path, undisturbed, disturbed, name)


def run_into(study: Study, root: Path, *errors: type[BaseException]) -> Outcome | None:
    """Run the study; None where one of the errors ended it as a whole."""
    try:
        return study.run(root)
    except errors:
        return None


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory, rated_file: Path, study: Study) -> Study:
    """All that an adapter can do to a model, and then one that does little, undisturbed."""
    found = Study(tmp_path_factory.mktemp("pair"), study.model, rated_file, PAIR)
    assert not found.run(found.folder / "undisturbed").failed
    return found


def test_an_error_at_any_file_operation_harms_no_other_cell(pair: Study, tmp_path: Path) -> None:
    """Each of them in turn where ABLATION_ENGINE_FAULTS says so, and else some that are drawn."""
    undisturbed = contents(pair.folder / "undisturbed")
    with faults.file_operations(tmp_path / "all") as fault:
        pair.run(tmp_path / "all")
    for number in chosen_of(fault.count):
        root = tmp_path / str(number)
        with faults.file_operations(root, at=number) as fault:
            disturbed = run_into(pair, root, OSError, StoreError)
        check(pair, root, undisturbed, disturbed, f"{number}: {fault.what}")
        shutil.rmtree(root)


def chosen_of(count: int) -> Sequence[int]:
    """Return which of so many file operations are to fail."""
    numbers = range(1, count + 1)
    if FAULTS == "all":
        return numbers
    first, to, last = FAULTS.partition("-")
    return numbers[int(first) - 1 : int(last)] if to else random.Random(5).sample(numbers, int(first))


TUNED = """
[probe]
lens = "tuned"
heads = true
activation = true
[probe.tuned]
steps = 2
tokens = 40
"""
INTERVENTIONS = """
[factors.adapter.levels]
all = { lora.target_modules = "all-linear" }
none = { train.steps = 0 }

[[interventions]]
name = "graft"
kind = "graft"
donor = { adapter = "all" }
sweep = "below"
"""
HEADS = """
[[interventions]]
name = "heads"
kind = "heads"
layers = [1]
ablation = "mean"
"""
GENERATION = """
[factors.scoring]
path = "evaluate.scoring"
values = [["loglikelihood", "constrained", "generation"]]
"""
KINDS: dict[str, tuple[str, str]] = {  # of cells: further tables, and lines of [train]
    "plain": ("", "steps = 2"),
    "gradient checkpointing": ("", "steps = 2\ngradient_checkpointing = true"),
    "modules trained in full": (CELLS.replace("some =", "# some ="), "steps = 2"),
    "rank-stabilised": ("[factors.r]\npath = 'lora.rslora'\nvalues = [true]", "steps = 2"),
    "early stopping": ("", "steps = 4\nearly_stopping = 1\nvalidate_every = 1"),
    "bfloat16": ("[factors.p]\npath = 'train.precision'\nvalues = ['bfloat16']", "steps = 2"),
    "untrained": ("", "steps = 0"),
    "tuned lens, heads, activations": (TUNED, "steps = 2\ngradient_checkpointing = true"),
    "a graft, also onto no adapter": (INTERVENTIONS, "steps = 2"),
    "ablated heads": (HEADS, "steps = 2"),
    "generation": (GENERATION, "steps = 2"),
}


@pytest.mark.parametrize("kind", KINDS)
def test_a_cell_leaves_the_base_model_as_it_was_loaded(
    kind: str, tmp_path: Path, tiny_model: Path, rated_file: Path
) -> None:
    """Modules, hooks, flags, configs and weights, when all is done and no other cell comes."""
    more, train = KINDS[kind]
    study = Study(tmp_path, tiny_model, rated_file, more, train)
    outcome = study.run(tmp_path / "store")
    assert outcome.ran and not outcome.failed
    (model,) = study.loaded
    assert state_of(model) == study.fresh


def test_a_model_is_loaded_once_however_its_levels_spell_it(
    study: Study, tmp_path: Path, rated_file: Path
) -> None:
    levels = {
        "plain": "",
        "spelled": 'model.attention = "sdpa", train.lr = 1e-3',
        "path": f'model.id = "{study.model}/../{study.model.name}", train.lr = 1e-4',
        "other": 'model.dtype = "bfloat16", train.lr = 1e-3',
        "again": 'model.dtype = "float32", train.lr = 1e-5',
    }
    factor = "[factors.way.levels]\n" + "".join(f"{name} = {{ {level} }}\n" for name, level in levels.items())
    other = Study(tmp_path, study.model, rated_file, factor)
    outcome = other.run(tmp_path / "store")
    assert not outcome.failed and sum(stage == "train" for _, stage, _ in outcome.ran) == len(levels)
    assert [str(model.dtype) for model in other.loaded] == ["torch.float32", "torch.bfloat16"]


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory, rated_file: Path, study: Study) -> Study:
    """Two adapters with every stage behind the training, and what that comes to when nothing fails."""
    cells = CELLS.replace("head =", "# head =").replace("dora =", "# dora =")
    found = Study(tmp_path_factory.mktemp("measured"), study.model, rated_file, cells + TUNED + HEADS)
    assert not found.run(found.folder / "undisturbed").failed
    return found


@pytest.mark.parametrize(
    ("stage", "name", "call"),
    [
        ("train", "engine.stages.training.trainer.completion_loss", 1),
        ("base", "engine.stages.untrained.evaluate", 1),
        ("evaluate", "engine.stages.evaluate.evaluate", 1),
        ("lens", "engine.stages.tuned_lens.tune", 1),
        ("probe", "engine.stages.probe.probe_layers", 1),
        ("intervene", "engine.stages.interventions.stage.InterventionRun.run", 1),
    ],
)
def test_nothing_is_committed_that_was_made_with_changed_weights(
    measured: Study, tmp_path: Path, stage: str, name: str, call: int
) -> None:
    """The stage fails, the cell's others come to a model loaded for them, and a retry begins anew."""

    def change() -> None:
        measured.loaded[-1].model.embed_tokens.weight.data *= 1.5

    before = len(measured.loaded)
    told = pytest.warns(match=facts("adapter=all", "weights"))
    with faults.calls(name, change, at=call) as fault, told:
        outcome = measured.run(tmp_path)
    assert fault.what
    ((_, failed, message),) = outcome.failed
    assert failed == stage and message.startswith("ChangedWeightsError: the weights of the base model")
    assert len(measured.loaded) == before + 2
    undisturbed = contents(measured.folder / "undisturbed")
    check(measured, tmp_path, undisturbed, outcome, stage)


@pytest.mark.parametrize("stop", [Interrupted(), torch.OutOfMemoryError("injected")])
def test_nothing_is_gone_on_from_that_was_made_with_changed_weights(
    measured: Study, tmp_path: Path, stop: BaseException
) -> None:
    """A probe that ends early keeps what it has written for the next one, which these weights spoil."""

    def change() -> None:
        measured.loaded[-1].model.embed_tokens.weight.data *= 1.5

    with (
        faults.calls("engine.stages.probe.probe_layers", change),
        faults.calls("engine.stages.probe.write_vocabulary", faults.raising(stop)),
        pytest.warns(match=facts("adapter=all", "weights")),
    ):
        run_into(measured, tmp_path, Interrupted)
    measured.run(tmp_path, retry_failed=True)
    assert_same(contents(tmp_path), contents(measured.folder / "undisturbed"))


def test_a_base_model_is_known_under_an_adapter_and_behind_a_long_sequence() -> None:
    """Long sequences write other frequencies over those that were loaded."""
    sizes = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    rope = {"rope_type": "longrope", "rope_theta": 1e4, "short_factor": [1.0] * 4, "long_factor": [4.0] * 4}
    lengths = {"max_position_embeddings": 64, "original_max_position_embeddings": 8}
    tokens = {"vocab_size": 32, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
    config = Phi3Config(rope_parameters=rope, **lengths, **tokens, **sizes)
    base = BaseModel(Phi3ForCausalLM(config).requires_grad_(False), None)
    former = base.model.model.rotary_emb.inv_freq.clone()
    with as_it_was(base.model):
        lora = Lora(target_modules="all-linear", modules_to_save=["lm_head"])
        attach_adapter(base.model, lora, ALONE)(torch.zeros(1, 20, dtype=torch.long))
        assert not torch.equal(base.model.model.rotary_emb.inv_freq, former)
        assert not base.has_changed()
        base.model.model.layers[0].mlp.down_proj.base_layer.weight[0, 0] += 1
        assert base.has_changed()
