"""What a training keeps for its backward pass, counted on tensors without content.

The model of a configuration is built on the meta device, gets its adapter as a training gives it, and runs
forward on fake tensors, which have shapes, types and storages but no content. Each storage that autograd
saves counts once, but for those of weights. Nothing is downloaded, and an 8B model takes seconds.

Fake tensors of a GPU need a build of torch that knows GPUs. So they are fake CPU tensors here, under CPU
autocast; where a GPU's autocast computes in float32 and a CPU's does not, `_LikeGpu` converts.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator
from typing import Any

import torch
from attrs import frozen
from peft.helpers import disable_input_dtype_casting
from peft.tuners.lora import LoraLayer
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.overrides import TorchFunctionMode
from transformers.pytorch_utils import Conv1D

from engine.models.causal_lm import CausalLm, recompute_activations
from engine.models.lens import Lens, find_lens
from engine.stages.training.adapter import attach_adapter
from engine.stages.training.trainer import AUTOCAST
from specs.tables.experiment import Lora, Model, Train

# Functions that CUDA's autocast runs in float32 and the CPU's does not, as far as language models use them:
# https://docs.pytorch.org/docs/stable/amp.html
FLOAT32 = frozenset(
    function
    for name in ("pow", "rsqrt", "exp", "log", "sum", "prod", "cumsum", "norm", "softmax", "__pow__", "rpow")
    for owner in (torch, Tensor)
    if (function := getattr(owner, name, None)) is not None
) | {nn.functional.layer_norm, nn.functional.group_norm, nn.functional.softmax, nn.functional.softplus}


@frozen
class Saved:
    """Bytes that autograd keeps of one forward pass, and of the loss behind it."""

    decoder: int
    head: int
    layer: int  # of these, what one layer keeps where none is recomputed

    @property
    def peak(self) -> int:
        """Give what is kept at most: where layers are recomputed, one of them is whole at a time."""
        return self.decoder + self.head


class _LikeGpu(TorchFunctionMode):
    """Converts what CUDA's autocast would convert to float32."""

    def __torch_function__(
        self, function: Any, types: Any, arguments: Any = (), options: dict[str, Any] | None = None
    ) -> Any:
        options = options or {}
        if function is nn.functional.dropout:
            return _dropout(*arguments, **options)
        if function is nn.functional.scaled_dot_product_attention:
            # A GPU's fused kernels keep no mask of their dropout; a CPU's have none at all.
            return function(*arguments, **options | {"dropout_p": 0.0})
        if function in FLOAT32 and torch.is_autocast_enabled("cpu") and options.get("dtype") is None:
            arguments = tuple(map(_float32, arguments))
            options = {name: _float32(value) for name, value in options.items()}
        return function(*arguments, **options)


def _dropout(input: Tensor, p: float = 0.5, training: bool = True, inplace: bool = False) -> Tensor:
    """Keep a mask of one byte per number, as a GPU does, and not of the numbers' type."""
    return torch.native_dropout(input, p, True)[0] if training and p > 0 else input


def _float32(value: Any) -> Any:
    half = isinstance(value, Tensor) and value.dtype in (torch.bfloat16, torch.float16)
    return value.float() if half else value


def count_saved(
    config: Any, model: Model, lora: Lora, train: Train, rows: int, length: int, completion: int
) -> Saved:
    """Count what one forward pass of `rows` texts of `length` tokens keeps, on a GPU.

    `completion`: tokens of each text that the loss counts.
    """
    plain = _count(config, model, lora, train, rows, length, completion, recompute=False)
    if train.gradient_checkpointing is not True:
        return plain
    kept = _count(config, model, lora, train, rows, length, completion, recompute=True)
    return Saved(kept.decoder + plain.layer, plain.head, plain.layer)


