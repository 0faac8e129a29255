"""Several processes that work on one unit in step, each with a share of the model's blocks (FSDP).

All ranks run the same code. What only one may do, to write above all, the leading rank does, and the others
learn what came of it; so no rank can go another way than the rest.
"""

from __future__ import annotations

import inspect
import pickle
import signal
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from attrs import frozen

from engine.errors import UsageError
from engine.process_group.alone import ProcessGroup, Result
from engine.progress import StopRequest
from store import CellWriter, Claim
from store.lease.claims import Claims

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

TIMEOUT = timedelta(minutes=10)  # of an exchange of tensors: all ranks come to it at about the same time
LEADING_TIMEOUT = timedelta(hours=1)  # of what the leading rank does alone, such as a download
PATIENCE = 20.0  # seconds in which a failure of all ranks has to reach all of them
_SHARED = (CellWriter, Claim, Claims)  # what the leading rank's calls may give that is no plain value


class DivergedError(BaseException):
    """A rank has failed alone, or lost the others: its process has to end, and the unit is lost."""


@frozen
class FsdpGroup(ProcessGroup):
    """The ranks of a process group; one that has joined it makes this."""

    control: Any = None  # a gloo group for what is no tensor, whatever the device
    failures: Any = None  # a store that counts them, for ranks that may no longer meet in a group

    @staticmethod
    def join(rank: int, size: int, meeting: str) -> FsdpGroup:
        """Join the group whose ranks meet at this file."""
        import torch
        import torch.distributed as dist

        backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"
        dist.init_process_group(
            backend, init_method=f"file://{meeting}", rank=rank, world_size=size, timeout=TIMEOUT
        )
        control = dist.new_group(backend="gloo", timeout=LEADING_TIMEOUT)
        failures = dist.FileStore(f"{meeting}-failures", size)  # type: ignore[attr-defined]
        return FsdpGroup(rank, size, control, failures)

    def leave(self) -> None:
        """End the group."""
        import torch.distributed as dist

        dist.destroy_process_group()

    def lead(self, action: Callable[[], Result]) -> Result:
        """Broadcast what the leading rank makes of it, or its error."""
        import torch.distributed as dist

        value: Any = None
        error: Exception | None = None
        if self.rank == 0:
            try:
                value = action()
            except Exception as raised:
                error = raised
        box = [(_plain(value), _picklable(error))]
        dist.broadcast_object_list(box, src=0, group=self.control)
        if self.rank != 0:
            value, error = box[0]
        if error is not None:
            raise error
        if isinstance(value, _Elsewhere):
            value = Led(self, value.kind, None)
        if isinstance(value, _SHARED):
            value = Led(self, type(value), value)
        return value

    def led(self, kind: type[Result], make: Callable[[], Result]) -> Result:
        """Make it on the leading rank, and a stand-in on each."""
        led: Any = Led(self, kind, make() if self.rank == 0 else None)
        return led

    def together(self, action: Callable[[], Result]) -> Result:
        """Let all go on, or all fail: whoever fails waits for the others to come to the same."""
        import torch.distributed as dist

        try:
            return action()
        except Exception as error:
            alone = DivergedError(f"rank {self.rank}: {type(error).__name__}: {error}")
            if not self._all_fail():
                raise alone from error
            box = [_picklable(error)]
            try:
                dist.broadcast_object_list(box, src=0, group=self.control)
            except RuntimeError:
                raise alone from error
            failure = box[0] if self.rank else error
        assert failure is not None
        raise failure

    def _all_fail(self) -> bool:
        """Wait a while for all ranks to fail; tell whether they do. From then on SIGTERM ends this one."""
        former = signal.signal(signal.SIGTERM, signal.SIG_DFL)
        count, deadline = self.failures.add("failed", 1), time.monotonic() + PATIENCE
        whole = -(-count // self.size) * self.size  # with those that failed together before
        while (count := self.failures.add("failed", 0)) < whole and time.monotonic() < deadline:
            time.sleep(0.05)
        if count < whole:
            self.failures.add("alone", 1)
        elif not self.failures.add("alone", 0):
            signal.signal(signal.SIGTERM, former)
            return True
        return False

    def any(self, asked: bool) -> bool:
        """Tell whether any rank says so."""
        import torch
        import torch.distributed as dist

        flag = torch.tensor(int(asked))
        dist.all_reduce(flag, dist.ReduceOp.MAX, group=self.control)
        return bool(flag)

    def shard(self, layers: Iterable[nn.Module], device: torch.device) -> None:
        """Shard each layer by itself (FSDP2); what is attached to it later stays whole on every rank."""
        from torch.distributed.device_mesh import init_device_mesh
        from torch.distributed.fsdp import fully_shard

        mesh = init_device_mesh(device.type, (self.size,))
        for layer in layers:
            layer.to(device)  # one at a time: the whole model may be too large
            sharded = fully_shard(layer, mesh=mesh, reshard_after_forward=True)
            sharded.unshard()  # now, for what is first put together in inference mode cannot be trained with
            sharded.reshard()

    def check_adapter(self, model: nn.Module) -> None:
        """Look for sharded weights among those that are trained."""
        from torch.distributed.tensor import DTensor

        for name, parameter in model.named_parameters():
            if parameter.requires_grad and isinstance(parameter, DTensor):
                raise UsageError(
                    f"lora.modules_to_save: found {name.removeprefix('base_model.model.')}, which is sharded "
                    f"over executor.ranks = {self.size}; expected modules outside the blocks"
                )

    def share(self, batch: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        """Deal the rows out in turn."""
        own_rows = {name: values[self.rank :: self.size] for name, values in batch.items()}
        if len(own_rows["labels"]):
            return own_rows
        from engine.process_group.alone import IGNORED

        row = {name: values[:1] for name, values in batch.items()}
        return row | {"labels": row["labels"].new_full(row["labels"].shape, IGNORED)}

    def total(self, value: Tensor) -> Tensor:
        """Add up in place."""
        import torch.distributed as dist

        dist.all_reduce(value)
        return value

    def add_gradients(self, parameters: Iterable[nn.Parameter]) -> None:
        """Add them up in one exchange per type."""
        import torch

        gradients = [p.grad for p in parameters if p.requires_grad and p.grad is not None]
        for kind in dict.fromkeys(gradient.dtype for gradient in gradients):
            same = [gradient for gradient in gradients if gradient.dtype == kind]
            whole = self.total(torch.cat([gradient.flatten() for gradient in same]))
            parts = torch.split(whole, [gradient.numel() for gradient in same])
            for gradient, part in zip(same, parts, strict=True):
                gradient.copy_(part.view_as(gradient))

    @contextmanager
    def drawing(self, *seed: int) -> Iterator[None]:
        """Seed torch by this and the rank; afterwards it goes on as if nothing had been drawn."""
        import numpy as np
        import torch

        entropy = np.random.SeedSequence([part % 2**32 for part in (*seed, self.rank)])
        with torch.random.fork_rng():
            torch.manual_seed(int(entropy.generate_state(1)[0]))
            yield


class AgreedStop(StopRequest):
    """A stop request that holds for all ranks at the same step; a look at it is an exchange among them."""

    def __init__(self, team: FsdpGroup) -> None:
        self._team, self._asked, self.insisted = team, False, False

    @property
    def requested(self) -> bool:
        """Whether any rank has been asked to stop."""
        return self._team.any(self._asked)

    @requested.setter
    def requested(self, asked: bool) -> None:
        self._asked = asked


class Led:
    """Stands on every rank for an object that the leading one has: methods run, attributes are read there.

    An error on the way ends only the leading rank's own, without a word to the others.
    """

    def __init__(self, team: FsdpGroup, kind: type, target: Any) -> None:
        self._team, self._kind, self._target = team, kind, target

    def __getattr__(self, name: str) -> Any:
        if inspect.isfunction(getattr(self._kind, name, None)):
            return lambda *args, **options: self._team.lead(lambda: self._call(name, args, options))
        return self._team.lead(lambda: getattr(self._target, name))

    def _call(self, name: str, args: Any, options: dict[str, Any]) -> Any:
        """Call the object's own method, with the objects that others stand for."""
        arguments = [value._target if isinstance(value, Led) else value for value in args]
        named = {k: value._target if isinstance(value, Led) else value for k, value in options.items()}
        return getattr(self._target, name)(*arguments, **named)

    def release(self, stage: str, key: str) -> None:
        """End a ledger's claim; also done on the way out, when the ranks no longer go together."""
        if self._target is not None:
            self._target.release(stage, key)

    def __enter__(self) -> Led:
        return self

    def __exit__(self, kind: Any, error: Any, trace: Any) -> None:
        if kind is None:
            self._team.lead(lambda: self._target.__exit__(None, None, None))
        elif self._target is not None:
            self._target.__exit__(kind, error, trace)


@frozen
class _Elsewhere:
    """What a rank learns of an object that the leading one keeps."""

    kind: type


def _plain(value: Any) -> Any:
    return _Elsewhere(type(value)) if isinstance(value, _SHARED) else value


def _picklable(error: Exception | None) -> Exception | None:
    try:
        pickle.loads(pickle.dumps(error))
    except Exception:
        return RuntimeError(f"{type(error).__name__}: {error}")
    return error
