"""A GPU that is not there, for as long as a block runs; its tensors are those of `fake_cuda_tensors`."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, nullcontext
from importlib import import_module
from types import SimpleNamespace
from typing import Any
from unittest import mock

import torch
from fake_cuda_tensors import CUDA, META, Away, aten, compute, unpickled
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_map_only

from engine.stages.training.saved_tensors import FLOAT32
from kernels import backends, product

MEMORY = 80 * 10**9
optimizers = sys.modules[torch.optim.Optimizer.__module__]  # torch.optim deletes the name
# Functions that CUDA's autocast computes in half precision, as far as language models use them.
HALVED = {
    torch.nn.functional.linear, torch.nn.functional.scaled_dot_product_attention, torch.matmul, Tensor.matmul,
    Tensor.__matmul__, torch.mm, torch.bmm, Tensor.bmm, torch.addmm, torch.baddbmm, torch.einsum,
    torch.nn.functional.conv1d,
}  # fmt: skip


class _Device(TorchDispatchMode):
    """Computes all operations; `real_meta`: whether the call names the meta device itself."""

    def __init__(self) -> None:
        super().__init__()
        self.real_meta = False
        self.waits: list[str] = []

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if self.real_meta and kwargs.get("device") == META:
            return function(*args, **kwargs)
        return compute(function, args, kwargs, self.waits)


class _Functions(TorchFunctionMode):
    """Keeps the word "cuda" from C++, which would look for CUDA's library."""

    def __init__(self, device: _Device) -> None:
        super().__init__()
        self.device = device

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = dict(kwargs or {})
        if function in (torch.device, torch._C._nn._parse_to):  # they give devices
            return function(*args, **kwargs)
        if function in (torch.tensor, torch.as_tensor, torch.asarray) and kwargs.get("device") is not None:
            device = torch.device(kwargs.pop("device"))
            made = args[0] if isinstance(args[0], Tensor) else function(*args, **kwargs)
            with self:
                return made.to(device, kwargs.get("dtype", made.dtype))
        if function is Tensor.new_tensor and isinstance(args[0], Away):
            with self:
                return torch.tensor(args[1], **{"dtype": args[0].dtype, "device": CUDA} | kwargs)
        if torch.is_autocast_enabled("cuda") and (dtype := _autocast(function, kwargs)) is not None:
            args, kwargs = tree_map_only(Away, lambda value: _cast(value, dtype), (args, kwargs))
        if function is torch.nn.functional.scaled_dot_product_attention and isinstance(args[0], Away):
            function = _attention
        if function == Tensor.data.__set__ and isinstance(args[1], Away):
            args[0].inner = args[1].inner
        if function is Tensor.pin_memory:
            return args[0]
        if function is Tensor.cuda:
            function, args = Tensor.to, (args[0], CUDA)
        if function in (Tensor.__getitem__, Tensor.__setitem__) and isinstance(args[0], Away):
            args = (args[0], tree_map_only(list, _on_gpu, args[1], is_leaf=_is_list), *args[2:])
        named = {_type(value) for value in (*args, kwargs.get("device"))}
        if "device" in kwargs:
            kwargs["device"] = _hidden(kwargs["device"])
        kept, self.device.real_meta = self.device.real_meta, "meta" in named
        try:
            return function(*map(_hidden, args), **kwargs)
        finally:
            self.device.real_meta = kept


def _autocast(function: Any, kwargs: dict[str, Any]) -> torch.dtype | None:
    """Give the type in which CUDA's autocast computes; its own code looks for tensors of CUDA's library."""
    if function in HALVED:
        return torch.get_autocast_dtype("cuda")
    return torch.float32 if function in FLOAT32 and kwargs.get("dtype") is None else None


def _cast(value: Away, dtype: torch.dtype) -> Tensor:
    casts = value.dtype in (torch.float16, torch.bfloat16, torch.float32)
    return value.to(dtype) if casts else value


def _is_list(value: Any) -> bool:
    return isinstance(value, list)


def _on_gpu(places: list[int]) -> Tensor:
    """Give a list that is an index as a tensor, which C++ would make on the meta device."""
    return Away(torch.tensor(places))


def _type(value: Any) -> str:
    if isinstance(value, str):
        return value.partition(":")[0] if value in ("meta", "cuda", "cuda:0") else ""
    return value.type if isinstance(value, torch.device) else ""


