"""Counting the operators that are run; on a GPU each is a launch."""

from __future__ import annotations

from typing import Any

from torch.utils._python_dispatch import TorchDispatchMode


class Operators(TorchDispatchMode):
    """Counts the operators of this thread that compute: not those that give another look at memory."""

    def __init__(self) -> None:
        super().__init__()
        self.number = 0

    def __torch_dispatch__(
        self, function: Any, types: Any, arguments: Any = (), options: dict[str, Any] | None = None
    ) -> Any:
        aliases = [value.alias_info for value in function._schema.returns]
        looks = bool(aliases) and all(alias is not None and not alias.is_write for alias in aliases)
        self.number += not looks
        return function(*arguments, **(options or {}))
