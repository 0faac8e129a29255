"""Compile kernels for a chip that is not at hand, and read what they take of it."""

from __future__ import annotations

import re
import subprocess
import tempfile
from pathlib import Path
from typing import Any

import triton
import triton.language as tl
from attrs import frozen
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource, CompiledKernel

from kernels.gpu.activation_entropies import energy_entropy, row_warps
from kernels.gpu.attention_entropies import HeadTile, attention_sums
from kernels.gpu.lens_divergences import lens_divergences
from kernels.gpu.lens_gradients import BLOCK, WARPS, add_normalisers, slopes
from kernels.gpu.lens_merge import merge_splits, merge_warps
from kernels.gpu.lens_sums import lens_sums
from kernels.gpu.lens_tiles import Tile

TARGETS = {
    "sm_80": GPUTarget("cuda", 80, 32),
    "sm_90": GPUTarget("cuda", 90, 32),
    "sm_100": GPUTarget("cuda", 100, 32),
    "gfx942": GPUTarget("hip", "gfx942", 64),
}
CUOBJDUMP = Path(triton.__file__).parent / "backends/nvidia/bin/cuobjdump"
OPERANDS = {"bf16": tl.bfloat16, "fp16": tl.float16, "fp32": tl.float32}
BUFFERS = {
    "watch_ids": "*i32", "watched": "*fp32", "ranks": "*i32", "spans": "*i32", "columns": "*i32",
    "maximum": "*fp32", "total": "*fp64", "weighted": "*fp64", "top_values": "*fp32", "top_ids": "*i32",
    "slots": "*i32", "places": "*i32", "scalars": "*fp32", "divergences": "*fp64",
}  # fmt: skip

ALIGNED = ("width", "s_query", "s_key", "s_row", "s_final", "s_out")


@frozen
class KernelResources:
    """What a compiled kernel takes; on AMD, scalar registers may rest in lanes of vector registers."""

    registers: int  # per thread
    stack: int  # bytes per thread, spilled registers among them
    shared: int  # bytes per program
    scalar_spills: int
    assembly: str


def compile_lens(
    kernel: str,
    chip: str,
    dtype: str,
    tile: Tile,
    *,
    bias: bool,
    softcap: bool,
    tma: bool,
    even: bool = True,
    top: int = 8,
    by_row: bool = False,
) -> KernelResources:
    """Compile "sums" or "divergences" as the launcher would; even: the tile's depth divides the width."""
    matrices = {"hidden": f"*{dtype}", "weight": f"*{dtype}"}
    if tma:
        matrices = {
            "hidden": f"tensordesc<{dtype}[{tile.rows}, {tile.depth}]>",
            "weight": f"tensordesc<{dtype}[{tile.vocab}, {tile.depth}]>",
        }
    function = {"sums": lens_sums, "divergences": lens_divergences}[kernel]
    constants: dict[str, Any] = {
        "B_ROWS": tile.rows, "B_VOCAB": tile.vocab, "B_DEPTH": tile.depth, "B_TOP": top,
        "GROUP": tile.group, "OPERAND": OPERANDS[dtype], "PRECISION": "ieee", "EVEN": even, "TMA": tma,
        "PIECES": tile.pieces, "BY_ROW": by_row,
    }  # fmt: skip
    optional = {"bias": f"*{dtype}" if bias else None, "softcap": "fp32" if softcap else None}
    types = BUFFERS | matrices | {"scale": "fp32"} | {name: kind for name, kind in optional.items() if kind}
    constants |= {name: None for name, kind in optional.items() if not kind}
    return compile_ahead(function, chip, types, constants, tile.warps, tile.stages)


def compile_merge(chip: str, splits: int, top: int, watched: int) -> KernelResources:
    """Compile the second stage for powers of two of splits, kept entries and watched tokens."""
    types = BUFFERS | {
        "once": "*i8", "out_top_ids": "*i64", "out_top_logprobs": "*fp32", "out_logprob": "*fp32",
        "out_rank": "*i64",
    }  # fmt: skip
    constants = {"B_SPLITS": splits, "B_TOP": top, "B_WATCH": watched}
    return compile_ahead(merge_splits, chip, types, constants, merge_warps(splits * top), 3)


