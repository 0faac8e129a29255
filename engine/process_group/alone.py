"""What one process by itself does where several ranks would have to agree (`fsdp` is several)."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, TypeVar

from attrs import frozen

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

IGNORED = -100  # a label that takes no part in the loss

Result = TypeVar("Result")


@frozen
class ProcessGroup:
    """One process by itself: nothing to share, nothing to agree on."""

    rank: int = 0
    size: int = 1

    def lead(self, action: Callable[[], Result]) -> Result:
        """Do on the leading rank what only one may do; all ranks get its result, or raise its error."""
        return action()

    def led(self, kind: type[Result], make: Callable[[], Result]) -> Result:
        """Give an object of which there may be only one: what is called on it, the leading rank does."""
        return make()

    def any(self, asked: bool) -> bool:
        """Tell whether any rank says so."""
        return asked

    def together(self, action: Callable[[], Result]) -> Result:
        """Do on all ranks what can fail; they all fail by the leading one's error, or end (DivergedError)."""
        return action()

    def shard(self, layers: Iterable[nn.Module], device: torch.device) -> None:
        """Leave each rank a share of these layers' weights, put together again while a layer runs."""

    def check_adapter(self, model: nn.Module) -> None:
        """Raise UsageError where an adapter trains weights that are sharded."""

    def share(self, batch: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        """Give this rank's rows of a batch; at least one, without labels where there are too few."""
        return batch

    def total(self, value: Tensor) -> Tensor:
        """Add up a value over the ranks."""
        return value

    def add_gradients(self, parameters: Iterable[nn.Parameter]) -> None:
        """Add up over the ranks the gradients that each has of its rows."""

    @contextmanager
    def drawing(self, *seed: int) -> Iterator[None]:
        """Let each rank draw numbers of its own inside the `with` block."""
        yield


ALONE = ProcessGroup()
