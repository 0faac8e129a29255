"""However long the parts of D are in which the C core multiplies, every bit of its results is the same."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from lens_programs import raw_answers

from kernels import Unembedding

ROOT = Path(__file__).parents[2]
DEPTHS = (1024, 2, 6, 64)  # the first is the C core's own, and more than any drawn width


@pytest.fixture(scope="module")
def programs(tmp_path_factory: pytest.TempPathFactory) -> list[list[str]]:
    compiler = os.environ.get("CC", "cc")
    if shutil.which(compiler) is None:
        pytest.skip(f"missing: {compiler}")
    folder, commands = tmp_path_factory.mktemp("parts"), []
    sources = [str(path) for path in sorted((ROOT / "kernels/csrc").glob("*.c"))]
    for depth in DEPTHS:
        commands.append([str(folder / str(depth))])
        flags = ["-std=c11", "-O1", "-ffp-contract=off", "-fno-math-errno", "-Ikernels/csrc"]
        command = [compiler, *flags, f"-DLENS_DEPTH={depth}", "tests/kernels/lens_answers.c", *sources, "-lm"]
        subprocess.run([*command, "-o", *commands[-1]], cwd=ROOT, check=True)
    return commands


@settings(max_examples=30, deadline=None)
@given(
    seed=st.integers(0, 2**32),
    rows=st.integers(1, 70),
    width=st.integers(1, 200),
    vocabulary=st.integers(1, 200),
    halves=st.booleans(),
    softcap=st.sampled_from([None, 30.0]),
)
def test_the_length_of_parts_changes_no_bit(
    programs: list[list[str]],
    seed: int,
    rows: int,
    width: int,
    vocabulary: int,
    halves: bool,
    softcap: float | None,
) -> None:
    generator = torch.Generator().manual_seed(seed)
    dtype = torch.bfloat16 if halves else torch.float32
    head = Unembedding(
        torch.randn(vocabulary, width, generator=generator).to(dtype),
        bias=torch.randn(vocabulary, generator=generator),
        softcap=softcap,
    )
    hidden = torch.randn(rows, width, generator=generator).to(dtype)
    asked = {"hidden": hidden, "unembedding": head, "watch_ids": [0, vocabulary // 2], "top_k": 3}
    whole, *parts = (raw_answers(program, asked | {"final_rows": [rows - 1] * rows}) for program in programs)
    assert all(part == whole for part in parts)
