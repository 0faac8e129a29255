"""The self-check passes here, and finds a backend that is off by little and a store that fails."""

from __future__ import annotations

import attrs
import numpy as np
import pytest
from conftest import engine

from engine import doctor
from kernels import available_backends, lens_statistics


def test_the_command_names_the_machine_and_passes() -> None:
    output = engine("doctor").output
    for word in ("C compiler", "CPU paths", "torch", "triton", "reference", "auto takes"):
        assert word in output
    passed = [line for line in output.splitlines() if "passed" in line]
    assert len(passed) == 2 * len(available_backends())
    assert "store: written and read back" in output


@pytest.mark.parametrize("field", ["entropy", "kl_final", "watch_rank"])
def test_a_backend_that_is_off_fails(monkeypatch: pytest.MonkeyPatch, field: str) -> None:
    def off(*arguments: object, backend: str, **options: object) -> object:
        result = lens_statistics(*arguments, backend=backend, **options)
        wrong = getattr(result, field) + (1 if field == "watch_rank" else 1e-3)
        return attrs.evolve(result, **{field: wrong}) if backend == "torch" else result

    monkeypatch.setattr(doctor, "lens_statistics", off)
    failed = [check.backend for check in doctor.self_check() if not check.passed]
    assert failed == ["torch", "torch"]
    assert "FAILED" in engine("doctor", code=1).output


def no_such_attribute(*arguments: object) -> object:
    raise AttributeError("no [value]")


def zeros(reader: object, row: int, statistic: int, out: np.ndarray) -> None:
    out[...] = 0


@pytest.mark.parametrize(
    ("moved", "found", "sentence"),
    [
        (
            "store.writer.write_block",
            no_such_attribute,
            "cannot be written: AttributeError: no [value]",
        ),
        ("store.lazy.ShardReader.of", no_such_attribute, "cannot be read: AttributeError: no [value]"),
        ("store.shards.ShardReader._row", zeros, "was written, but its entropy came back as other values"),
    ],
)
def test_a_store_that_cannot_be_written_or_read_fails(
    monkeypatch: pytest.MonkeyPatch, moved: str, found: object, sentence: str
) -> None:
    """As when a release of zarr has moved what the store asks of it."""
    monkeypatch.setattr(moved, found)
    output = " ".join(engine("doctor", code=1).output.split())
    assert "store: FAILED a small store" in output and sentence in output
