"""Zarr's view of a bucket."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from typing import TYPE_CHECKING, Any, Self, TypeVar

from zarr.storage import ObjectStore

from store.backend.requests import attempts

Answer = TypeVar("Answer")

if TYPE_CHECKING:
    Base = ObjectStore[Any]
else:
    Base = ObjectStore  # zarr 3.1.0 knows no type parameters


class Objects(Base):
    """zarr's store over obstore, with the store's own attempts and errors; others would pass for damage."""

    def __init__(self, store: Any, *, read_only: bool = False, url: str = "") -> None:
        super().__init__(store, read_only=read_only)
        self._url = url

    def with_read_only(self, read_only: bool = False) -> Self:  # noqa: D102
        return type(self)(self.store, read_only=read_only, url=self._url)

    async def get(self, key: str, prototype: Any, byte_range: Any = None) -> Any:  # noqa: D102 - as zarr's
        request = super().get
        return await self._asked(key, lambda: request(key, prototype, byte_range))

    async def get_partial_values(self, prototype: Any, key_ranges: Iterable[Any]) -> list[Any]:  # noqa: D102
        request, ranges = super().get_partial_values, list(key_ranges)
        return await self._asked("", lambda: request(prototype, ranges))

    async def exists(self, key: str) -> bool:  # noqa: D102
        request = super().exists
        return await self._asked(key, lambda: request(key))

    async def set(self, key: str, value: Any) -> None:  # noqa: D102
        request = super().set
        await self._asked(key, lambda: request(key, value))

    async def _asked(self, key: str, request: Callable[[], Awaitable[Answer]]) -> Answer:
        for attempt in attempts(self._url, key):
            with attempt:
                return await request()
        raise AssertionError("the last attempt raises")
