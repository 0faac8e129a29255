"""The binding of the C core: lens.h is its whole interface, and there is no logic here."""

import sys
from pathlib import Path

from cffi import FFI

HERE = Path(__file__).parent
SOURCES = (
    "lens_dispatch.c", "lens_pack.c", "lens_merge.c", "lens_portable.c", "lens_avx2.c", "lens_avx512.c",
    "lens_avx512bf16.c", "lens_amx.c", "lens_neon.c",
)  # fmt: skip
# Contraction would round a portable product differently from one loop to the next.
FLAGS = (
    ["/std:c11", "/O2"]
    if sys.platform == "win32"
    else ["-std=c11", "-O3", "-fvisibility=hidden", "-ffp-contract=off", "-fno-math-errno", "-g0"]
)

ffi = FFI()
ffi.cdef("\n".join(line for line in (HERE / "lens.h").read_text().splitlines() if not line.startswith("#")))
ffi.set_source(
    "kernels._lens",
    '#include "lens.h"',
    sources=[f"kernels/csrc/{name}" for name in SOURCES],  # relative to the project, as setuptools wants
    depends=[str(path) for path in HERE.glob("*.h")],
    include_dirs=["kernels/csrc"],
    extra_compile_args=FLAGS,
    libraries=[] if sys.platform == "win32" else ["m"],
    optional=True,
    py_limited_api=True,
)
