"""What `data.source` names: files, folders, hub and public data sets, the built-in one, or several."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from attrs import frozen

from engine.data.public_sets import PublicSet
from engine.errors import DataError
from specs.registry import DATA_SETS, PUBLIC_SETS
from specs.tables.data import Data
from specs.toml.paths import data_suffix


@frozen
class DataSource:
    """One of the sources that a spec names: a path, a hub data set, or one that a package holds itself."""

    name: str  # tells the sources of a list apart, in the rows' ids
    path: Path | None = None  # may be missing
    hub: str | None = None
    data_set: str | None = None  # the name of one that the engine or a plug-in holds
    config: str | None = None
    revision: str | None = None
    public: str | None = None  # the public set whose schema it has

    @property
    def adapter(self) -> PublicSet | None:
        """What reads it, if it is a public set or a copy of one."""
        return PUBLIC_SETS.get(self.public, PublicSet) if self.public else None

    @property
    def missing(self) -> bool:
        """Whether it is a path where nothing is (yet)."""
        return self.path is not None and not self.path.exists()

    def __str__(self) -> str:
        return str(self.path or self.hub or self.data_set)


def sources(data: Data) -> list[DataSource]:
    """Give the sources in an order that does not hang on the spec's. DataError if they cannot go together."""
    spelled = [data.source] if isinstance(data.source, str) else data.source
    names = _names(spelled)
    origins = [_source(text, name, data) for text, name in zip(spelled, names, strict=True)]
    if data.revision is not None and sum(source.hub is not None for source in origins) > 1:
        raise DataError(
            f'data.revision: found "{data.revision}" for several hub data sets; expected it for one alone'
        )
    return sorted(origins, key=lambda source: source.name)


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
    path = data_suffix(Path(text)) or Path(text).is_absolute()
    if not path and text in DATA_SETS:
        return DataSource(name, data_set=text)
    if not path and text in PUBLIC_SETS:
        known = PUBLIC_SETS.get(text, PublicSet)
        config, revision = data.config or known.config, data.revision or known.revision
        return DataSource(name, hub=known.hub, config=config, revision=revision, public=text)
    if path:
        return DataSource(name, path=Path(text), config=data.config, public=public)
    return DataSource(name, hub=text, config=data.config, revision=data.revision, public=public)
