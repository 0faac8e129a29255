"""What `data.source` names: files, folders, hub and public data sets, the built-in one, or several."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from attrs import frozen

from engine.data.public_sets import ADAPTERS, Adapter
from engine.errors import DataError
from specs.tables.data import BUILT_IN, BUILT_IN_SETS, PUBLIC_SETS, Data
from specs.toml.paths import data_suffix


@frozen
class DataSource:
    """One of the sources that a spec names: a path, a hub data set, or (neither) the built-in one."""

    name: str  # tells the sources of a list apart, in the rows' ids
    path: Path | None = None  # may be missing
    hub: str | None = None
    part: str | None = None  # of the built-in one
    config: str | None = None
    revision: str | None = None
    public: str | None = None  # the public set whose schema it has

    @property
    def adapter(self) -> Adapter | None:
        """The adapter that reads it, if it is a public set or a copy of one."""
        return ADAPTERS[self.public] if self.public else None

    @property
    def built_in(self) -> bool:
        """Whether it is the built-in set."""
        return self.path is None and self.hub is None

    @property
    def missing(self) -> bool:
        """Whether it is a path where nothing is (yet)."""
        return self.path is not None and not self.path.exists()

    def __str__(self) -> str:
        return str(self.path or self.hub or "/".join(filter(None, (BUILT_IN, self.part))))


def sources(data: Data) -> list[DataSource]:
    """Give the sources in an order that does not hang on the spec's. DataError if they cannot go together."""
    spelled = [data.source] if isinstance(data.source, str) else data.source
    names = _names(spelled)
    found = [_source(text, name, data) for text, name in zip(spelled, names, strict=True)]
    if data.revision is not None and sum(source.hub is not None for source in found) > 1:
        raise DataError(
            f'data.revision: found "{data.revision}" for several hub data sets; expected it for one alone'
        )
    return sorted(found, key=lambda source: source.name)


def _names(spelled: Sequence[str]) -> list[str]:
    """Give the shortest ends of the paths or ids that differ, without the files' suffixes."""
    parts = [_without_suffix(Path(text)).parts for text in spelled]
    for depth in range(1, max(map(len, parts)) + 1):
        names = ["/".join(part[-depth:]) for part in parts]
        if len(set(names)) == len(names):
            return names
    twice, number = Counter(spelled).most_common(1)[0]
    if number > 1:
        raise DataError(f'data.source: "{twice}" is listed twice')
    return list(spelled)


def _without_suffix(path: Path) -> Path:
    if (suffix := data_suffix(path)) is None:
        return path
    packed = ".gz" if path.suffix.lower() == ".gz" else ""
    return path.with_name(path.name[: -len(suffix + packed)])


def _source(text: str, name: str, data: Data) -> DataSource:
    public = None if data.adapter == "none" else data.adapter
    if text in BUILT_IN_SETS:
        return DataSource(name, part=text.partition("/")[2] or None)
    if text in PUBLIC_SETS:
        adapter = ADAPTERS[text]
        config, revision = data.config or adapter.config, data.revision or adapter.revision
        return DataSource(name, hub=adapter.hub, config=config, revision=revision, public=text)
    if data_suffix(Path(text)) or Path(text).is_absolute():
        return DataSource(name, path=Path(text), config=data.config, public=public)
    return DataSource(name, hub=text, config=data.config, revision=data.revision, public=public)
