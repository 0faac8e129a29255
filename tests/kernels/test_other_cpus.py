"""The C core on CPUs that are not at hand: ARM in an emulator, AVX-512 and AMX by intrinsics in plain C."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest
import torch
from attrs import frozen
from elementary_functions import assert_within_bounds
from hypothesis import given, settings
from hypothesis import strategies as st
from lens_problems import assert_close, problems
from lens_programs import evaluated, solved

from kernels import Unembedding, lens_statistics
from kernels.backends import cpu_paths
from kernels.lens_reference import statistics_from_logits

ROOT = Path(__file__).parents[2]
FLAGS = ["-std=c11", "-Wall", "-Wextra", "-Werror", "-ffp-contract=off", "-fno-math-errno", "-Ikernels/csrc"]
FLAGS += ["-DLENS_DEPTH=16"]  # so that small products, too, go part by part
HEADERS = Path("/usr/aarch64-linux-gnu/include")
TO_ARM = ["--target=aarch64-linux-gnu", "-isystem", str(HEADERS)]
EMULATED = ["-O1", "-DLENS_EMULATED=1", "-Itests/kernels/emulated"]
FUSED_PATHS = {"arm": ["neon"], "x86": ["amx", "avx512bf16", "avx512", "avx2"]}


@frozen
class Build:
    """How the C core is built for a CPU, and what runs it."""

    cpu: str
    compiler: list[str]
    linker: list[str]
    emulator: list[str]

    @property
    def paths(self) -> list[str]:
        """What its programs answer for."""
        return [*FUSED_PATHS[self.cpu], "portable"]


BUILDS = {
    "arm-gcc": Build(
        "arm", ["aarch64-linux-gnu-gcc", "-O3"], ["aarch64-linux-gnu-gcc", "-static"], ["qemu-aarch64"]
    ),
    "arm-clang": Build(
        "arm", ["clang", "-O3", *TO_ARM], ["aarch64-linux-gnu-gcc", "-static"], ["qemu-aarch64"]
    ),
    "x86": Build("x86", ["gcc", *EMULATED], ["gcc"], []),
}


@frozen
class Programs:
    """Commands that run what was built."""

    build: Build
    walk: list[str]
    answers: list[str]


@pytest.fixture(scope="module", params=BUILDS)
def programs(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Programs:
    """The programs lens_walk and lens_answers for another CPU, or for a better one of the same kind."""
    build = BUILDS[request.param]
    needed = (build.compiler[0], build.linker[0], *build.emulator)
    missing = [name for name in needed if shutil.which(name) is None]
    if build.cpu == "arm" and not (HEADERS / "math.h").exists():
        missing.append(f"{HEADERS}/math.h")
    if build.cpu == "x86" and "avx2" not in cpu_paths():
        missing.append("a CPU with AVX2")
    if missing:
        pytest.skip(f"missing: {', '.join(dict.fromkeys(missing))}")
    folder, objects, commands = tmp_path_factory.mktemp(request.param), [], []
    mains = [ROOT / f"tests/kernels/{name}.c" for name in ("lens_walk", "lens_answers")]
    for source in (*sorted((ROOT / "kernels/csrc").glob("*.c")), *mains):
        target = str(folder / f"{source.stem}.o")
        built([*build.compiler, *FLAGS, "-c", str(source), "-o", target])
        if source in mains:
            program = str(folder / source.stem)
            built([*build.linker, target, *objects, "-lm", "-o", program])
            commands.append([*build.emulator, program])
        else:
            objects.append(target)
    return Programs(build, *commands)


def built(command: list[str]) -> None:
    ran = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr


def test_every_path_walks_over_edge_shapes(programs: Programs) -> None:
    ran = subprocess.run(programs.walk, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert ran.stdout.split()[1::2] == programs.build.paths


@settings(max_examples=40, deadline=None)
@given(problem=problems(), halves=st.booleans())
def test_every_path_agrees_with_the_reference(
    programs: Programs, problem: dict[str, object], halves: bool
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
    answers = solved(programs.answers, problem)
    assert list(answers) == programs.build.paths
    for ours, logits in answers.values():
        assert_close(ours, truth)
        own = statistics_from_logits(logits, torch.tensor(problem["watch_ids"]).long(), problem["top_k"])
        assert torch.equal(ours.watch_rank, own.watch_rank)
        assert torch.equal(ours.top_ids, own.top_ids)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_logit_has_the_same_bits_wherever_it_sits(programs: Programs, dtype: torch.dtype) -> None:
    generator = torch.Generator().manual_seed(3)
    hidden = torch.randn(23, 101, generator=generator).to(dtype)
    weight = torch.randn(130, 101, generator=generator).to(dtype)

    def logits(rows: int, columns: int) -> dict[str, torch.Tensor]:
        asked = {"hidden": hidden[-rows:], "unembedding": Unembedding(weight[-columns:])}
        answers = solved(programs.answers, asked | {"watch_ids": [0], "top_k": 1, "final_rows": None})
        return {name: found for name, (_, found) in answers.items()}

    whole = logits(23, 130)
    for rows, columns in [(rows, 130) for rows in range(1, 23)] + [(23, 1), (23, 31), (23, 64), (11, 65)]:
        for name, found in logits(rows, columns).items():
            assert torch.equal(found, whole[name][-rows:, -columns:]), (name, rows, columns)


def test_elementary_functions_stay_within_their_bounds(programs: Programs) -> None:
    for path in programs.build.paths:

        def evaluate(function: int, x: torch.Tensor, path: str = path) -> torch.Tensor:
            return evaluated(programs.answers, function, x)[path]

        assert_within_bounds(evaluate, fused=path != "portable", step=3001)


@settings(max_examples=20, deadline=None)
@given(
    seed=st.integers(0, 2**32),
    rows=st.integers(1, 40),
    width=st.integers(1, 300),
    halves=st.booleans(),
)
def test_logits_are_sums_in_float32_in_whatever_order(
    programs: Programs, seed: int, rows: int, width: int, halves: bool
) -> None:
    """Paths add in orders of their own; the bound of any order holds for each: D 2^-24 of Σ |h w|."""
    generator = torch.Generator().manual_seed(seed)
    dtype = torch.bfloat16 if halves else torch.float32
    hidden = torch.randn(rows, width, generator=generator).to(dtype)
    weight = torch.randn(65, width, generator=generator).to(dtype)
    asked = {"hidden": hidden, "unembedding": Unembedding(weight)}
    answers = solved(programs.answers, asked | {"watch_ids": [0], "top_k": 1, "final_rows": None})
    exact, sizes = hidden.double() @ weight.double().T, hidden.double().abs() @ weight.double().abs().T
    assert list(answers) == programs.build.paths
    for _, logits in answers.values():
        assert ((logits.double() - exact).abs() <= width * 2**-24 * sizes).all()
