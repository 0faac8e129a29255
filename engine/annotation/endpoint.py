"""An OpenAI-compatible API: one request at a time through limits, retries and errors that say what to do."""

from __future__ import annotations

import asyncio
import json
import os
import random
import time
import zlib
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any

import httpx2

from engine.annotation.answers import LoggedAnswer
from engine.errors import EngineError, UsageError
from specs.tables.annotate import Annotator

RETRIED = {408, 409, 429, *range(500, 600)}
# About this one request (too long, say), as long as the annotator answers others.
ABOUT_THE_REQUEST = {400, 413, 422}
LONGEST_WAIT = 600.0  # seconds; a server that asks for more has another reason than load
LONGEST_BACKOFF = 60.0
LONGEST_MESSAGE = 300
LARGEST = 4 * 2**20  # bytes of an answer, decompressed
MOST_TOKENS = 10**12  # of an answer; more is no count
LONGEST_FINISH = 40  # letters of why an answer ended


class StoppedError(EngineError):
    """No further request to this annotator makes sense."""


class UnansweredError(Exception):
    """A request that got no answer in all its tries; another call may ask again."""


class Endpoint:
    """Asks one annotator. `answered` says whether it has ever answered anything."""

    def __init__(self, annotator: Annotator, client: httpx2.AsyncClient, *, answered: bool) -> None:
        self._annotator = annotator
        self._client = client
        self._url = f"{str(annotator.endpoint).rstrip('/')}/chat/completions"
        self._key = api_key(annotator)
        self._headers = {"Authorization": f"Bearer {self._key}"} if self._key else {}
        self._gate = _Gate(annotator.requests_per_minute)
        self._answered = answered

    async def ask(self, body: dict[str, Any]) -> LoggedAnswer:
        """Send one request; UnansweredError after the last retry, StoppedError where none could help."""
        for retry in range(self._annotator.retries + 1):
            await self._gate.enter()
            fault, wait = await self._try(body)
            if isinstance(fault, LoggedAnswer):
                self._answered |= not fault.refused
                return fault
            if retry < self._annotator.retries:
                pause = min(self._annotator.backoff * 2**retry, LONGEST_BACKOFF) * random.uniform(0.5, 1)
                await asyncio.sleep(max(pause, wait))
        raise UnansweredError(fault)

    async def _try(self, body: dict[str, Any]) -> tuple[LoggedAnswer | str, float]:
        """Give the answer, or what went wrong and the seconds that the server asks to wait."""
        try:
            async with asyncio.timeout(self._annotator.timeout):
                headers = self._headers | {"Accept-Encoding": "gzip"}
                sent = self._client.stream("POST", self._url, json=body, headers=headers)
                async with sent as response:
                    content = await _content(response)
        except (TimeoutError, httpx2.TimeoutException):
            return "timeout", 0.0
        except (httpx2.InvalidURL, httpx2.UnsupportedProtocol) as error:
            raise self.stopped(f"not a usable URL: {error}") from None
        except httpx2.RequestError as error:
            return f"connection: {type(error).__name__}", 0.0
        if content is None:
            return "response too large or unreadable", 0.0
        if response.status_code == 200:
            return self._answer(content), 0.0
        status = f"status {response.status_code}"
        if response.status_code in RETRIED:
            wait = _retry_after(response.headers.get("retry-after", ""))
            if wait > LONGEST_WAIT:
                raise self.stopped(f"{status}, to be retried after {wait:.0f} s: {self._message(content)}")
            self._gate.close(wait)
            return status, wait
        if response.status_code in ABOUT_THE_REQUEST and self._answered:
            return LoggedAnswer(self._message(content), status=response.status_code), 0.0
        raise self.stopped(f"{status}: {self._message(content)}")

    def _answer(self, content: bytes) -> LoggedAnswer | str:
        try:
            body = json.loads(content)
            choice, usage = body["choices"][0], body.get("usage") or {}
            text = choice["message"].get("content") or ""
            tokens = [usage.get(name) for name in ("prompt_tokens", "completion_tokens")]
        except (ValueError, KeyError, IndexError, TypeError, AttributeError, RecursionError):
            return "unreadable response"
        prompt, completion = (n if type(n) is int and 0 <= n < MOST_TOKENS else None for n in tokens)
        finish = self._clean(str(choice.get("finish_reason") or ""))[:LONGEST_FINISH]
        return LoggedAnswer(self._clean(str(text)), finish, prompt, completion)

    def _message(self, content: bytes) -> str:
        """Give the server's own words, on one line."""
        try:
            body = json.loads(content)
            error = body.get("error", body)
            text = error.get("message", error) if isinstance(error, dict) else error
        except (ValueError, AttributeError, RecursionError):
            text = content.decode("utf-8", "replace")
        return self._clean(" ".join(str(text).split()))[:LONGEST_MESSAGE] or "no message"

    def _clean(self, text: str) -> str:
        """Take the key out, should a server repeat it, and half characters, which no file can hold."""
        whole = text.encode("utf-8", "replace").decode()
        return whole.replace(self._key, "***") if self._key else whole

    def stopped(self, message: str) -> StoppedError:
        """Give the error that ends the asking of this annotator."""
        source = f" (key from ${self._annotator.key_env})" if self._annotator.key_env else ""
        return StoppedError(f'annotator "{self._annotator.name}" at {self._url}{source}: {message}')


