"""The table `[evaluate]`: what a trained model is asked about the test examples."""

from __future__ import annotations

from typing import Annotated, Literal

from attrs import evolve, field, frozen
from msgspec import Meta

from specs.registry import METRICS, Named
from specs.tables.data import Data
from specs.tables.fields import EXECUTION_ONLY, LATER, PositiveInt, read_by
from specs.tables.inspect_tasks import InspectTasks
from specs.tables.sampling import Sampling
from specs.tables.target import Prompt, Target


@frozen(kw_only=True)
class Evaluate:
    """`[evaluate]`: how label accuracy is measured."""

    labels: Annotated[
        list[str],
        Meta(
            min_length=2,
            description="All labels, in rating order. If a spec names none, and no label of its data files "
            "is one of the default, those of the files.",
        ),
    ] = field(
        factory=lambda: ["1", "2", "3", "4", "5"],
        metadata=read_by(
            "data", "train", "evaluate", "lens", "jacobian", "probe", "along", "differences", "intervene"
        ),
    )
    spellings: Annotated[
        dict[
            str,
            list[Annotated[str, Meta(pattern=r"^\S(.*\S)?$", extra={"words": "without spaces around it"})]],
        ],
        Meta(description='Further texts that mean a label: `{ "5" = ["five", "5/5"] }`.'),
    ] = field(factory=dict, metadata=read_by("evaluate", "along", "intervene"))
    scoring: Annotated[
        list[Literal["loglikelihood", "constrained", "generation", "constrained_generation"]],
        Meta(
            min_length=1,
            description="`loglikelihood`: the label that the answer most likely begins with, in any of its "
            "spellings; `constrained`: greedy decoding among the tokens that go on with some spelling; "
            "`generation`: the label parsed from free greedy generation; `constrained_generation`: a greedy "
            "answer whose label is held to the labels, at its place, and whose explanation is free.",
        ),
    ] = field(factory=lambda: ["loglikelihood"])
    length_normalized: Annotated[
        bool,
        Meta(description="Predict by the log-likelihood per token of each label's best spelling."),
    ] = field(default=False, metadata=read_by("evaluate", "along", "intervene"))
    metrics: Annotated[
        list[Annotated[str, Named(METRICS)]],
        Meta(description="Metrics of plug-ins, beside those that are always there. See extending.md."),
    ] = field(factory=list, metadata=LATER | read_by("evaluate"))
    max_new_tokens: Annotated[
        PositiveInt | None,
        Meta(description="Longest generation, in tokens; default: 8 for labels alone, else 64."),
    ] = None
    train_examples: Annotated[
        int,
        Meta(ge=0, description="Training examples that are evaluated, too, for `train_accuracy`."),
    ] = field(default=0, metadata=read_by("evaluate"))
    too_long: Annotated[
        Literal["error", "drop"],
        Meta(
            description="Test examples of more tokens than `train.max_length` or the model's positions, with "
            "what is scored or written behind the prompt: an error before the training, or left out and "
            "counted."
        ),
    ] = field(default="error", metadata=read_by("evaluate", "probe", "along", "differences", "intervene"))
    base_model: Annotated[
        bool,
        Meta(
            description="Evaluate the untrained model, too, asked for the label alone: once for each model, "
            "test set, prompt and labels."
        ),
    ] = field(default=True, metadata=EXECUTION_ONLY)
    counterfactuals: Annotated[
        list[Literal["reference", "other", "agreeing", "contradicting", "empty"]],
        Meta(
            description="Where an explanation comes before the label: score the labels, too, behind what is "
            "put in the place of the model's own one. `reference`: the data's explanation of the example; "
            "`other`: that of another test example, drawn by the seed; `agreeing`, `contradicting`: the same "
            "of an example with the same label, with another label; `empty`: none. See evaluation.md."
        ),
    ] = field(factory=list, metadata=LATER | read_by("evaluate"))
    sampling: Sampling = field(factory=Sampling, metadata=LATER | read_by("evaluate"))
    neutral_text: Annotated[
        Annotated[str, Meta(min_length=1)] | None,
        Meta(
            description="Also measure each model on text beside its task: the next token's cross-entropy and "
            "KL from the model without adapter. `builtin`, or a file (`.jsonl`: `text` of each line)."
        ),
    ] = field(default=None, metadata=LATER | read_by("neutral"))
    tasks: Annotated[
        list[Annotated[str, Meta(min_length=1)]],
        Meta(
            description="Also measure each model on these tasks or groups of tasks of lm-evaluation-harness, "
            "as that does by default; needs the extra `harness`. See tasks.md."
        ),
    ] = field(factory=list, metadata=LATER | read_by("base_tasks", "tasks"))
    task_examples: Annotated[
        PositiveInt | None, Meta(description="Of each task, the first so many examples; default: all.")
    ] = field(default=None, metadata=LATER | read_by("base_tasks", "tasks"))
    task_shots: Annotated[
        Annotated[int, Meta(ge=0)] | None,
        Meta(description="Solved examples before each of a task's; default: as the task has it."),
    ] = field(default=None, metadata=LATER | read_by("base_tasks", "tasks"))
    task_folder: Annotated[
        Annotated[str, Meta(min_length=1)] | None,
        Meta(description="Folder with tasks of your own, as YAML files of lm-evaluation-harness."),
    ] = field(default=None, metadata=LATER | read_by("base_tasks", "tasks"))
    inspect: InspectTasks = field(factory=InspectTasks, metadata=LATER | read_by("base_inspect", "inspect"))
    batch_size: Annotated[int, Meta(ge=1, description="Examples per forward pass.")] = field(
        default=16, metadata=EXECUTION_ONLY
    )
    generation_batch: Annotated[
        Literal["auto"] | PositiveInt,
        Meta(
            description="Examples that text is written for at once, the longest first; no result changes "
            "beyond rounding. `auto`: on a GPU as many as fit by the estimate of memory, up to 16 × "
            "`batch_size`; on a CPU `batch_size`. From where memory is full, half as many."
        ),
    ] = field(default="auto", metadata=EXECUTION_ONLY)
    data: Annotated[
        Data | None,
        Meta(description="Keys that differ from `[data]` for the test examples: transfer studies."),
    ] = field(default=None, metadata=EXECUTION_ONLY)
    prompt: Annotated[
        Prompt | None,
        Meta(
            description="Keys that differ from `[prompt]` for the test examples: one training, many wordings."
        ),
    ] = field(default=None, metadata=EXECUTION_ONLY)

    def new_tokens(self, target: Target) -> int:
        """Give the length of a generation, in tokens."""
        return self.max_new_tokens or (8 if target.content == "label" else 64)

    def of(self, target: Target) -> Evaluate:
        """Give what of these settings counts: counterfactuals where they can take an explanation's place."""
        counterfactuals = self.counterfactuals if target.explains_first else []
        sampling = self.sampling if self.sampling.samples else Sampling()
        return evolve(self, counterfactuals=counterfactuals, sampling=sampling)

    @property
    def plain(self) -> Evaluate:
        """The evaluation alone, without the experiments beside it."""
        return evolve(self, counterfactuals=[], sampling=Sampling())

    @property
    def draws(self) -> bool:
        """Whether the run seed draws something that is evaluated."""
        drawn = {"other", "agreeing", "contradicting"} & set(self.counterfactuals)
        return bool(drawn or self.sampling.samples)

    @property
    def scores(self) -> bool:
        """Whether labels are scored token by token."""
        return set(self.scoring) != {"generation"}

    @property
    def constrains(self) -> bool:
        """Whether a label is decoded greedily among the labels."""
        return "constrained" in self.scoring or self.completes

    @property
    def completes(self) -> bool:
        """Whether what the target has behind a decoded label is written, too."""
        return "constrained_generation" in self.scoring

    def generates(self, target: Target) -> bool:
        """Whether the model writes text: to have a label parsed, or to explain before its label is scored."""
        return "generation" in self.scoring or target.explains_first