def compile_attention(chip: str, dtype: str, tile: HeadTile, width: int) -> KernelResources:
    """Compile the attention entropy, with causal mask and soft-cap, for heads of a power-of-two width."""
    types = {"query": f"*{dtype}", "key": f"*{dtype}", "lengths": "*i32", "entropy": "*fp32"}
    constants = {
        "B_QUERY": tile.queries, "B_KEY": tile.keys, "B_WIDTH": width, "CAUSAL": True,
        "OPERAND": OPERANDS[dtype], "PRECISION": "ieee",
    }  # fmt: skip
    types |= {"scale": "fp32", "softcap": "fp32"}
    return compile_ahead(attention_sums, chip, types, constants, tile.warps, tile.stages)


def compile_activation(chip: str, dtype: str, width: int) -> KernelResources:
    """Compile the activation entropy for vectors of a power-of-two width."""
    types = {"rows": f"*{dtype}", "entropy": "*fp32"}
    return compile_ahead(energy_entropy, chip, types, {"B_WIDTH": width}, row_warps(width), 1)


def compile_gradient(kernel: str, chip: str, dtype: str, *, bias: bool, softcap: bool) -> KernelResources:
    """Compile "normalisers" or "slopes" of `lens_divergence`, for a weight of a type."""
    function = {"normalisers": add_normalisers, "slopes": slopes}[kernel]
    floats = ("products", "final_products", "maximum", "log_total", "final_maximum", "final_log_total", "kl")
    types = dict.fromkeys(floats, "*fp32") | {"total": "*fp64", "scale": "fp32", "lift": "fp32"}
    types["high"] = f"*{dtype}"
    optional = {
        "bias": f"*{dtype}" if bias else None,
        "softcap": "fp32" if softcap else None,
        "low": f"*{dtype}" if dtype != "fp32" else None,
    }
    types |= {name: kind for name, kind in optional.items() if kind}
    constants: dict[str, Any] = {"B": BLOCK} | {name: None for name, kind in optional.items() if not kind}
    return compile_ahead(function, chip, types, constants, WARPS, 3)


def compile_ahead(
    function: Any, chip: str, types: dict[str, str], constants: dict[str, Any], warps: int, stages: int
) -> KernelResources:
    """Compile a kernel; arguments without a type are int32; pointers, widths and strides are aligned."""
    names = function.arg_names
    signature = {name: "constexpr" if name in constants else types.get(name, "i32") for name in names}
    aligned = [name for name in names if signature[name].startswith("*") or name in ALIGNED]
    source = ASTSource(
        function,
        signature,
        {(names.index(name),): value for name, value in constants.items() if name in names},
        {(names.index(name),): [["tt.divisibility", 16]] for name in aligned},
    )
    options = {"num_warps": warps, "num_stages": stages, "enable_fp_fusion": False}
    built = triton.compile(source, target=TARGETS[chip], options=options)
    return _read_amd(built) if chip.startswith("gfx") else _read_nvidia(built)


def _read_nvidia(built: CompiledKernel) -> KernelResources:
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(built.asm["cubin"])
        file.flush()
        command = [str(CUOBJDUMP), "--dump-resource-usage", file.name]
        text = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    usage = {name: int(number) for name, number in re.findall(r"(REG|STACK):(\d+)", text)}
    return KernelResources(usage["REG"], usage["STACK"], built.metadata.shared, 0, built.asm["ptx"])


def _read_amd(built: CompiledKernel) -> KernelResources:
    assembly = built.asm["amdgcn"]

    def field(name: str) -> int:
        found = re.search(rf"\.{name}:\s+(\d+)", assembly)
        if found is None:
            raise RuntimeError(f"{name}: not found in the assembly of {built.metadata.name}")
        return int(found[1])

    registers, stack = field("vgpr_count"), field("private_segment_fixed_size")
    stack += 4 * field("vgpr_spill_count")
    return KernelResources(registers, stack, built.metadata.shared, field("sgpr_spill_count"), assembly)