async def _content(response: httpx2.Response) -> bytes | None:
    """Read an answer of at most LARGEST bytes, decompressed; None for a larger or unreadable one.

    Decompressed here, piece by piece: an HTTP library unpacks as much as a server has packed.
    """
    encoding = response.headers.get("content-encoding", "identity").strip().lower()
    if encoding not in ("identity", "gzip", "deflate"):
        return None
    unpack = None if encoding == "identity" else zlib.decompressobj(32 + zlib.MAX_WBITS)
    content = bytearray()
    async for piece in response.aiter_raw():
        try:
            content += unpack.decompress(piece, LARGEST + 1 - len(content)) if unpack else piece
        except zlib.error:
            return None
        if len(content) > LARGEST:
            return None
    return bytes(content)


class _Gate:
    """Lets requests through: evenly spaced under a rate limit, none while a server asks to wait."""

    def __init__(self, per_minute: float | None) -> None:
        self._spacing = 60 / per_minute if per_minute else 0.0
        self._next = 0.0
        self._queue = asyncio.Lock()

    async def enter(self) -> None:
        async with self._queue:
            while (wait := self._next - time.monotonic()) > 0:
                await asyncio.sleep(wait)
            self._next = time.monotonic() + self._spacing

    def close(self, seconds: float) -> None:
        self._next = max(self._next, time.monotonic() + seconds)


def api_key(annotator: Annotator) -> str | None:
    """Read the annotator's key from its environment; UsageError names the variable, never its value."""
    if annotator.key_env is None:
        return None
    key = os.environ.get(annotator.key_env, "").strip()
    if not key:
        raise UsageError(
            f'annotator "{annotator.name}": key_env names ${annotator.key_env}, which is not set; '
            "expected the API key"
        )
    # An HTTP library would show an impossible header in its error.
    if not key.isascii() or not key.isprintable() or " " in key:
        raise UsageError(
            f'annotator "{annotator.name}": ${annotator.key_env} holds characters that no key has'
        )
    return key


def _retry_after(value: str) -> float:
    """Give the seconds of a Retry-After header, a number or a date; 0 where there is none."""
    try:
        return max(float(value), 0.0)
    except ValueError:
        pass
    try:
        return max((parsedate_to_datetime(value) - datetime.now(UTC)).total_seconds(), 0.0)
    except (ValueError, TypeError):
        return 0.0
