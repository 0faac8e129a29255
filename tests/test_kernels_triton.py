"""Run the Triton kernels in Triton's interpreter, and check who may choose the Triton backend.

Triton decides when it is imported whether it interprets, so these tests run in a process of their own:
`TRITON_INTERPRET=1 pytest tests/interpreted_lens.py` shows one file's tests by name.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from kernels import Unembedding, available_backends, choose_backend, lens_statistics


@pytest.mark.parametrize("name", ["interpreted_lens.py", "interpreted_further.py"])
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
        cwd=Path(__file__).parents[1],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout[-8000:] + done.stderr[-2000:]


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_without_a_gpu_it_is_not_offered_and_says_what_it_needs() -> None:
    assert "triton" not in available_backends()
    assert choose_backend(torch.device("cpu")) != "triton"
    with pytest.raises(
        ValueError, match=r'found "triton", but it takes tensors on a CUDA or ROCm device, not on cpu'
    ):
        lens_statistics(torch.ones(1, 4), Unembedding(torch.zeros(9, 4)), backend="triton")


def test_without_the_package_it_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("kernels.backends.find_spec", lambda _: None)
    assert choose_backend(torch.device("cuda")) == "torch"
    with pytest.raises(ValueError, match=r"pip install 'ablation-engine\[triton\]'"):
        choose_backend(torch.device("cuda"), "triton")
