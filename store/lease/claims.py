"""Claims: which process works on which stage key, told without clocks and without file locks.

The claims of a key are the files claims/STAGE/KEY/1.json, 2.json, …; the highest is the owner's. One is made
whole by link(2), at which only one of several processes succeeds, and is never written over: a claim is taken
over by making the next one, so a process that is late cannot take over the taker. While its owner lives, a
thread of the owner counts up the claim's `beat`. Others compare beats, never times: a claim is abandoned when
its process is known to be dead, or when its beat has stood still for a lease on the watcher's own clock.
"""

from __future__ import annotations

import math
import os
import platform
import time
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from threading import Event, Thread
from uuid import uuid4

from store.backend.location import Place
from store.backend.records import Json, is_plain, json_text, parse_json, plain, read_file
from store.errors import DamagedError, LostClaimError, StoreError

LEASE = 60.0
"""Seconds of silence after which a claim may be taken over."""

CLAIMS = "claims"  # the folder
_BEATS = 6  # per lease
_LOOKS = 1000  # at a claim that is listed and not there
_DIGITS = 20  # of the beat, so that it is written over in place
_START = "0" * _DIGITS


class Claim:
    """This process's claim on a stage key, renewed by a thread until it is released."""

    def __init__(self, place: Place, folder: str, number: int, mark: Json, since: float) -> None:
        self._place, self._folder, self._number = place, folder, number
        self.name = f"{folder}/{number}.json"
        self.fenced = bool(mark["fenced"])
        """Whether an earlier owner, silent but not known to be dead, might still write for the key."""
        self._hold = place.hold(self.name)
        self._offset = place.read(self.name).index(_START.encode())
        # Others follow after a lease of silence, and the beat was seen to stand here at that time.
        self._beaten, self._lease = since, float(mark["lease"])
        self._ended, self._released = Event(), False
        self._thread = Thread(target=self._renew, args=(self._lease / _BEATS,), daemon=True)
        self._thread.start()

    def check(self, *, now: bool = False) -> None:
        """Raise an error when another process has taken the key over.

        Args:
            now: look even where that costs a round trip; else a beat of the last half lease will do.

        Raises:
            LostClaimError: when the key is another's.
        """
        sure = self._place.distant and not now and _clock() - self._beaten < self._lease / 2
        if self._ended.is_set() or not (sure or self._held()):
            raise LostClaimError(f"{self._place}/{self.name}: another process has taken this stage over")

    def release(self) -> None:
        """End the claim, unless that is done. What a successor has taken over is left to it."""
        if self._released:
            return
        self._ended.set()
        self._thread.join()
        if self._held():
            # Upwards: until this claim itself is gone, it is the highest.
            for number in (n for n in sorted(_numbers(self._place, self._folder)) if n <= self._number):
                self._place.remove(f"{self._folder}/{number}.json")
            self._place.prune(self._folder)
        self._hold.close()
        self._released = True

    def _held(self) -> bool:
        newest = max(_numbers(self._place, self._folder), default=0)
        return newest == self._number and self._hold.held()

    def _renew(self, interval: float) -> None:
        beat = 0
        while not self._ended.wait(interval):
            beat, began = beat + 1, _clock()
            try:
                self._hold.renew(self._offset, f"{beat:0{_DIGITS}}".encode())
            except (OSError, StoreError):  # a full disk or a lost server: whoever can write may take over
                continue
            self._beaten = began


class Claims:
    """Makes this process's claims in one store, and remembers how long the others' have been silent."""

    def __init__(self, place: Place, lease: float = LEASE, top: str = CLAIMS) -> None:
        self._place, self._lease, self._top = place, lease, top
        self._seen: dict[str, tuple[str, float]] = {}  # token → beat, and when it was first seen (monotonic)

    def take(self, stage: str, key: str) -> Claim | None:
        """Claim a key; None while another process holds it, or was faster.

        Silence counts from the first call, so whoever waits for an abandoned claim has to call again.
        """
        folder = _folder(stage, key, self._top)
        while True:
            newest = _newest(self._place, folder)
            if newest is not None and not self._abandoned(newest[1]):
                return None
            number, former = newest or (0, {})
            mark = self._mark(fenced=newest is not None and (former["fenced"] or not _dead(former)))
            name, began = f"{folder}/{number + 1}.json", _clock()
            try:
                if not self._place.create(name, json_text(mark, name)):  # no record: its beat changes
                    return None
            except FileNotFoundError:  # the last owner removed the folder meanwhile
                continue
            # Other claims than these: the former owner ended just now, and somebody began anew.
            if {n for n in _numbers(self._place, folder) if n >= number} != {number, number + 1} - {0}:
                self._place.remove(name)
                return None
            try:
                return Claim(self._place, folder, number + 1, mark, began)
            except BaseException:  # nobody would ever release it
                self._place.remove(name)
                raise

    def free(self, stage: str, key: str) -> bool:
        """Tell whether `take` could succeed now."""
        newest = _newest(self._place, _folder(stage, key, self._top))
        return newest is None or self._abandoned(newest[1])

    def at_work(self) -> list[tuple[str, str]]:
        """Return stage and key of all claims whose owners may be at work.

        An owner on another machine is known to be dead after a lease in which every call found the same beat.
        """
        stages = filter(is_plain, self._place.names(self._top))
        keys = ((stage, key) for stage in stages for key in self._place.names(f"{self._top}/{stage}"))
        return [(stage, key) for stage, key in keys if is_plain(key) and not self.free(stage, key)]

    def silent(self) -> dict[str, str]:
        """Return the owners that have been silent for this store's lease: token → last beat."""
        now = time.monotonic()
        return {token: beat for token, (beat, since) in self._seen.items() if now - since >= self._lease}

    def believe(self, silent: Mapping[str, str]) -> None:
        """Take another process's word for what it has found silent; a beat since then proves it wrong."""
        self._seen |= {token: (beat, -math.inf) for token, beat in silent.items()}

    def _abandoned(self, mark: Json) -> bool:
        return _dead(mark) or self._silent(mark)

    def _silent(self, mark: Json) -> bool:
        now = time.monotonic()
        beat, since = self._seen.get(mark["token"], ("", now))
        if beat != mark["beat"]:
            since = now
        self._seen[mark["token"]] = (mark["beat"], since)
        return bool(now - since >= mark["lease"])

    def _mark(self, *, fenced: bool) -> Json:
        pid = os.getpid()
        return {
            "beat": _START,
            "token": uuid4().hex,
            "host": platform.node(),
            "machine": _machine(),
            "pid": pid,
            "born": _born(pid),
            "started": time.time(),  # for people; nothing is decided by it
            "lease": self._lease,
            "fenced": fenced,
        }


