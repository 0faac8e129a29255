"""What a person reads of a Ray cluster that cannot be joined, or holds no unit; how a stop ends there."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
from commands import command
from facts import told

from engine.errors import EngineError, UsageError
from engine.progress import StopRequest
from engine.running.executors.base import Resources
from specs.tables.executor import Executor as Settings
from store import Ledger

ray = pytest.importorskip("ray", reason="the extra `ray` is not installed")
from engine.running.executors import ray_cluster  # noqa: E402 - needs ray

NODE = {"CPU": 4.0, "memory": 2.0**33}


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> Callable[..., SimpleNamespace]:
    """Stand in for Ray, with these nodes; give what was asked of it."""

    def made(*nodes: dict[str, float], init: BaseException | None = None, said: str = "") -> Any:
        asked = SimpleNamespace(cancelled=[], waited=[], down=0, init=0)

        def begin(**_: object) -> None:
            asked.init += 1
            os.write(2, said.encode())
            if init:
                raise init

        def wait(references: list[Any], *, timeout: float, **_: object) -> tuple[list[Any], list[Any]]:
            asked.waited.append(timeout)
            return [], references

        for name, what in {
            "init": begin,
            "nodes": lambda: [{"Alive": True, "Resources": node} for node in nodes],
            "cluster_resources": lambda: (
                {"GPU": gpus} if (gpus := sum(n.get("GPU", 0) for n in nodes)) else {}
            ),
            "cancel": lambda reference, force: asked.cancelled.append((reference, force)),
            "wait": wait,
            "shutdown": lambda: setattr(asked, "down", asked.down + 1),
        }.items():
            monkeypatch.setattr(ray_cluster.ray, name, what)
        return asked

    return made


@pytest.mark.parametrize(
    ("nodes", "settings", "memory", "message"),
    [
        ([NODE], {}, 2.0**34, r"executor\.memory.*16\.0 GiB.*8\.0 GiB"),
        ([NODE], {"memory": 9.0}, None, "executor.memory: .*needs 9.0 GiB"),
        ([NODE | {"GPU": 2.0}] * 2, {"ranks": 4}, None, "executor.ranks: found 4, .*more than 2"),
        ([{"memory": 2.0**33}], {}, None, "CPU"),
        ([NODE | {"GPU": 1.0, "memory": 2.0}, NODE], {}, 2.0**30, "no node"),
        ([], {}, None, "CPU"),
    ],
)
def test_a_unit_that_no_node_can_hold_is_refused_at_the_beginning(
    cluster, write_spec, nodes, settings, memory, message
) -> None:
    asked = cluster(*nodes)
    with pytest.raises(UsageError, match=message) as refused:
        ray_cluster.RayExecutor.of(SimpleNamespace(), Settings(**settings), StopRequest(), Resources(memory))
    assert asked.down == 1 and "\n" not in str(refused.value)


def test_that_is_said_before_any_data_are_prepared(cluster, write_spec) -> None:
    cluster({"CPU": 4.0, "memory": 2.0**20})
    spec = write_spec()
    code, output = command("execute", spec, "--executor", "ray")
    assert code == 2 and told(output, "executor.memory")
    assert not Ledger(spec.parent / "store").done("data")


def test_room_is_what_one_node_has(cluster) -> None:
    cluster(NODE, NODE | {"GPU": 4.0})
    job = SimpleNamespace()
    ray_cluster.RayExecutor.of(job, Settings(ranks=4), StopRequest(), Resources(2.0**33))


@pytest.mark.parametrize(
    ("address", "init", "said", "message"),
    [
        (
            None,
            ConnectionError("Failed to connect"),
            "RPC error: InvalidAuthToken",
            "RAY_AUTH_TOKEN.*RAY_AUTH_MODE",
        ),
        ("auto", ConnectionError("Could not find any running Ray instance. Try"), "", "`ray start --head`"),
        (
            "auto",
            RuntimeError("Version mismatch: 2.1\nmore"),
            "",
            "cannot be joined: Version mismatch: 2.1; ",
        ),
        (None, OSError(28, "No space left on device"), "", "No space left"),
    ],
)
def test_a_cluster_that_cannot_be_joined_is_one_sentence(
    cluster, write_spec, capfd, address, init, said, message
) -> None:
    asked = cluster(NODE, init=init, said=f"[a line of Ray's log] {said}\n" * 20)
    with pytest.raises(EngineError, match=message) as refused:
        ray_cluster.join(address)
    assert asked.init == 1 and "\n" not in str(refused.value)
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize(
    ("address", "message"),
    [
        ("127.0.0.1:9", r"127\.0\.0\.1:9 \(Connection refused\)"),
        ("ray://127.0.0.1:9", r"ray://127\.0\.0\.1:9 \(Connection refused\)"),
        ("no-such-host.invalid:6379", r"no-such-host\.invalid:6379"),
        ("somewhere", r'"somewhere".*"auto".*HOST:PORT'),
        ("host:99999", 'expected "auto", HOST:PORT'),
    ],
)
def test_an_address_at_which_no_cluster_answers_is_told_at_once(
    cluster, write_spec, address, message
) -> None:
    asked, spec = cluster(NODE), write_spec()
    begun = time.monotonic()
    with pytest.raises(EngineError, match=message):
        ray_cluster.join(address)
    code, output = command("execute", spec, "--executor", "ray", "--set", f'executor.address="{address}"')
    last = output.splitlines()[-1]
    assert code in (1, 2) and last.startswith("error: executor.address: ") and output.count("error") == 1
    assert not asked.init and time.monotonic() - begun < 5


@pytest.mark.parametrize(("ranks", "first"), [(1, ray_cluster._RELEASE), (2, 60.0)])
def test_a_task_that_hears_of_no_interrupt_is_killed(cluster, ranks: int, first: float) -> None:
    """As one that is still importing, or is within one long operation."""
    asked = cluster(NODE)
    settings = Settings(ranks=ranks, address="127.0.0.1:1")
    executor = ray_cluster.RayExecutor(b"", settings, StopRequest(requested=True))
    executor._running = {"one": None, "two": None}
    executor.cancel()
    assert asked.cancelled == [("one", False), ("two", False), ("one", True), ("two", True)]
    assert asked.waited[0] == first and sum(asked.waited[1:]) < 3 and not asked.down
    assert not executor._running
