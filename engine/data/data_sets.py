"""Data sets that a package holds or makes itself: the built-in dialogues, and those of plug-ins."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

from attrs import frozen

from engine.data.chats import MESSAGES
from engine.data.explanations import FURTHER
from specs.errors import PluginError
from specs.registry import DATA_SETS

FIELDS = ("id", "context", "response", "label", "explanation", "group")
NEEDED = FIELDS[:4]
# Keys of `data.columns` that a set with columns of its own cannot have; the others are not read there.
REFUSED_COLUMNS = ("fields", MESSAGES, FURTHER)


@frozen
class DataSet:
    """One `data.source = "NAME"`.

    Rows have the texts id, context, response and label, and may have explanation and group: rows of one group
    never part between train and test, and the default is the context.
    """

    rows: Callable[[str], Iterator[Mapping[str, str]]]  # given `data.dimension`, the quality that is rated
    unique: bool = True  # whether two rows that are the same are a mistake
    version: str = "1"  # part of stage keys, to be raised when any row changes


def data_set_rows(name: str, dimension: str) -> Iterator[dict[str, str]]:
    """Yield the rows of a data set; PluginError for one that is not as it should be."""
    for row in DATA_SETS.get(name, DataSet).rows(dimension):
        wrong = [field for field in NEEDED if field not in row]
        wrong += [field for field in row if field not in FIELDS or not isinstance(row[field], str)]
        if wrong:
            raise PluginError(
                f"{DATA_SETS.plugin(name) or name}: expected rows of the texts {', '.join(NEEDED)} and, if "
                f'it has them, {" and ".join(FIELDS[4:])}; found a row with a wrong or missing "{wrong[0]}": '
                f"{dict(row)!s:.200}"
            )
        yield dict(row)
