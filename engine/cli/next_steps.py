"""What `engine doctor` ends with: what to install next, for what, as commands."""

from __future__ import annotations

from collections.abc import Iterator
from importlib import util

import torch

from engine.cli.demo_command import lacking_packages
from engine.cli.installer import pip
from engine.models.devices import unused_gpu
from kernels import cpu_paths

# What an extra is for, by the package that tells whether it is there.
EXTRAS = {
    "ray": ("ray", "clusters with Ray"),
    "submitit": ("slurm", "SLURM"),
    "obstore": ("cloud", "stores in buckets"),
    "dask": ("dask", "stores larger than memory"),
    "lm_eval": ("harness", "tasks of lm-evaluation-harness"),
    "inspect_ai": ("inspect", "tasks of Inspect"),
    "tensorboard": ("tensorboard", "TensorBoard"),
}


def next_steps() -> Iterator[tuple[str, str]]:
    """Yield commands, each with what it brings."""
    if not cpu_paths():
        yield (
            f"{pip()} install --force-reinstall --no-deps --no-binary ablation-engine ablation-engine",
            "the C core, which probes faster on CPUs; needs a C compiler, such as gcc",
        )
    if unused_gpu():
        yield (
            f"{pip()} install --force-reinstall torch",
            "a build of PyTorch that can use this machine's GPU (pytorch.org)",
        )
    if torch.cuda.is_available():
        if util.find_spec("triton") is None:
            yield f"{pip()} install 'ablation-engine[triton]'", "the probe's kernels for GPUs"
        if util.find_spec("bitsandbytes") is None:
            yield f"{pip()} install 'ablation-engine[quantization]'", "models in int8 and nf4"
    lacking = {extra: what for module, (extra, what) in EXTRAS.items() if util.find_spec(module) is None}
    if lacking:
        yield (
            f"{pip()} install 'ablation-engine[{','.join(lacking)}]'",
            f"where you need them: {', '.join(lacking.values())}",
        )
    yield (
        ("engine demo --install", "a real ablation in minutes, with its model and dialogues (140 MB)")
        if lacking_packages()
        else ("engine demo", "a real ablation in minutes")
    )
    yield "engine init DATA", "a spec for data of your own"
