"""Where a model computes, and GPUs that torch cannot use."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch
from commands import engine
from facts import facts, told

from engine.errors import UsageError
from engine.models import devices
from engine.models import gpus as gpu_signs
from engine.models import loading as models
from specs.tables.experiment import Model


@pytest.fixture
def gpus(monkeypatch: pytest.MonkeyPatch):
    """Give a function that makes torch see so many GPUs."""

    def see(count: int) -> None:
        monkeypatch.setattr(torch.cuda, "is_available", lambda: count > 0)
        monkeypatch.setattr(torch.cuda, "device_count", lambda: count)

    return see


@pytest.fixture
def unusable(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, gpus) -> Path:
    """A machine with the device file of an NVIDIA GPU, of which torch knows nothing."""
    gpus(0)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    for name in ("nvidiactl", "nvidia-uvm", "nvidia0"):
        (tmp_path / name).touch()
    monkeypatch.setattr(gpu_signs, "DEVICES", tmp_path)
    return tmp_path


@pytest.fixture
def bare(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, gpus) -> None:
    """A machine without any sign of a GPU."""
    gpus(0)
    monkeypatch.setattr(gpu_signs, "DEVICES", tmp_path / "none")
    monkeypatch.setattr(gpu_signs, "DRIVER", tmp_path / "none")
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)


@pytest.mark.parametrize(
    ("count", "wanted", "device"),
    [
        (0, "auto", "cpu"), (2, "auto", "cuda"), (2, "cpu", "cpu"), (2, "cuda", "cuda"),
        (1, "cuda:0", "cuda:0"), (2, "cuda:1", "cuda:1"),
    ],
)  # fmt: skip
def test_the_device_that_is_asked_for(gpus, count: int, wanted: str, device: str) -> None:
    gpus(count)
    assert devices.choose_device(wanted) == torch.device(device)


def test_a_device_that_is_not_there_is_refused_with_those_that_are(
    gpus, bare: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(UsageError, match=facts("model.device", '"cuda"', "no GPU")):
        devices.choose_device("cuda")
    gpus(2)
    with pytest.raises(UsageError, match=facts('"cuda:2"', '"cuda:0", "cuda:1"')):
        devices.choose_device("cuda:2")
    gpus(1)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3")  # as an executor deals it out
    with pytest.raises(UsageError, match=facts('"cuda:1"', '"cuda:0"', "CUDA_VISIBLE_DEVICES", "3")):
        devices.choose_device("cuda:1")


def test_a_gpu_that_torch_cannot_use_is_told_before_loading(unusable: Path, tiny_model: Path) -> None:
    with pytest.warns(UserWarning, match=facts("model.device", "CPU", "NVIDIA GPU", "nvidia0")):
        models.load(Model(id=str(tiny_model), dtype="float32"))
    assert "an NVIDIA GPU" in (told := engine("doctor").output)
    assert re.search(r"torch\s+cannot\s+use", told)
    with pytest.raises(UsageError, match=facts('"cuda"', "NVIDIA GPU")):
        models.load(Model(id=str(tiny_model), device="cuda"))


def test_nothing_is_told_where_the_cpu_is_meant(
    unusable: Path, monkeypatch: pytest.MonkeyPatch, recwarn: pytest.WarningsRecorder, tiny_model: Path
) -> None:
    models.load(Model(id=str(tiny_model), dtype="float32", device="cpu"))
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    models.load(Model(id=str(tiny_model), dtype="float32"))
    assert not [warning for warning in recwarn if "model.device" in str(warning.message)]


def test_the_signs_of_a_gpu(bare: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert devices.unused_gpu() is None
    program = tmp_path / "nvidia-smi"
    program.write_text('#!/bin/sh\necho "GPU 0: NVIDIA H200 (UUID: GPU-1)"\n')
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/bin:/usr/bin")
    assert "(nvidia-smi: GPU 0: NVIDIA H200)" in str(devices.unused_gpu())
    program.write_text("#!/bin/sh\necho no driver\nexit 9\n")
    assert devices.unused_gpu() is None
    (tmp_path / "gpus" / "0000:01:00.0").mkdir(parents=True)
    monkeypatch.setattr(gpu_signs, "DRIVER", tmp_path / "gpus")
    assert told(str(devices.unused_gpu()), "gpus", "torch")


def test_a_device_is_no_part_of_a_result(write_spec) -> None:
    engine("execute", write_spec())
    spec = write_spec(name="again")
    spec.write_text(spec.read_text().replace('dtype = "float32"', 'dtype = "float32"\ndevice = "cpu"'))
    assert told(engine("execute", spec).output, "4 cells")


def test_a_device_of_another_spelling_is_refused_by_plan(write_spec) -> None:
    spec = write_spec()
    spec.write_text(spec.read_text().replace('dtype = "float32"', 'dtype = "float32"\ndevice = "gpu"'))
    assert "model.device" in engine("plan", spec, code=2).output
