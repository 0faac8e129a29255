"""Decoder layers compiled for the time of a training: the same result up to rounding, by fewer operators."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress

from torch import nn

from engine.errors import UsageError
from engine.stages.training.tracker_runs import variables

# Variants of one layer's code: kinds of attention, adapters of other shapes, one row or several, validation.
# Beyond that torch leaves further variants uncompiled.
VARIANTS = 64
# pip lets Python's own distutils be found, which setuptools takes only where it is told to.
PYTHONS_DISTUTILS = {"SETUPTOOLS_USE_DISTUTILS": "stdlib"}


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
    """Load what torch's compiler loads; on Python 3.11, that fails by an assertion once pip is imported."""
    with suppress(ImportError):
        try:
            import setuptools
        except AssertionError:
            with variables(PYTHONS_DISTUTILS):
                import setuptools  # noqa: F401
