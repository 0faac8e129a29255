"""The C backend on every path that this CPU supports: accuracy, the strict order, bits, memory, bad input."""

from __future__ import annotations

import gc
import os
import shutil
import subprocess
import sys
from importlib.metadata import distributions
from pathlib import Path

import pytest
import torch
from elementary_functions import assert_within_bounds
from facts import facts
from hypothesis import given, settings
from hypothesis import strategies as st
from lens_problems import FLOATS, arguments, assert_close, problems
from torch import Tensor

from kernels import LensStatistics, Unembedding, backends, lens_statistics

pytest.importorskip("kernels._lens", reason="the C core is not built")

from kernels import lens_c as launcher
from kernels import lens_c_weights as packing
from kernels.c_library import cpu_paths, ffi, lib, path_number, pointer
from kernels.lens_c import PackedProjection, c_backend
from kernels.lens_c_weights import PackedUnembedding, pack, packed_once
from kernels.lens_reference import statistics_from_logits

ROOT = Path(__file__).parents[2]
PATHS = cpu_paths()
TYPES = [torch.float32, torch.bfloat16]
drawn_path, drawn_type = st.sampled_from(PATHS), st.sampled_from(TYPES)


def convert(problem: dict[str, object], dtype: torch.dtype) -> dict[str, object]:
    head = problem["unembedding"]
    converted = Unembedding(
        head.weight.to(dtype),
        bias=head.bias,
        scale=head.scale,
        softcap=head.softcap,
        vocab_size=head.vocab_size,
    )
    return problem | {"hidden": problem["hidden"].to(dtype), "unembedding": converted}


def run(problem: dict[str, object], path: str) -> LensStatistics:
    return c_backend(
        *arguments(problem),
        path=path,
    )


def logits(hidden: Tensor, head: Unembedding | PackedUnembedding, path: str | None = None) -> Tensor:
    """The backend's own logits [R, V]: those of watching every token."""
    head = head if isinstance(head, PackedUnembedding) else pack(head)
    projection = PackedProjection.of(hidden, head, path)
    rows = torch.empty(len(hidden) * projection.row_bytes(), dtype=torch.uint8)
    projection.pack_rows(hidden, torch.arange(len(hidden)), rows)
    return projection.logits(rows, len(hidden), torch.arange(head.vocab_size))


def same_bits(a: LensStatistics, b: LensStatistics) -> bool:
    names = (*FLOATS, "top_ids", "watch_rank")
    pairs = [(getattr(a, name), getattr(b, name)) for name in names]
    return all(
        (x is None and y is None) or torch.equal(x.view(torch.int32), y.view(torch.int32)) for x, y in pairs
    )


@pytest.mark.parametrize("path", PATHS)
@settings(max_examples=100, deadline=None)
@given(problem=problems(), dtype=drawn_type)
def test_every_path_agrees_with_the_reference(
    path: str, problem: dict[str, object], dtype: torch.dtype
) -> None:
    problem = convert(problem, dtype)
    truth = lens_statistics(**problem, backend="reference")
    assert_close(run(problem, path), truth)


@pytest.mark.parametrize("path", PATHS)
@settings(max_examples=100, deadline=None)
@given(problem=problems(), dtype=drawn_type)
def test_ranks_and_top_tokens_are_those_of_the_own_logits(
    path: str, problem: dict[str, object], dtype: torch.dtype
) -> None:
    problem = convert(problem, dtype)
    head = problem["unembedding"]
    problem["watch_ids"] = list(range(head.vocab_size))
    truth = statistics_from_logits(
        logits(problem["hidden"], head, path), torch.arange(head.vocab_size), problem["top_k"]
    )
    ours = run(problem, path)
    assert torch.equal(ours.watch_rank, truth.watch_rank)
    assert torch.equal(ours.top_ids, truth.top_ids)


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("dtype", TYPES)
def test_stated_bounds_at_full_width(path: str, dtype: torch.dtype) -> None:
    generator = torch.Generator().manual_seed(0)
    hidden = torch.randn(6, 4096, generator=generator)
    weight = (
        torch.randn(3000, 4096, generator=generator) * torch.tensor([0.5, 1, 2, 3, 4, 6]).repeat(500)[:, None]
    )
    hidden, head = hidden.to(dtype), Unembedding((weight / 64).to(dtype))
    watched = torch.arange(0, 3000, 50)
    ours = c_backend(hidden, head, watched, 5, torch.full((6,), 5), path=path)
    truth = lens_statistics(hidden, head, watch_ids=watched, final_rows=[5] * 6, backend="reference")
    assert (ours.entropy - truth.entropy).abs().max() <= 1e-4
    assert ((ours.logsumexp - truth.logsumexp) / truth.logsumexp).abs().max() <= 1e-5
    torch.testing.assert_close(ours.kl_final.double(), truth.kl_final, atol=1e-4, rtol=0)
    torch.testing.assert_close(ours.js_final.double(), truth.js_final, atol=1e-5, rtol=0)