def _hidden(value: Any) -> Any:
    return META if _type(value) == "cuda" else value


def _attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> Tensor:
    """Attend by the CPU's fused kernel, whose backend torch chooses by what it takes for the device."""
    assert not dropout_p  # which that kernel has not
    if enable_gqa:
        key, value = (part.repeat_interleave(query.shape[1] // key.shape[1], 1) for part in (key, value))
    if attn_mask is not None and attn_mask.dtype == torch.bool:
        attn_mask = torch.zeros_like(attn_mask, dtype=query.dtype).masked_fill(~attn_mask, float("-inf"))
    fused = aten._scaled_dot_product_flash_attention_for_cpu
    return fused(query, key, value, 0.0, is_causal, attn_mask=attn_mask, scale=scale)[0]


def _nothing(*_: Any, **__: Any) -> None:
    return None


def _library() -> dict[str, Any]:
    """Give functions of `torch.cuda` as they answer with one GPU."""
    properties = SimpleNamespace(
        name="fake GPU", major=9, minor=0, total_memory=MEMORY, multi_processor_count=132,
        shared_memory_per_block_optin=232448, uuid="fake",
    )  # fmt: skip
    return {
        **dict.fromkeys(
            ("_lazy_init", "init", "set_device", "synchronize", "empty_cache", "manual_seed",
             "manual_seed_all",
             "set_rng_state", "set_rng_state_all", "reset_peak_memory_stats", "ipc_collect"), _nothing
        ),
        **dict.fromkeys(("memory_reserved", "memory_allocated", "max_memory_allocated"), lambda *_: 0),
        "is_available": lambda: True,
        "is_initialized": lambda: True,
        "is_current_stream_capturing": lambda: False,
        "device_count": lambda: 1,
        "current_device": lambda: 0,
        "is_bf16_supported": lambda *_, **__: True,
        "get_device_capability": lambda *_: (9, 0),
        "get_device_name": lambda *_: "fake GPU",
        "get_device_properties": lambda *_: properties,
        "mem_get_info": lambda *_: (MEMORY, MEMORY),
        "get_rng_state": lambda *_: torch.get_rng_state(),
        "get_rng_state_all": lambda: [torch.get_rng_state()],
        "device": lambda *_: nullcontext(),
    }  # fmt: skip


def _enter(self: Any) -> None:
    """Begin `no_grad` where `inference_mode` stands, in which no subclass of tensors can be."""
    self.entered = torch.no_grad()
    self.entered.__enter__()


def _leave(self: Any, *error: Any) -> None:
    self.entered.__exit__(*error)


@contextmanager
def fake_cuda(*, triton: bool = False) -> Iterator[list[str]]:
    """Have one GPU inside the block, with Triton or, as the engine is to find, without.

    Yields the lines at which the CPU has waited for the GPU, in their order.
    """
    import_module("torch._dynamo")  # which modes need, and which looks through torch.cuda when it is imported
    device, fails = _Device(), "" if triton else "no kernel runs on a fake GPU"
    with ExitStack() as stack:
        for module in (torch.cuda, torch.cuda.random):
            known = {name: answer for name, answer in _library().items() if hasattr(module, name)}
            stack.enter_context(mock.patch.multiple(module, **known))
        stream = SimpleNamespace(is_capturing=lambda: False)
        stack.enter_context(mock.patch.object(torch.accelerator, "current_stream", lambda *_: stream))
        several = [*optimizers._foreach_supported_types, Away]
        stack.enter_context(mock.patch.object(optimizers, "_foreach_supported_types", several))
        stack.enter_context(mock.patch.multiple(torch.inference_mode, __enter__=_enter, __exit__=_leave))
        stack.enter_context(torch.serialization.safe_globals([unpickled]))
        stack.enter_context(mock.patch.object(backends, "why_triton_fails", lambda _: fails))
        stack.enter_context(mock.patch.object(backends, "_warn_once", _nothing))
        stack.callback(product._gives_float32.cache_clear)
        product._gives_float32.cache_clear()
        functions = stack.enter_context(_Functions(device))
        stack.enter_context(device)

        def backward(*args: Any, **kwargs: Any) -> Any:
            with functions:  # it is off inside `Tensor.backward`, and checkpointed layers run again there
                return run(*args, **kwargs)

        run = torch.autograd._engine_run_backward
        stack.enter_context(mock.patch.object(torch.autograd, "_engine_run_backward", backward))
        yield device.waits
