"""The C core for CPUs that are not at hand: built for 64-bit ARM and run by an emulator of it."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest
import torch
from elementary_functions import assert_within_bounds
from hypothesis import given, settings
from hypothesis import strategies as st
from lens_problems import assert_close, problems
from lens_programs import evaluated, solved

from kernels import Unembedding, lens_statistics
from kernels.lens_reference import statistics_from_logits

ROOT = Path(__file__).parents[2]
FLAGS = [
    "-std=c11",
    "-O3",
    "-Wall",
    "-Wextra",
    "-Werror",
    "-ffp-contract=off",
    "-fno-math-errno",
    "-Ikernels/csrc",
]
HEADERS = Path("/usr/aarch64-linux-gnu/include")
COMPILERS = {
    "gcc": ["aarch64-linux-gnu-gcc"],
    "clang": ["clang", "--target=aarch64-linux-gnu", "-isystem", str(HEADERS)],
}


@pytest.fixture(scope="module", params=COMPILERS)
def arm(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[str]]:
    """Commands that run the programs lens_walk and lens_answers, built for ARM."""
    compiler = COMPILERS[request.param]
    emulator = shutil.which("qemu-aarch64") or shutil.which("qemu-aarch64-static")
    missing = [name for name in (compiler[0], "aarch64-linux-gnu-gcc") if shutil.which(name) is None]  # links
    missing += [] if emulator else ["qemu-aarch64"]
    missing += [] if (HEADERS / "math.h").exists() else [f"{HEADERS}/math.h"]
    if missing:
        pytest.skip(f"missing: {', '.join(dict.fromkeys(missing))}")
    folder, commands, objects = tmp_path_factory.mktemp(request.param), {}, []
    programs = [ROOT / f"tests/kernels/{name}.c" for name in ("lens_walk", "lens_answers")]
    for source in (*sorted((ROOT / "kernels/csrc").glob("*.c")), *programs):
        target = str(folder / f"{source.stem}.o")
        built([*compiler, *FLAGS, "-c", str(source), "-o", target])
        if source in programs:
            program = str(folder / source.stem)
            built(["aarch64-linux-gnu-gcc", "-static", target, *objects, "-lm", "-o", program])
            commands[source.stem] = [str(emulator), program]
        else:
            objects.append(target)
    return commands


def built(command: list[str]) -> None:
    ran = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr


def test_arm_walks_its_paths_over_edge_shapes(arm: dict[str, list[str]]) -> None:
    ran = subprocess.run(arm["lens_walk"], capture_output=True, text=True)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert ran.stdout.split()[1::2] == ["neon", "portable"]


@settings(max_examples=40, deadline=None)
@given(problem=problems(), halves=st.booleans())
def test_arm_agrees_with_the_reference(
    arm: dict[str, list[str]], problem: dict[str, object], halves: bool
) -> None:
    """Statistics are those of the reference, and ranks and top tokens those of the path's own logits."""
    head, hidden, ids = problem["unembedding"], problem["hidden"], problem["watch_ids"]
    assert isinstance(head, Unembedding)
    if not len(hidden):
        return
    if halves:
        head = Unembedding(
            head.weight.bfloat16(),
            bias=head.bias,
            scale=head.scale,
            softcap=head.softcap,
            vocab_size=head.vocab_size,
        )
        problem |= {"unembedding": head, "hidden": hidden.bfloat16()}
    if ids and isinstance(ids[0], list):
        problem["watch_ids"] = ids[0]
    truth = lens_statistics(**problem, backend="reference")
    answers = solved(arm["lens_answers"], problem)
    assert list(answers) == ["neon", "portable"]
    for ours, logits in answers.values():
        assert_close(ours, truth)
        own = statistics_from_logits(logits, torch.tensor(problem["watch_ids"]).long(), problem["top_k"])
        assert torch.equal(ours.watch_rank, own.watch_rank)
        assert torch.equal(ours.top_ids, own.top_ids)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_arm_gives_a_logit_the_same_bits_wherever_it_sits(
    arm: dict[str, list[str]], dtype: torch.dtype
) -> None:
    generator = torch.Generator().manual_seed(3)
    hidden = torch.randn(23, 37, generator=generator).to(dtype)
    weight = torch.randn(130, 37, generator=generator).to(dtype)

    def logits(rows: int, columns: int) -> dict[str, torch.Tensor]:
        asked = {"hidden": hidden[-rows:], "unembedding": Unembedding(weight[-columns:])}
        answers = solved(arm["lens_answers"], asked | {"watch_ids": [0], "top_k": 1, "final_rows": None})
        return {name: found for name, (_, found) in answers.items()}

    whole = logits(23, 130)
    for rows, columns in [(rows, 130) for rows in range(1, 23)] + [(23, 1), (23, 31), (23, 64), (11, 65)]:
        for name, found in logits(rows, columns).items():
            assert torch.equal(found, whole[name][-rows:, -columns:]), (name, rows, columns)


def test_arm_keeps_elementary_functions_within_their_bounds(arm: dict[str, list[str]]) -> None:
    for path in ("neon", "portable"):

        def evaluate(function: int, x: torch.Tensor, path: str = path) -> torch.Tensor:
            return evaluated(arm["lens_answers"], function, x)[path]

        assert_within_bounds(evaluate, fused=path == "neon", step=3001)