@pytest.mark.parametrize("path", PATHS)
def test_elementary_functions_stay_within_their_bounds(path: str) -> None:
    def evaluate(function: int, x: Tensor) -> Tensor:
        out = torch.empty_like(x)
        arguments = (pointer("x", x, torch.float32), pointer("out", out, torch.float32))
        lib.lens_evaluate(path_number(path), function, *arguments, len(x))
        return out

    assert_within_bounds(evaluate, fused=path != "portable")


@settings(max_examples=30, deadline=None)
@given(problem=problems(), path=drawn_path, dtype=drawn_type, threads=st.integers(1, 5))
def test_the_number_of_threads_changes_no_bit(
    problem: dict[str, object], path: str, dtype: torch.dtype, threads: int
) -> None:
    problem, before = convert(problem, dtype), torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        alone = run(problem, path)
        torch.set_num_threads(threads)
        assert same_bits(run(problem, path), alone)
    finally:
        torch.set_num_threads(before)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
def test_a_forked_process_has_threads_of_its_own() -> None:
    """In a process without other threads of torch, which do not outlive a fork."""
    script = """
import os, torch
from kernels import Unembedding, lens_statistics
torch.set_num_threads(2)
hidden, head = torch.randn(20, 24), Unembedding(torch.randn(4000, 24))
before = lens_statistics(hidden, head, backend="c")
child = os.fork()
again = lens_statistics(hidden, head, backend="c")
same = torch.equal(before.entropy, again.entropy)
if child:
    raise SystemExit(not same or os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
os._exit(0 if same else 3)
"""
    subprocess.run([sys.executable, "-c", script], cwd=ROOT, check=True, timeout=120)


