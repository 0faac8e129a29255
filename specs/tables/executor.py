"""`[executor]`: where and how the work runs. No key of it is part of a stage's identity."""

from __future__ import annotations

from typing import Annotated, Literal

from attrs import field, frozen
from msgspec import Meta

from specs.registry import EXECUTORS, Named

DeviceName = Literal[
    "h200", "h100", "h100-pcie", "a100", "a100-40gb", "l40s", "l4", "a10", "rtx-a6000", "rtx-5090",
    "rtx-4090", "rtx-3090", "v100", "t4", "mi300x",
]  # fmt: skip
Count = Annotated[int, Meta(ge=1)]


@frozen(kw_only=True)
class Executor:
    """`[executor]`: where the work runs; nothing here changes a result. See scale.md."""

    kind: Annotated[
        str,
        Named(EXECUTORS),
        Meta(description="This machine, a Ray cluster, SLURM jobs (extras `ray`, `slurm`), or a plug-in."),
    ] = "local"
    workers: Annotated[
        Count | None,
        Meta(
            description="`local`: worker processes; default: none, all runs in the command's own process. "
            "`ray`, `slurm`: at most so many units of work at a time; default: as many as there is room for."
        ),
    ] = None
    device: Annotated[
        DeviceName | None,
        Meta(
            description="GPU for which `engine plan` gives hours, and of whose memory it warns; default: "
            "none. It chooses nothing."
        ),
    ] = None
    workers_per_gpu: Annotated[int, Meta(ge=1, description="Workers that share one GPU.")] = 1
    ranks: Annotated[
        int,
        Meta(
            ge=1,
            description="Processes that share one unit's model, each with a GPU of its own: the weights of "
            "the blocks are sharded over them (FSDP).",
        ),
    ] = 1
    batch: Annotated[
        int,
        Meta(
            ge=1,
            description="`ray`, `slurm`, or with `ranks`: trainings of one model per unit of work, which "
            "loads it once.",
        ),
    ] = 1
    together: Annotated[
        Literal["auto"] | Count,
        Meta(
            description="Trainings of one base model, with batches of one shape and the same steps, that go "
            "through it in one pass; fewer where memory has room for fewer. Each keeps its own optimiser, "
            "order of data, stop and checkpoints, and comes to the result that it has alone, up to rounding. "
            "`auto`: 1."
        ),
    ] = "auto"
    gpus: Annotated[int, Meta(ge=0, description="`slurm`: GPUs per job.")] = 1
    memory: Annotated[
        Annotated[float, Meta(gt=0)] | None,
        Meta(description="`ray`, `slurm`: GiB of memory per unit; default: the plan's estimate."),
    ] = None
    retries: Annotated[
        int,
        Meta(ge=0, description="Further tries of a stage at which workers died, since it last went on."),
    ] = 2
    grace: Annotated[
        float, Meta(ge=0, description="`local`: seconds that a worker has to save and end when it must stop.")
    ] = 60.0
    lease: Annotated[
        float,
        Meta(gt=0, description="Seconds of silence after which another machine's claim is taken over."),
    ] = 60.0
    address: Annotated[
        str | None,
        Meta(description="`ray`: address of a running cluster, or `auto`; default: one on this machine."),
    ] = None
    cluster: Annotated[
        Literal["slurm", "local"],
        Meta(description="`slurm`: `local` runs the jobs as processes of this machine, to try a set-up."),
    ] = "slurm"
    partition: Annotated[str | None, Meta(description="`slurm`: partition.")] = None
    minutes: Annotated[
        int,
        Meta(
            ge=5,
            description="`slurm`: a job's time limit. Some two minutes before it a training saves, and the "
            "job is queued again.",
        ),
    ] = 240
    notify: Annotated[
        Annotated[str, Meta(min_length=1)] | None,
        Meta(
            description="Shell command that every `engine execute` runs at its end: done (also where nothing "
            "was left to do), failed or stopped. Its environment has ABLATION_EXPERIMENT, ABLATION_STORE, "
            "ABLATION_STATE and ABLATION_SUMMARY."
        ),
    ] = None
    sbatch: Annotated[
        dict[str, str | int], Meta(description="`slurm`: further options of sbatch, such as `account`.")
    ] = field(factory=dict)
