"""What the types of `[[interventions]]` cannot say: names that differ, keys that a kind can use."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from specs.common.spelling import one_of
from specs.errors import Problem
from specs.tables.interventions import ONLY_BESIDE, ONLY_FOR, Intervention
from specs.toml.describe import value as spell

UNCHANGED, SOURCE = "none", "source"
# Names of results that are no intervention's.
TAKEN = {UNCHANGED: "the result without any", SOURCE: "the result of a model that others take from"}
_DEFAULT = Intervention(name="-", kind="mask")


def intervention_problems(interventions: Sequence[Intervention]) -> Iterator[Problem]:
    """Everything that is wrong with the tables by themselves, beyond their types."""
    for index, settings in enumerate(interventions):
        at = f"interventions[{index}]"
        names = [other.name for other in interventions[:index]]
        if settings.name in names:
            yield Problem(None, f"{at}.name", f"{spell(settings.name)} is the name of two interventions")
        if settings.name in TAKEN:
            message = f"{spell(settings.name)} is {TAKEN[settings.name]}; expected another"
            yield Problem(None, f"{at}.name", message)
        yield from _unused_keys(at, settings)
        yield from _useless(at, settings)


def _unused_keys(at: str, settings: Intervention) -> Iterator[Problem]:
    for key, kinds in ONLY_FOR.items():
        if settings.kind not in kinds and getattr(settings, key) != getattr(_DEFAULT, key):
            wanted = one_of(f'kind = "{kind}"' for kind in kinds)
            yield Problem(
                None, f"{at}.{key}", f"expected only beside {wanted}, found kind = {spell(settings.kind)}"
            )
    for key, kinds, beside, accepted in ONLY_BESIDE:
        other = getattr(settings, beside)
        is_set = getattr(settings, key) != getattr(_DEFAULT, key)
        if is_set and settings.kind in kinds and other not in accepted:
            values = one_of(f"{beside} = {spell(value)}" for value in accepted)
            yield Problem(None, f"{at}.{key}", f"expected only beside {values}, found {spell(other)}")


def _useless(at: str, settings: Intervention) -> Iterator[Problem]:
    if settings.kind == "mask" and settings.alpha == 1:
        yield Problem(None, f"{at}.alpha", "1 leaves the adapter as it is; expected another factor")
    for key in (
        "layers", "width", "modules", "positions", "heads", "receiver_layers", "receiver_heads", "strength",
        "from_positions",
    ):  # fmt: skip
        listed = getattr(settings, key)
        if isinstance(listed, list):
            for place, item in enumerate(listed):
                if item in listed[:place]:
                    yield Problem(None, f"{at}.{key}[{place}]", f"{spell(item)} is listed twice")
    if 0 in settings.strength:
        place = settings.strength.index(0)
        yield Problem(None, f"{at}.strength[{place}]", "0 adds nothing; expected another")
    for key in ("layers", "receiver_layers"):
        layers = getattr(settings, key)
        if isinstance(layers, list) and 0 in layers:
            message = "0 is the embedding; expected a block, 1 to L"
            yield Problem(None, f"{at}.{key}[{layers.index(0)}]", message)
    if isinstance(settings.positions, list):
        for place, position in enumerate(settings.positions):
            if isinstance(position, int) and position >= 0:
                yield Problem(
                    None,
                    f"{at}.positions[{place}]",
                    f"expected a place in the prompt, counted from its end as n < 0; found {position}",
                )
    if settings.grid and settings.positions == "all":
        message = 'a grid takes each of `positions` by itself; expected a list of them, found "all"'
        yield Problem(None, f"{at}.grid", message)
    if settings.donor == "own" and settings.kind == "steer":
        yield Problem(None, f"{at}.donor", "the model does not differ from itself; expected another donor")
    elif settings.donor == "own" and settings.input == "same":
        message = 'is the changed model itself; expected another donor, or another `input` than "same"'
        yield Problem(None, f"{at}.donor", message)
    if settings.input == "donor" and not isinstance(settings.donor, dict):
        message = f"expected a donor by its levels, whose prompt is read, found {spell(settings.donor)}"
        yield Problem(None, f"{at}.input", message)
    if settings.donor == {}:
        yield Problem(None, f"{at}.donor", 'expected a factor and its level, or "base"; found an empty table')
