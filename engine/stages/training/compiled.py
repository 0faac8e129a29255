"""Decoder layers compiled for the time of a training: the same result up to rounding, by fewer operators."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

from torch import nn

from engine.errors import UsageError

# Variants of one layer's code: kinds of attention, adapters of other shapes, one row or several, validation.
# Beyond that torch leaves further variants uncompiled.
VARIANTS = 64
DISTUTILS = "SETUPTOOLS_USE_DISTUTILS"  # by which setuptools chooses its own or Python's


@contextmanager
def compiled(layers: nn.ModuleList) -> Iterator[None]:
    """Compile each layer by itself inside the `with` block, for rows of any number and length.

    Layers alike share what is compiled, also with those of later trainings of the process. Dropout draws from
    torch's own generator, as it does uncompiled.

    Raises UsageError where a layer cannot be compiled, such as without a C++ compiler on a CPU.
    """
    _load_setuptools()
    from torch._dynamo import config
    from torch._dynamo.exc import TorchDynamoException
    from torch._inductor.exc import CppCompileError, InvalidCxxCompiler

    for layer in layers:
        layer.compile(dynamic=True, options={"fallback_random": True})
    try:
        with config.patch(recompile_limit=VARIANTS):
            yield
    except (TorchDynamoException, CppCompileError, InvalidCxxCompiler) as error:
        reason = str(error).strip().partition("\n")[0]
        raise UsageError(
            f"train.compile: found true, but torch cannot compile a layer of this model here ({reason}); "
            "expected false"
        ) from error
    finally:
        for layer in layers:
            layer._compiled_call_impl = None


def _load_setuptools() -> None:
    """Load what torch's compiler loads, with Python's own distutils (3.11) where its own is not found."""
    try:
        import setuptools
    except AssertionError:  # what it says then
        before = os.environ.get(DISTUTILS)
        os.environ[DISTUTILS] = "stdlib"
        try:
            import setuptools  # noqa: F401
        finally:
            del os.environ[DISTUTILS]
            if before is not None:
                os.environ[DISTUTILS] = before
