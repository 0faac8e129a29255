"""Collect what a bare machine lacks: `python -m benchmarks.device.bundle`, then see docs/device.md.

Wheels for CPython 3.12 on x86-64 Linux, and the compiled C core, go to `.bundle`, which git ignores. What the
machine has is named here; all else that the project needs, and what that needs, is downloaded.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
import tomllib
import zipfile
from collections.abc import Iterator
from email import message_from_bytes
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[2]
# Common images for PyTorch on a GPU hold these; versions are theirs.
ON_THE_IMAGE = {
    "accelerate", "aiohttp", "anyio", "certifi", "einops", "filelock", "fsspec", "h11", "h5py", "httpx",
    "huggingface-hub", "hypothesis", "idna", "jinja2", "markdown-it-py", "matplotlib", "mdurl",
    "networkx", "numba", "numpy", "packaging", "pandas", "peft", "pillow", "pip", "psutil", "pyarrow",
    "pygments", "pytest", "pytest-timeout", "pyyaml", "regex", "requests", "safetensors",
    "scikit-learn", "scipy", "seaborn", "sentencepiece", "setuptools", "statsmodels", "sympy",
    "tensorboard", "tokenizers", "torch", "tqdm", "transformers", "triton", "typing-extensions",
    "urllib3", "xarray", "xxhash",
}  # fmt: skip
BESIDE = ("liger-kernel", "cut-cross-entropy", "bitsandbytes", "chatterbot-corpus==1.3.3")
PYTHON, PLATFORMS = "3.12", ("2_28", "2_27", "2_24", "2_17")
UNUSED_LIBRARIES = (
    "_cuda11",
    "_cuda12",
    "_cuda132",
    "_rocm",
    "_xpu",
)  # of bitsandbytes; torch's CUDA is 13.0
MOST = 48 * 2**20  # bytes, which leaves room for the checkout beside them
MARKERS = {
    "python_version": PYTHON, "python_full_version": f"{PYTHON}.0", "sys_platform": "linux",
    "os_name": "posix", "platform_system": "Linux", "platform_machine": "x86_64",
    "implementation_name": "cpython",
    "platform_python_implementation": "CPython", "extra": "",
}  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(prog="benchmarks.device.bundle", description=__doc__)
    parser.add_argument("--to", type=Path, default=ROOT / ".bundle")
    folder = parser.parse_args().to
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    waiting, known = [Requirement(text) for text in (*_dependencies(), *BESIDE)], set(ON_THE_IMAGE)
    while waiting:
        needed = waiting.pop()
        name = canonicalize_name(needed.name)
        if name not in known:
            known.add(name)
            waiting += _needs(_slim(_download(needed, folder)))
    _add_core(folder)
    size = sum(file.stat().st_size for file in folder.iterdir())
    print(f"{folder}: {len(list(folder.iterdir()))} files, {size / 2**20:.1f} MiB")
    if size > MOST:
        sys.exit(f"{folder}: found {size / 2**20:.1f} MiB, expected at most {MOST / 2**20:.0f}")


def _dependencies() -> list[str]:
    found: list[str] = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]["dependencies"]
    return found


def _download(needed: Requirement, folder: Path) -> Path:
    before = set(folder.glob("*.whl"))
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary=:all:"]
    command += ["--constraint", str(ROOT / "constraints.txt")]
    command += ["--python-version", PYTHON, "--implementation", "cp", "--platform", "manylinux2014_x86_64"]
    command += [word for version in PLATFORMS for word in ("--platform", f"manylinux_{version}_x86_64")]
    subprocess.run([*command, "--dest", str(folder), f"{needed.name}{needed.specifier}"], check=True)
    (made,) = set(folder.glob("*.whl")) - before
    return made


def _needs(wheel: Path) -> Iterator[Requirement]:
    """Yield what a wheel asks for on the machine, without extras."""
    with zipfile.ZipFile(wheel) as archive:
        name = next(name for name in archive.namelist() if name.endswith(".dist-info/METADATA"))
        metadata = message_from_bytes(archive.read(name))
    for text in metadata.get_all("Requires-Dist") or []:
        needed = Requirement(text)
        if needed.marker is None or needed.marker.evaluate(MARKERS):
            yield needed


def _slim(wheel: Path) -> Path:
    """Leave out the libraries of bitsandbytes for other CUDA versions and other makers, 20 MB each."""
    if not wheel.name.startswith("bitsandbytes"):
        return wheel
    slim = wheel.with_suffix(".slim")
    with zipfile.ZipFile(wheel) as old, zipfile.ZipFile(slim, "w", zipfile.ZIP_DEFLATED) as new:
        for name in old.namelist():
            content = old.read(name)
            if name.endswith(".so") and any(part in name for part in UNUSED_LIBRARIES):
                continue
            if name.endswith(".dist-info/RECORD"):
                lines = content.decode().splitlines()
                kept = [line for line in lines if not any(part in line for part in UNUSED_LIBRARIES)]
                content = "\n".join([*kept, ""]).encode()
            new.writestr(name, content)
    slim.replace(wheel)
    return wheel


def _add_core(folder: Path) -> None:
    """Put the compiled C core beside the wheels: its stable interface serves every Python from 3.11 on."""
    cores = list((ROOT / "kernels").glob("_lens*.abi3.so"))
    if not cores:
        sys.exit(f"{ROOT / 'kernels'}: found no compiled C core; expected: pip install --editable .")
    shutil.copy2(cores[0], folder)


if __name__ == "__main__":
    main()