def claimed(place: Place, stage: str) -> Iterator[str]:
    """Yield the keys of a stage with an owner that is not known to be dead."""
    for key in sorted(filter(is_plain, place.names(f"claims/{plain(stage)}"))):
        newest = _newest(place, _folder(stage, key))
        if newest is not None and not _dead(newest[1]):
            yield key


def live_claims(place: Place) -> list[str]:
    """Name the processes at work in a store, by their claims.

    Takes up to a lease where a claim is another machine's, which only a standing beat can show to be dead.
    """
    folders = [
        _folder(stage, key)
        for stage in filter(is_plain, place.names("claims"))
        for key in filter(is_plain, place.names(f"claims/{stage}"))
    ]
    newest = {folder: _newest(place, folder) for folder in folders}
    watched = {folder: seen for folder, seen in newest.items() if seen and not _dead(seen[1])}
    deadline = time.monotonic() + max(
        (float(mark["lease"]) for _, mark in watched.values() if mark["machine"] != _machine()), default=0.0
    )
    live: list[str] = []
    while watched:
        for folder, seen in list(watched.items()):
            now = _newest(place, folder)
            if now is None or (now != seen and _dead(now[1])):
                del watched[folder]
            elif now != seen or now[1]["machine"] == _machine():
                _, stage, key = folder.split("/")
                live.append(f"{stage} {key} is running on {now[1]['host']}, process {now[1]['pid']}")
        if live or time.monotonic() >= deadline:
            break
        time.sleep(0.1)
    return live


def _folder(stage: str, key: str, top: str = CLAIMS) -> str:
    return f"{top}/{plain(stage)}/{plain(key)}"


def _newest(place: Place, folder: str) -> tuple[int, Json] | None:
    """Return the number and the content of a key's highest claim."""
    looks = 0
    while numbers := _numbers(place, folder):
        name, looks = f"{folder}/{max(numbers)}.json", looks + 1
        try:
            mark = _mark_of(read_file(place, name), f"{place}/{name}")
        except FileNotFoundError as error:  # released meanwhile
            place = place.now()
            if looks < _LOOKS:
                continue
            raise StoreError(f"{place}/{name}: leads nowhere; delete it to free the stage") from error
        return max(numbers), mark
    return None


def _mark_of(text: bytes, path: str) -> Json:
    """Return the content of a claim; of a torn one, as a power cut leaves, that of a silent unknown process.

    So it is taken over after a lease, as if its owner might still write.
    """
    try:
        mark = parse_json(text, path)
    except DamagedError:
        mark = {}
    if {"token", "host", "machine", "pid", "born", "lease", "fenced", "beat"} <= mark.keys():
        return mark
    unknown = {"host": "an unknown machine", "machine": "", "pid": 0, "born": ""}
    return unknown | {"token": path, "beat": text.hex(), "lease": LEASE, "fenced": True}


def _numbers(place: Place, folder: str) -> set[int]:
    stems = (name.removesuffix(".json") for name in place.names(folder) if name.endswith(".json"))
    return {int(stem) for stem in stems if stem.isdecimal()}


def _dead(mark: Json) -> bool:
    """Tell whether a claim's process is known to be dead, which only its own machine can know."""
    if mark["machine"] != _machine():
        return False
    pid = int(mark["pid"])
    return not _exists(pid) or _born(pid) not in ("", mark["born"])


def _clock() -> float:
    """Return seconds on a clock that goes on while the machine sleeps, where it has one."""
    return time.clock_gettime(getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC))


@cache
def _machine() -> str:
    """Identify the running system whose process numbers this process sees: equal names do not suffice."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{platform.node()} {boot} {Path('/proc/self/ns/pid').readlink()}"
    except OSError:
        return platform.node()


def _born(pid: int) -> str:
    """Return when a process began, in clock ticks since the machine did; "" where that cannot be known.

    Process numbers are used again; this tells the new process from the old one.
    """
    try:
        state, *fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return ""
    return "dead" if state in "ZX" else fields[18]


def _exists(pid: int) -> bool:
    if pid <= 0:
        return False
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:  # it lives, as somebody else's
        return True
    return True