def _count(
    config: Any,
    model: Model,
    lora: Lora,
    train: Train,
    rows: int,
    length: int,
    completion: int,
    *,
    recompute: bool,
) -> Saved:
    with torch.device("meta"):
        base = _empty(config, model)
        adapted = attach_adapter(base, lora)
    if recompute:
        recompute_activations(base, anew=True)
        base.enable_input_require_grads()
    adapted.train()
    mode = FakeTensorMode(allow_non_fake_inputs=True)
    _make_fake(adapted, mode)
    if model.quantization != "none":
        _quantise(adapted)
    counted = _Counted({tensor.untyped_storage()._cdata for tensor in _tensors(adapted)})
    dtype = AUTOCAST.get(train.precision)
    with contextlib.ExitStack() as stack:
        stack.enter_context(_without_tracebacks())
        stack.enter_context(mode)
        stack.enter_context(torch.device("cpu"))
        stack.enter_context(torch.autocast("cpu", dtype, enabled=dtype is not None))
        stack.enter_context(_LikeGpu())
        stack.enter_context(disable_input_dtype_casting(adapted, active=dtype is not None))
        stack.enter_context(torch.autograd.graph.saved_tensors_hooks(counted, lambda tensor: tensor))
        lens = find_lens(adapted)
        hidden = _hidden(lens, rows, length)
        decoder = counted.size
        _loss(lens, hidden[:, :completion].reshape(rows * completion, -1))
    return Saved(decoder, counted.size - decoder, decoder // len(lens.layers))


@contextlib.contextmanager
def _without_tracebacks() -> Iterator[None]:
    """Keep torch from logging, with a traceback, what it raises all the same."""
    logger = logging.getLogger("torch._subclasses.fake_tensor")
    former, logger.disabled = logger.disabled, True
    try:
        yield
    finally:
        logger.disabled = former


def _empty(config: Any, model: Model) -> CausalLm:
    from transformers import AutoModelForCausalLM, initialization

    with initialization.no_init_weights():
        base: CausalLm = AutoModelForCausalLM.from_config(
            config,
            dtype=getattr(torch, model.dtype),
            attn_implementation=model.attention,
            trust_remote_code=model.trust_remote_code,
        )
    base.requires_grad_(False)
    return base


def _hidden(lens: Lens, rows: int, length: int) -> Tensor:
    ids = torch.zeros(rows, length, dtype=torch.int64)
    return lens.last_hidden(ids, lens.needed(torch.ones_like(ids)))


def _loss(lens: Lens, hidden: Tensor) -> None:
    labels = torch.zeros(len(hidden), dtype=torch.int64)
    nn.functional.cross_entropy(lens.logits(hidden), labels, reduction="sum")


class _Counted:
    """Adds up the storages that it is given, each once, but for some that are known."""

    def __init__(self, known: set[int]) -> None:
        self.size = 0
        self._known = known
        self._kept: list[Tensor] = []  # so that no storage takes the place of another

    def __call__(self, tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage._cdata not in self._known:
            self._known.add(storage._cdata)
            self._kept.append(tensor)
            self.size += storage.nbytes()
        return tensor


def _tensors(model: nn.Module) -> Iterator[Tensor]:
    yield from model.parameters()
    yield from model.buffers()


def _make_fake(model: nn.Module, mode: FakeTensorMode) -> None:
    """Turn a model's meta tensors into fake ones, those that are shared into one."""
    fakes: dict[int, Tensor] = {}

    def fake(tensor: Tensor) -> Tensor:
        if id(tensor) not in fakes:
            convert = mode.fake_tensor_converter.from_meta_and_device
            with torch.no_grad():
                made: Tensor = convert(mode, tensor.detach(), torch.device("cpu"))
            is_parameter = isinstance(tensor, nn.Parameter)
            fakes[id(tensor)] = nn.Parameter(made, tensor.requires_grad) if is_parameter else made
        return fakes[id(tensor)]

    for module in model.modules():
        for held in (module._parameters, module._buffers):
            for name, tensor in held.items():
                if tensor is not None:
                    held[name] = fake(tensor)  # type: ignore[assignment]


def _quantise(model: nn.Module) -> None:
    """Let linear modules under an adapter compute as bitsandbytes' do: in bfloat16, from no type to another.

    They keep neither their inputs nor the weights that they make for a product.
    """
    for module in model.modules():
        if isinstance(module, LoraLayer):
            base = module.get_base_layer()
            if isinstance(base, nn.Linear | Conv1D):
                base.weight = nn.Parameter(base.weight.bfloat16(), False)
                base.register_forward_hook(_like_its_input)


def _like_its_input(_module: nn.Module, arguments: tuple[Tensor, ...], output: Tensor) -> Tensor:
    return output.to(arguments[0].dtype)
