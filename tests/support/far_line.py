"""A line to an S3 server far away: every request takes a while, and is written down.

What a person waits for on such a line is the longest chain of requests of which each began when the one
before had its answer; requests that overlap in time are one round trip.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from collections import Counter
from collections.abc import Iterator

from attrs import frozen


@frozen
class Request:
    """One request, with the times of its arrival and its answer."""

    method: str
    target: str
    began: float
    ended: float


class FarLine:
    """A proxy on loopback before a server at a port, whose every answer comes so many seconds late."""

    def __init__(self, port: int, delay: float) -> None:
        self._there, self.delay, self._requests = port, delay, list[Request]()
        self.port, self._ready = 0, threading.Event()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(
            target=self._loop.run_until_complete, args=(self._serve(),), daemon=True
        )
        self._thread.start()
        self._ready.wait()

    @contextlib.contextmanager
    def counting(self) -> Iterator[Count]:
        """Count the requests of a block."""
        counted = Count()
        self._requests = counted.requests
        try:
            yield counted
        finally:
            self._requests = []

    async def _serve(self) -> None:
        server = await asyncio.start_server(self._connection, "127.0.0.1", 0, backlog=1024)
        self.port = server.sockets[0].getsockname()[1]
        self._ready.set()
        await server.serve_forever()

    async def _connection(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(asyncio.IncompleteReadError, OSError):
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                began = time.monotonic()
                body = await reader.readexactly(_length(head))
                method, target, _ = head.decode("latin-1").split(" ", 2)
                await asyncio.sleep(self.delay)
                answer = await self._answer(head + body, bodiless=method == "HEAD")
                self._requests.append(Request(method, target, began, time.monotonic()))
                writer.write(answer)
                await writer.drain()
        with contextlib.suppress(OSError):
            writer.close()

    async def _answer(self, request: bytes, *, bodiless: bool) -> bytes:
        reader, writer = await asyncio.open_connection("127.0.0.1", self._there)
        first, rest = request.split(b"\r\n", 1)
        writer.write(first + b"\r\nConnection: close\r\n" + rest)
        try:
            head, _, body = (await reader.read()).partition(b"\r\n\r\n")
        finally:
            writer.close()
        lines = [line for line in head.split(b"\r\n") if not line.lower().startswith(b"connection:")]
        if not bodiless and not any(line.lower().startswith(b"content-length:") for line in lines):
            lines.append(b"Content-Length: %d" % len(body))
        return b"\r\n".join(lines) + b"\r\n\r\n" + (b"" if bodiless else body)


class Count:
    """The requests of a block."""

    def __init__(self) -> None:
        self.requests: list[Request] = []

    @property
    def number(self) -> int:
        return len(self.requests)

    @property
    def rounds(self) -> int:
        """The length of the longest chain of requests that do not overlap."""
        rounds, free = 0, 0.0
        for request in sorted(self.requests, key=lambda request: request.ended):
            if request.began >= free:
                rounds, free = rounds + 1, request.ended
        return rounds

    def by_folder(self) -> Counter[str]:
        """Count by method and the folder of what is asked for."""
        return Counter(
            f"{r.method} {'/'.join(r.target.split('?')[0].split('/')[4:6])}" for r in self.requests
        )


def _length(head: bytes) -> int:
    for line in head.split(b"\r\n"):
        if line.lower().startswith(b"content-length:"):
            return int(line.split(b":")[1])
    return 0
