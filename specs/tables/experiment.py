"""The typed spec: one attrs class per TOML table, one annotated field per key.

A field's `Meta` carries its bounds and its documentation; the loader checks the bounds, the JSON Schema
and `docs/spec.md` show both. `stages` in a field's metadata names the stages whose result the key can
change, where that differs from the table's own entry in `TABLE_STAGES`; an empty tuple marks a key that
only says how to run, so changing it never invalidates a result. `later` marks a key that is newer than
results that stand: at its default it leaves their identity as it was.
"""

from __future__ import annotations

from typing import Annotated, Literal

from attrs import evolve, field, frozen
from msgspec import Meta

from specs.tables.analysis import Analysis
from specs.tables.annotate import Annotate
from specs.tables.data import Data
from specs.tables.design import Contrast, Factor, Rules
from specs.tables.evaluate import Evaluate
from specs.tables.executor import Executor
from specs.tables.fields import (
    EXECUTION_ONLY,
    LATER,
    WORDS_OF_NAME,
    FloatType,
    PositiveInt,
    Quantization,
    read_by,
)
from specs.tables.interventions import Intervention
from specs.tables.lora import Lora as Lora
from specs.tables.probe import Probe
from specs.tables.signatures import Signatures
from specs.tables.target import Prompt, Target

STAGES = (
    "data", "base", "base_tasks", "base_inspect", "train", "evaluate", "neutral", "tasks", "inspect", "lens",
    "jacobian", "probe", "along", "differences", "intervene",
)  # fmt: skip

# The stages that read each table, unless a field's metadata says otherwise.
TABLE_STAGES: dict[str, tuple[str, ...]] = {
    "model": ("train",),
    "data": ("data",),
    "prompt": ("train", "evaluate", "lens", "jacobian", "probe", "along", "differences", "intervene"),
    "target": ("train", "evaluate", "lens", "jacobian", "probe", "along", "differences", "intervene"),
    "lora": ("train",),
    "train": ("train",),
    "evaluate": ("evaluate", "along"),
    "probe": ("probe", "along"),
}

OVERLAID = ("data", "prompt")  # tables over which `[evaluate]` lays keys for the test examples


@frozen(kw_only=True)
class Model:
    """`[model]`: the causal language model that every cell starts from."""

    id: Annotated[
        str,
        Meta(
            min_length=1,
            description="Hub id (`meta-llama/Llama-3.1-8B`), local folder, `.gguf` file, or "
            "`package:NAME/FILE` for a file inside an installed Python package.",
        ),
    ]
    gguf_file: Annotated[
        str | None, Meta(description="Name of the GGUF file inside the folder or hub repository.")
    ] = None
    revision: Annotated[str | None, Meta(description="Hub commit, tag or branch; pin a commit.")] = None
    dtype: Annotated[FloatType, Meta(description="Type of the frozen weights.")] = "bfloat16"
    quantization: Annotated[
        Quantization,
        Meta(description="Weight quantisation through bitsandbytes (CUDA only)."),
    ] = "none"
    attention: Annotated[
        Literal["eager", "sdpa", "flash_attention_2"],
        Meta(description="Attention implementation; `eager` serves every architecture, Gemma 2 that alone."),
    ] = "sdpa"
    device: Annotated[
        str,
        Meta(
            pattern=r"^(auto|cpu|cuda(:\d+)?)$",
            extra={"words": '"auto", "cpu", "cuda" or "cuda:N"'},
            description="Where the model computes: `auto` (a GPU, if torch can use one), `cpu`, `cuda`, or "
            "`cuda:N` of the GPUs that the process sees. A worker sees those that its executor deals out to "
            "it, counted from 0.",
        ),
    ] = field(default="auto", metadata=EXECUTION_ONLY)
    end_token: Annotated[
        Annotated[str, Meta(min_length=1)] | None,
        Meta(
            description="Text of the token with which every target ends, and generation stops; default: the "
            "tokenizer's own end token.",
        ),
    ] = None
    trust_remote_code: Annotated[
        bool, Meta(description="Run the model repository's own Python code. Off unless you vouch for it.")
    ] = False


