"""What data sources and models hold: identities of their content, which stage keys are made of."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from engine import fingerprints
from engine.data.data_sets import DataSet
from engine.data.sources import DataSource, sources
from engine.errors import DataError, UsageError
from specs.registry import DATA_SETS, PUBLIC_SETS, Registry
from specs.tables.data import Data
from specs.tables.experiment import Model

NONE: Mapping[str, str] = MappingProxyType({})


def digest(value: Any) -> str:
    """Hash the canonical JSON of a value (sorted keys, no spaces): 32 hex digits."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()


def source_identity(data: Data, remembered: Mapping[str, str] = NONE) -> str:
    """Identify the content of the sources: file fingerprints, hub revisions, versions of our own code.

    The order of several sources does not count, their names do, for they are in the rows' ids. Files are
    known by what is `remembered` of their paths (`file_identities`), missing ones else by the paths. Raises
    DataError where `data.fingerprint` names another content than is found.
    """
    origins = sources(data)
    parts = {source.name: _source_identity(source, remembered) for source in origins}
    text = digest(parts) if len(parts) > 1 else parts[origins[0].name]
    if data.fingerprint not in (None, text) and not any(source.missing for source in origins):
        raise DataError(f'data.fingerprint: expected "{data.fingerprint}", but "{data.source}" has "{text}"')
    return text


def file_identities(data: Data) -> dict[str, str]:
    """Identify the sources that are files or folders, by path; those that are not there are left out."""
    existing = (source for source in sources(data) if source.path is not None and not source.missing)
    return {str(source): _source_identity(source, NONE) for source in existing}


def _source_identity(source: DataSource, remembered: Mapping[str, str]) -> str:
    if source.data_set is not None:
        version = DATA_SETS.get(source.data_set, DataSet).version
        return _with_plugin(f"{source} {version}", DATA_SETS, source.data_set)
    read_as = ""
    if source.public and source.adapter:
        read_as = _with_plugin(f" {source.public} {source.adapter.version}", PUBLIC_SETS, source.public)
    if source.path is None:
        return f"hub {source.hub} {source.config} {source.revision}{read_as}"
    if str(source) in remembered:
        return remembered[str(source)]
    if source.missing:
        return f"not there yet: {source.path}"
    return fingerprints.fingerprint_path(source.path) + read_as


def _with_plugin(text: str, registry: Registry, name: str) -> str:
    plugin = registry.identity(name)
    return f"{text} {plugin}" if plugin else text


def model_identity(model: Model) -> str:
    """Identify the content of a model: fingerprint of its files, or hub id and revision."""
    from engine.models.loading import local_path

    path = local_path(model.id)
    if path is None:
        return f"hub {model.id} {model.revision} {model.gguf_file}"
    if path.is_dir() and not model.gguf_file and not (path / "config.json").is_file():
        raise UsageError(
            f'model.id: found the folder "{model.id}", which holds no config.json; expected the folder of a '
            "model as transformers saves it, or model.gguf_file"
        )
    return fingerprints.fingerprint_path(path / model.gguf_file if model.gguf_file else path)
