"""What two ranks do together in processes of their own; each gives back what it found."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from children import FORKS

import engine.process_group.fsdp
from engine.errors import UsageError
from engine.process_group.alone import ProcessGroup
from engine.process_group.fsdp import AgreedStop, DivergedError, FsdpGroup


def together(check: Callable[..., Any], folder: Path, *arguments: Any) -> list[Any]:
    """Run `check(team, *arguments)` on two ranks that meet in a folder; give what each returns."""
    links = [multiprocessing.Pipe(duplex=False) for _ in range(2)]
    children = [
        FORKS.Process(target=_serve, args=(check, rank, str(folder / "meeting"), links[rank][1], arguments))
        for rank in range(2)
    ]
    for child in children:
        child.start()
    for _, theirs in links:
        theirs.close()  # so that a rank's death ends the test
    try:
        return [ours.recv() for ours, _ in links]
    finally:
        for child in children:
            child.kill()
            child.join()


def _serve(check: Callable[..., Any], rank: int, meeting: str, link: Any, arguments: tuple[Any, ...]) -> None:
    import torch

    torch.set_num_threads(1)
    link.send(check(FsdpGroup.join(rank, 2, meeting), *arguments))


def load(team: ProcessGroup, folder: Path) -> Any:
    from engine.models import loading as models
    from specs.tables.experiment import Model

    return models.load(Model(id=str(folder), dtype="float32"), team)[0]


def share_of_a_model(team: ProcessGroup, folder: Path) -> dict[str, Any]:
    """Load a sharded model, put adapters on it and take them off again."""
    import torch

    from engine.models.base_model import as_it_was
    from engine.models.lens import find_lens
    from engine.stages.training.adapter import attach_adapter
    from specs.tables.experiment import Lora

    model = load(team, folder)
    lens, names = find_lens(model), list(model.state_dict())
    ids = torch.arange(12).view(2, 6)

    def logits() -> torch.Tensor:
        with torch.no_grad():
            return lens.logits(lens.last_hidden(ids, torch.ones_like(ids)))

    def held(modules: Any) -> int:
        tensors = (getattr(p, "_local_tensor", p) for module in modules for p in module.parameters())
        return sum(tensor.numel() for tensor in tensors)

    before = logits()
    found = {
        "blocks": held(lens.layers),
        "rest": held([model]) - held(lens.layers),
        "logits": before.numpy(),
        "refused": [],
    }
    refused = (
        Lora(r=2, dora=True),
        Lora(r=2, modules_to_save=("mlp",), target_modules=["q_proj"]),
        Lora(r=2, target_modules=["nothing"]),
    )
    for lora in refused if team.size > 1 else ():
        try:
            with as_it_was(model):
                team.together(lambda lora=lora: attach_adapter(model, lora, team))
        except UsageError as error:
            found["refused"].append(str(error))
    with as_it_was(model):
        adapted = attach_adapter(model, Lora(r=2, modules_to_save=("lm_head",)), team)
        found["trained"] = sum(p.numel() for p in adapted.parameters() if p.requires_grad)
    with suppress(InterruptedError), as_it_was(model):  # in the middle of a layer, whose weights are whole
        lens.layers[1].mlp.register_forward_hook(_interrupt)
        logits()
    found["as before"] = list(model.state_dict()) == names and bool((logits() == before).all())
    return found


def _interrupt(*_: Any) -> None:
    raise InterruptedError


def agreement(team: FsdpGroup) -> dict[str, Any]:
    """Lead, draw and stop together."""
    import torch

    stop = AgreedStop(team)
    found: dict[str, Any] = {"asked before": stop.requested, "led": team.lead(lambda: team.rank)}
    if team.rank == 1:
        stop.requested = True
    found["asked"] = stop.requested
    torch.manual_seed(0)
    with team.drawing(1, 2):
        found["drawn"] = float(torch.rand(()))
    found["drawn after"] = float(torch.rand(()))
    rows = {name: torch.arange(3)[:, None] + 1 for name in ("input_ids", "labels")}
    found["rows"] = team.share(rows)["labels"].flatten().tolist()
    found["of one row"] = team.share({k: v[:1] for k, v in rows.items()})["labels"].flatten().tolist()

    def fail() -> None:
        raise ValueError(f"of rank {team.rank}")

    try:
        team.together(fail)
    except ValueError as error:
        found["failed"] = str(error)
    return found


def failure_of_one(team: FsdpGroup) -> str:
    """Fail on one rank, while the other waits for its part of a sum."""
    import torch

    engine.process_group.fsdp.PATIENCE = 1.0
    team.total(torch.ones(1))  # so that the ranks are connected

    def work() -> None:
        if team.rank == 1:
            raise MemoryError("no room")
        team.total(torch.ones(1))

    try:
        team.together(work)
    except DivergedError as error:
        return str(error)
    return "went on"
