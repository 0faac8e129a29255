"""Run the Triton kernels in Triton's interpreter, and check who may choose the Triton backend.

Triton decides when it is imported whether it interprets, so these tests run in a process of their own:
`TRITON_INTERPRET=1 pytest tests/kernels/interpreted_lens.py` shows one file's tests by name.
"""

from __future__ import annotations

import os
import subprocess
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from facts import facts

from kernels import LensStatistics, Unembedding, available_backends, backends, choose_backend, lens_statistics


@pytest.mark.parametrize(
    "name", ["interpreted_lens.py", "interpreted_further.py", "interpreted_divergence.py"]
)
def test_in_the_interpreter(name: str) -> None:
    pytest.importorskip("triton")
    done = subprocess.run(
        [
            sys.executable,
            "-W",
            "ignore",
            "-m",
            "pytest",
            "-p",
            "no:cacheprovider",
            str(Path(__file__).with_name(name)),
        ],
        env=os.environ | {"TRITON_INTERPRET": "1"},
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout[-8000:] + done.stderr[-2000:]


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_without_a_gpu_it_is_not_offered_and_says_what_it_needs() -> None:
    assert "triton" not in available_backends()
    assert choose_backend(torch.device("cpu")) != "triton"
    with pytest.raises(ValueError, match=facts('"triton"', "CUDA or ROCm", "cpu")):
        lens_statistics(torch.ones(1, 4), Unembedding(torch.zeros(9, 4)), backend="triton")


@pytest.fixture
def _untried(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Triton not tried yet in this process, nor warned of; its package is there."""
    caches = (backends.why_triton_fails, backends._warn_once)
    for cached in caches:
        cached.cache_clear()
    monkeypatch.setattr("kernels.backends._has_triton", lambda: True)
    yield
    for cached in caches:
        cached.cache_clear()


GPU = torch.device("cuda")


@pytest.mark.usefixtures("_untried")
def test_without_the_package_it_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("kernels.backends._has_triton", lambda: False)
    with pytest.warns(RuntimeWarning, match=facts("not installed", "torch")):
        assert choose_backend(GPU) == "torch"
    with pytest.raises(ValueError, match=r"pip install 'ablation-engine\[triton\]'"):
        choose_backend(GPU, "triton")


@pytest.mark.usefixtures("_untried")
@pytest.mark.parametrize(
    "error",
    [
        RuntimeError("Failed to find C compiler. Please specify via CC environment variable.\nmore"),
        subprocess.CalledProcessError(1, ["gcc", "cuda_utils.c"]),
        ImportError("libcuda.so.1: cannot open shared object file"),
        AssertionError(),
    ],
    ids=lambda error: type(error).__name__,
)
def test_where_it_cannot_compile_torch_serves_and_says_why(
    monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    tried = []

    def fails(*_: object) -> LensStatistics:
        tried.append(1)
        raise error

    monkeypatch.setattr("kernels.lens_checks._statistics", fails)
    reason = f"cannot compile or run its kernels on cuda .{type(error).__name__}: "
    with pytest.warns(RuntimeWarning, match=reason + ".*slower torch backend serves"):
        assert choose_backend(GPU) == "torch"
    with pytest.raises(ValueError, match='found "triton", but Triton ' + reason):
        choose_backend(GPU, "triton")
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # it is said once
        assert choose_backend(GPU, operation="attention_entropy") == "torch"
    assert len(tried) == 1  # and tried once


@pytest.mark.usefixtures("_untried")
def test_kernels_that_are_wrong_do_not_serve(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("kernels.lens_checks.largest_error", lambda *_: (0.5, "entropy"))
    with pytest.warns(RuntimeWarning, match=facts("entropy", "5.0e-01", "torch")):
        assert choose_backend(GPU) == "torch"


@pytest.mark.usefixtures("_untried")
def test_where_the_trial_ends_well_it_serves(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("kernels.lens_checks.largest_error", lambda *_: (1e-5, "entropy"))
    assert choose_backend(GPU) == choose_backend(GPU, "triton") == "triton"


@pytest.mark.parametrize("name", ["mps", "xpu", "hpu", "meta"])
def test_on_other_devices_torch_serves(name: str) -> None:
    for operation in backends.OPERATIONS:
        assert choose_backend(torch.device(name), operation=operation) == "torch"
    with pytest.raises(ValueError, match=facts("cpu", name)):
        choose_backend(torch.device(name), "c")