def test_threads_and_groups_of_rows_change_no_bit_where_blocks_are_many(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(launcher, "ROWS", 150)
    assert launcher._groups(150, 64, 13, 1) == 1
    assert launcher._groups(150, 64, 13, 4) == launcher._groups(150, 4096, 13, 1) == 2
    generator = torch.Generator().manual_seed(2)
    hidden, head = (
        torch.randn(500, 16, generator=generator),
        Unembedding(torch.randn(4001, 16, generator=generator)),
    )
    final, before = torch.arange(500) // 7 * 7, torch.get_num_threads()
    try:
        results = []
        for threads, group_bytes in ((1, 1 << 18), (2, 1 << 18), (3, 1)):
            monkeypatch.setattr(launcher, "GROUP_BYTES", group_bytes)
            torch.set_num_threads(threads)
            results.append(c_backend(hidden, head, torch.tensor([7, 4000]), 5, final))
    finally:
        torch.set_num_threads(before)
    assert same_bits(results[0], results[1]) and same_bits(results[0], results[2])
    assert (results[0].kl_final[::7] == 0).all()
    assert_close(
        results[0], lens_statistics(hidden, head, watch_ids=[7, 4000], final_rows=final, backend="reference")
    )


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("dtype", TYPES)
def test_a_logit_has_the_same_bits_wherever_it_sits(path: str, dtype: torch.dtype) -> None:
    """Tile heights and panels differ with the lengths; an entry's sum does not."""
    generator = torch.Generator().manual_seed(3)
    hidden = torch.randn(30, 37, generator=generator).to(dtype)
    weight = torch.randn(130, 37, generator=generator).to(dtype)
    whole = logits(hidden, Unembedding(weight), path)
    for rows in range(1, 31):
        assert torch.equal(logits(hidden[-rows:], Unembedding(weight), path), whole[-rows:])
    for columns in (1, 31, 32, 33, 63, 64, 65, 129):
        assert torch.equal(logits(hidden, Unembedding(weight[-columns:]), path), whole[:, -columns:])


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("vocabulary", [1, 31, 32, 33, 768, 769, 1600])
def test_lengths_around_tiles(path: str, vocabulary: int) -> None:
    generator = torch.Generator().manual_seed(vocabulary)
    head = Unembedding(torch.randn(vocabulary, 5, generator=generator))
    for rows in (1, 3, 4, 5, 6, 7, 13, 14, 15, 28, 29, 130):
        hidden = torch.randn(rows, 5, generator=generator)
        final = torch.full((rows,), rows - 1)
        ours = c_backend(hidden, head, torch.tensor([vocabulary - 1, 0]), 3, final, path=path)
        watch_ids = [vocabulary - 1, 0]
        truth = lens_statistics(
            hidden, head, watch_ids=watch_ids, top_k=3, final_rows=final, backend="reference"
        )
        assert_close(ours, truth)


def test_permuted_vocabulary_and_slabs_of_rows() -> None:
    generator = torch.Generator().manual_seed(4)
    hidden, weight = torch.randn(40, 16, generator=generator), torch.randn(500, 16, generator=generator)
    whole = c_backend(hidden, Unembedding(weight), torch.tensor([3, 9]), 5, None)
    shuffled = torch.randperm(500, generator=generator)
    places = torch.argsort(shuffled)[[3, 9]]
    permuted = c_backend(hidden, Unembedding(weight[shuffled]), places, 5, None)
    torch.testing.assert_close(permuted.entropy, whole.entropy)
    assert torch.equal(permuted.watch_rank, whole.watch_rank)
    assert torch.equal(shuffled[permuted.top_ids], whole.top_ids)
    halves = [c_backend(part, Unembedding(weight), torch.tensor([3]), 5, None) for part in hidden.split(13)]
    torch.testing.assert_close(torch.cat([half.entropy for half in halves]), whole.entropy)
    assert torch.equal(torch.cat([half.watch_rank for half in halves])[:, 0], whole.watch_rank[:, 0])


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("size", [1e-30, 1e4, 1e18, 1e36])
def test_tiny_and_huge_logits(path: str, size: float) -> None:
    hidden = torch.tensor([[1.0], [-1.0], [0.0]])
    head = Unembedding(torch.linspace(-1, 1, 70)[:, None] * size)
    final = torch.tensor([0, 1, 2])
    ours = c_backend(hidden, head, torch.tensor([0, 69]), 2, final, path=path)
    truth = lens_statistics(hidden, head, watch_ids=[0, 69], top_k=2, final_rows=final, backend="reference")
    assert ours.nonfinite_rows == 0
    for name in FLOATS:
        torch.testing.assert_close(
            getattr(ours, name).double(), getattr(truth, name), rtol=1e-5, atol=1e-5, msg=name
        )


def test_any_layout_and_floating_type_is_taken() -> None:
    generator = torch.Generator().manual_seed(5)
    hidden, weight = torch.randn(9, 12, generator=generator), torch.randn(100, 12, generator=generator)
    truth = lens_statistics(hidden, Unembedding(weight), watch_ids=[1], backend="reference")
    shifted = torch.empty(9 * 12 + 1).view(torch.uint8)[1:-3].view(-1)  # an odd address
    shifted.copy_(hidden.view(-1).view(torch.uint8))
    misaligned = torch.frombuffer(shifted.numpy(), dtype=torch.float32).view(9, 12)
    for rows in (hidden, hidden.T.contiguous().T, hidden.repeat(1, 2)[:, :12], hidden.double(), misaligned):
        for matrix in (weight, weight.T.contiguous().T, weight.double()):
            ours = lens_statistics(rows, Unembedding(matrix), watch_ids=[1], backend="c")
            assert_close(ours, truth)
    half = lens_statistics(hidden.half(), Unembedding(weight.bfloat16()), backend="c")
    mixed = lens_statistics(hidden.half().float(), Unembedding(weight.bfloat16().float()), backend="c")
    assert torch.equal(half.logsumexp, mixed.logsumexp)


def test_weights_are_packed_once_until_they_change(monkeypatch: pytest.MonkeyPatch) -> None:
    count, beside = 0, packing._beside

    def counted(*arguments: object) -> Tensor:
        nonlocal count
        count += 1
        return beside(*arguments)

    monkeypatch.setattr(packing, "_beside", counted)
    weight = torch.randn(50, 4)
    for expected, change in (
        (1, lambda: None),
        (2, lambda: weight.mul_(2)),  # seen by the version counter
        (3, lambda: weight.data.mul_(2)),  # seen by the sample
    ):
        change()
        for _ in range(2):
            x = logits(torch.ones(1, 4), packed_once(Unembedding(weight)))
        assert count == expected
        torch.testing.assert_close(x[0], weight.sum(dim=1))
    for size in range(10):
        packed_once(Unembedding(torch.ones(size + 1, 4)))
    others = [torch.ones(3, 2) for _ in range(9)]
    for other in others:
        packed_once(Unembedding(other))
    assert len(packing._kept) <= packing.REMEMBERED
    del others, other
    gc.collect()
    assert len(packing._kept) == 0
    with torch.inference_mode():
        packed_once(Unembedding(torch.ones(3, 2)))


@pytest.mark.parametrize("dtype", TYPES)
def test_packing_in_place(dtype: torch.dtype) -> None:
    generator = torch.Generator().manual_seed(6)
    weight, hidden = torch.randn(96, 6, generator=generator).to(dtype), torch.randn(5, 6, generator=generator)
    head = Unembedding(weight, bias=torch.randn(96, generator=generator), scale=0.5, vocab_size=90)
    beside = lens_statistics(hidden, head, watch_ids=[4, 89], final_rows=[4] * 5, backend="c")
    packed = pack(head, in_place=True)
    assert packed.panels.data_ptr() == weight.data_ptr()
    ours = lens_statistics(hidden, packed, watch_ids=[4, 89], final_rows=[4] * 5)
    assert same_bits(ours, beside) and ours.backend == "c"
    with pytest.raises(TypeError, match=facts("unembedding", "PackedUnembedding", '"torch"')):
        lens_statistics(hidden, packed, backend="torch")


@pytest.mark.parametrize(
    ("weight", "message"),
    [
        (torch.zeros(33, 4), "weight: found 33 rows, expected 64 or more"),
        (torch.zeros(32, 4).half(), "weight: found torch.float16"),
        (torch.zeros(4, 32).T, r"weight: found strides \(1, 32\)"),
        (torch.zeros(32, 3).bfloat16(), "weight: found D = 3, expected an even D"),
    ],
)
def test_what_cannot_be_packed_in_place_is_named(weight: Tensor, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        pack(Unembedding(weight), in_place=True)


@settings(max_examples=200, deadline=None)
@given(
    have=st.sampled_from(
        [torch.float32, torch.float64, torch.bfloat16, torch.int64, torch.uint8, torch.float16]
    ),
    want=st.sampled_from([torch.float32, torch.float64, torch.bfloat16, torch.int64, torch.uint8]),
    shape=st.lists(st.integers(0, 4), min_size=1, max_size=3),
    layout=st.sampled_from(["plain", "transposed", "shifted", "meta"]),
)
def test_no_pointer_is_made_from_what_c_would_misread(
    have: torch.dtype, want: torch.dtype, shape: list[int], layout: str
) -> None:
    tensor = torch.zeros(shape, dtype=have, device="meta" if layout == "meta" else "cpu")
    if layout == "transposed":
        tensor = tensor.transpose(0, -1)
    elif layout == "shifted" and tensor.nbytes and have.itemsize > 1:
        memory = bytearray(tensor.nbytes + 64)
        address = torch.frombuffer(memory, dtype=torch.uint8).data_ptr()
        tensor = torch.frombuffer(memory, dtype=have, offset=1 + -address % 8, count=tensor.numel())
    right = have == want and layout != "meta" and tensor.is_contiguous()
    if right and tensor.data_ptr() % have.itemsize == 0:
        assert int(ffi.cast("uintptr_t", pointer("tensor", tensor, want))) == tensor.data_ptr()
    else:
        with pytest.raises((TypeError, ValueError), match=r"tensor: found .*, expected"):
            pointer("tensor", tensor, want)


def test_scratch_memory_stays_bounded_as_the_vocabulary_grows() -> None:
    for vocabulary in (1000, 50_000, 250_000, 1_000_000):
        panels = -(-vocabulary // 32) * 32
        packed = PackedUnembedding(torch.empty(panels * 576), 576, vocabulary, None, 1.0, None)
        for final in (False, True):
            projection = PackedProjection.of(torch.empty(0, 576), packed, None)
            rows = min(2048, launcher._most_rows(projection, 8, 5, final))
            team = launcher.ThreadTeam()
            out = launcher.empty_statistics(rows, 8, 5)
            work = launcher.Workspace(projection, rows, out, final, team)
            tensors = [work.rows, work.scratch, *work.partial.values(), *work.result.values()]
            assert sum(tensor.nbytes for tensor in tensors) <= 60 << 20


def test_auto_takes_c_where_it_is_built_and_says_once_where_it_is_not(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    head, hidden = Unembedding(torch.ones(3, 2)), torch.ones(1, 2)
    assert lens_statistics(hidden, head).backend == "c"
    assert "c" in backends.available_backends() and backends.cpu_paths() == PATHS
    monkeypatch.setattr(backends, "why_no_c_core", lambda: backends.NO_C_CORE.format(reason="no such module"))
    backends._warn_once.cache_clear()
    with pytest.warns(RuntimeWarning, match=facts("C compiler", "pip install")) as caught:
        assert lens_statistics(hidden, head).backend == "torch"
        assert lens_statistics(hidden, head).backend == "torch"
    assert len(caught) == 1
    assert "c" not in backends.available_backends() and backends.cpu_paths() == []
    with pytest.raises(ValueError, match=facts("backend", '"c"', "not built")):
        lens_statistics(hidden, head, backend="c")


def test_a_path_that_is_none_is_named() -> None:
    with pytest.raises(ValueError, match=facts("path", '"avx3"', '"avx…')):
        path_number("avx3")


def copy_of_the_project(to: Path) -> Path:
    for name in ("setup.py", "pyproject.toml", "MANIFEST.in", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, to)
    for name in ("engine", "kernels", "specs", "store"):
        shutil.copytree(ROOT / name, to / name, ignore=shutil.ignore_patterns("*.so", "__pycache__"))
    return to


def test_the_build_succeeds_without_a_compiler_and_says_what_to_do(tmp_path: Path) -> None:
    # Not imported here: it fails in a process that has Python's own distutils already.
    found = [package.version for package in distributions(name="setuptools")]
    if not found or int(found[0].split(".")[0]) < 77:
        pytest.skip(f"setuptools: found {found}, expected 77 or later")
    built = subprocess.run(
        [sys.executable, "setup.py", "build_ext", "--inplace"],
        cwd=copy_of_the_project(tmp_path),
        env={**os.environ, "CC": "/bin/false"},
        capture_output=True,
        text=True,
    )
    assert built.returncode == 0, built.stderr
    assert "install a C compiler" in built.stdout + built.stderr
    assert not list((tmp_path / "kernels").glob("*.so"))
    script = (
        "import sys\n"  # an editable install of the project would lend its own C core to the copy
        "sys.meta_path = [f for f in sys.meta_path if '__editable__' not in getattr(f, '__module__', '')]\n"
        "import torch, kernels\n"
        "statistics = kernels.lens_statistics(torch.ones(1, 2), kernels.Unembedding(torch.ones(3, 2)))\n"
        "print(statistics.backend, kernels.available_backends())"
    )
    ran = subprocess.run([sys.executable, "-c", script], cwd=tmp_path, capture_output=True, text=True)
    assert ran.stdout.split() == ["torch", "['reference',", "'torch']"], ran.stderr
    assert ran.stderr.count("RuntimeWarning") == 1


def test_the_c_files_run_clean_under_sanitizers(tmp_path: Path) -> None:
    """AddressSanitizer and UBSan over all paths and edge shapes, in buffers of the very size."""
    compiler, program = os.environ.get("CC", "cc"), tmp_path / "walk"
    sanitize = ["-fsanitize=address,undefined", "-fno-sanitize-recover=all"]
    (tmp_path / "empty.c").write_text("int main(void) { return 0; }\n")
    probe = [compiler, *sanitize, str(tmp_path / "empty.c"), "-o", str(program)]
    if shutil.which(compiler) is None or subprocess.run(probe, capture_output=True).returncode:
        pytest.skip(f"{compiler} has no AddressSanitizer")
    sources = [str(path) for path in sorted((ROOT / "kernels/csrc").glob("*.c"))]
    flags = ["-std=c11", "-O1", "-g", "-Wall", "-Wextra", "-Werror", "-ffp-contract=off", "-Ikernels/csrc"]
    walk = [compiler, *flags, *sanitize, "tests/kernels/lens_walk.c", *sources, "-lm", "-o", str(program)]
    compiled = subprocess.run(walk, cwd=ROOT, capture_output=True, text=True)
    assert compiled.returncode == 0, compiled.stderr
    ran = subprocess.run([program], capture_output=True, text=True)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert ran.stdout.split()[1::2] == PATHS