@frozen(kw_only=True)
class Train:
    """`[train]`: the optimisation."""

    epochs: Annotated[float, Meta(gt=0, description="Passes over the training examples.")] = 1.0
    steps: Annotated[
        Annotated[int, Meta(ge=0)] | None,
        Meta(description="Optimiser steps; overrides `epochs`. 0 leaves the model untrained."),
    ] = None
    tokens: Annotated[
        PositiveInt | None,
        Meta(
            description="In place of `epochs` or `steps`: as many steps as it takes to take in so many "
            "tokens of prompts and answers, padding not counted."
        ),
    ] = field(default=None, metadata=LATER)
    label_tokens: Annotated[
        PositiveInt | None,
        Meta(description="The same for tokens of labels alone."),
    ] = field(default=None, metadata=LATER)
    batch_size: Annotated[int, Meta(ge=1, description="Examples of a batch.")] = 8
    accumulation: Annotated[int, Meta(ge=1, description="Batches per optimiser step.")] = 1
    lr: Annotated[float, Meta(gt=0, description="Peak learning rate.")] = 2e-4
    schedule: Annotated[
        Literal["constant", "linear", "cosine"], Meta(description="Learning rate after warm-up.")
    ] = "linear"
    warmup: Annotated[
        float, Meta(ge=0, lt=1, description="Share of the steps over which the rate rises from 0.")
    ] = 0.05
    weight_decay: Annotated[float, Meta(ge=0, description="AdamW's decoupled weight decay.")] = 0.0
    max_grad_norm: Annotated[float, Meta(gt=0, description="Gradients are clipped to this norm.")] = 1.0
    precision: Annotated[
        FloatType,
        Meta(
            description="Arithmetic of the forward and backward pass. Below float32: autocast over the whole "
            "loss, also of validations, `float16` with scaled gradients; `float32`: none, each product in "
            "its weights' type. What is trained, and the cross-entropy, stay in float32 in any case."
        ),
    ] = "bfloat16"
    max_length: Annotated[
        int,
        Meta(
            ge=8,
            description="Tokens per example, prompt and answer; longer training examples are counted and "
            "left out; for longer test examples see `evaluate.too_long`. A model with fewer positions sets a "
            "lower limit.",
        ),
    ] = field(
        default=1024,
        metadata=read_by(
            "train", "evaluate", "lens", "jacobian", "probe", "along", "differences", "intervene"
        ),
    )
    early_stopping: Annotated[
        int,
        Meta(
            ge=0,
            description="Stop after so many validations without a better loss per token, and keep the best "
            "adapter; 0: neither validate nor stop. The rows are those of the split `validation`.",
        ),
    ] = 0
    validate_every: Annotated[
        int, Meta(ge=1, description="Steps between validations; the last step has one, too.")
    ] = 50
    micro_batch: Annotated[
        Literal["auto"] | PositiveInt,
        Meta(
            description="Most examples of a batch that go through the model at once; the loss and its "
            "gradient are those of the whole batch, up to rounding. `auto`: as many as fit by the estimate "
            "of memory."
        ),
    ] = field(default="auto", metadata=EXECUTION_ONLY)
    gradient_checkpointing: Annotated[
        Literal["auto"] | bool,
        Meta(
            description="Recompute activations in the backward pass to save memory. `auto`: where not even "
            "one example at once fits otherwise."
        ),
    ] = field(default="auto", metadata=EXECUTION_ONLY)
    compile: Annotated[
        bool,
        Meta(
            description="Compile the decoder layers (torch.compile) for the training: fewer operators, to "
            "the same result up to rounding. The first steps of a process wait for it, and a CPU needs a C++ "
            "compiler."
        ),
    ] = field(default=False, metadata=EXECUTION_ONLY)
    checkpoint_minutes: Annotated[
        float, Meta(gt=0, description="Minutes between checkpoints; at most so many are lost by a kill.")
    ] = field(default=5.0, metadata=EXECUTION_ONLY)
    checkpoint_every: Annotated[
        Annotated[int, Meta(ge=1)] | None,
        Meta(description="Steps between checkpoints; overrides `checkpoint_minutes`."),
    ] = field(default=None, metadata=EXECUTION_ONLY)
    resume: Annotated[bool, Meta(description="Go on from the newest checkpoint after a stop.")] = field(
        default=True, metadata=EXECUTION_ONLY
    )
    report_to: Annotated[
        list[str],
        Meta(
            description="Trackers passed on to the Trainer: tensorboard, wandb, trackio … Files of those "
            "that write beside checkpoints, of TensorBoard and of W&B go to `train/KEY/logs` of the store, "
            "unless TENSORBOARD_LOGGING_DIR or WANDB_DIR name another place. TensorBoard's are in "
            "EXPERIMENT/CONDITION/CELL there."
        ),
    ] = field(factory=list, metadata=EXECUTION_ONLY)

    def in_one_spelling(self) -> Train:
        """Give the same training with what nothing reads at its default.

        That is epochs beside another length, and how often to validate where nothing goes by it.
        """
        default = Train()
        in_epochs = self.steps is self.tokens is self.label_tokens is None
        return evolve(
            self,
            epochs=self.epochs if in_epochs else default.epochs,
            validate_every=self.validate_every if self.early_stopping else default.validate_every,
        )


@frozen(kw_only=True)
class Experiment:
    """A whole spec file."""

    name: Annotated[
        str,
        Meta(
            pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$",
            extra={"words": f"{WORDS_OF_NAME['words']}, 100 at the most"},
            description="Name of the experiment: its group in the store.",
        ),
    ]
    model: Model
    data: Data
    extends: Annotated[
        str | list[str] | None,
        Meta(
            description="Other specs, relative to this one, whose keys this one overrides; of several, the "
            "later overrides the earlier."
        ),
    ] = None
    store: Annotated[
        str | None,
        Meta(
            description="Folder of the store, relative to this file, or a place in a bucket by its URL "
            "(`s3://BUCKET/PREFIX`, `gs://…`, `az://…`; credentials come from the environment); default: "
            "`stores/NAME` beside the spec."
        ),
    ] = None
    seeds: Annotated[
        list[Annotated[int, Meta(ge=0, le=2**32 - 1)]],
        Meta(min_length=1, description="One cell per seed and condition."),
    ] = field(factory=lambda: [0])
    prompt: Prompt = field(factory=Prompt)
    target: Target = field(factory=Target)
    lora: Lora = field(factory=Lora)
    train: Train = field(factory=Train)
    evaluate: Evaluate = field(factory=Evaluate)
    probe: Probe = field(factory=Probe)
    annotate: Annotate | None = None
    signatures: Signatures = field(factory=Signatures)
    executor: Executor = field(factory=Executor)
    factors: Annotated[dict[str, Factor], Meta(description="The axes of the matrix.")] = field(factory=dict)
    rules: Rules = field(factory=Rules)
    contrasts: list[Contrast] = field(factory=list)
    analysis: Analysis = field(factory=Analysis)
    interventions: list[Intervention] = field(factory=list)
