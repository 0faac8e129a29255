"""How paired differences vary where no pilot tells: assumptions, whose sources docs/power.md names."""

from __future__ import annotations

from collections.abc import Mapping

from attrs import evolve

from store.analysis.power import Variation

ASSUMED = {
    "correct": Variation(0.04, 0.22, 0.47, 0.2, discordant=0.27),
    "generated_correct": Variation(0.04, 0.22, 0.47, 0.2, discordant=0.27),
    "absolute_error": Variation(0.7, 1.1, 1.5, 0.2),
    "brier": Variation(0.02, 0.16, 0.15, 0.2),
    "nll": Variation(0.08, 0.4, 0.3, 0.2),
    "logsumexp": Variation(0.7, 0.5, 0.5, 0.2, 0.8),
    "entropy": Variation(0.06, 0.06, 0.08, 0.2, 0.7),
    "max_prob": Variation(0.02, 0.01, 0.04, 0.2, 0.6),
    "kl_final": Variation(0.4, 0.2, 0.4, 0.2, 0.8),
    "js_final": Variation(0.0009, 0.0005, 0.0004, 0.2, 0.6),
    "watch_mass": Variation(0.0003, 0.0003, 0.0002, 0.2, 0.7),
    "watch_entropy": Variation(0.03, 0.07, 0.04, 0.2, 0.6),
}

NEEDED = ("seed", "example", "rest")
"""What has to be given of an outcome that is not in the table."""


def is_known(outcome: str, given: Mapping[str, float]) -> bool:
    """Tell whether an outcome's variation is assumed here, or `given` as far as it is needed."""
    return outcome in ASSUMED or {*NEEDED} <= given.keys()


def variation(outcome: str, given: Mapping[str, float]) -> Variation:
    """Return what is assumed of an outcome's differences, `given` values in the place of the table's.

    Of accuracies, what `discordant` leaves is the rest, where that is not given: in one seed's two models the
    differences −1, 0 and 1 have a mean square of `discordant`.
    """
    if outcome not in ASSUMED:
        return Variation(**{"within_group": 0.2, "between_layers": 0.7, **given})
    assumed_variation = evolve(ASSUMED[outcome], **given)
    if assumed_variation.discordant is None or "rest" in given:
        return assumed_variation
    rest = max(assumed_variation.discordant - assumed_variation.seed**2 - assumed_variation.example**2, 0.0)
    return evolve(assumed_variation, rest=rest**0.5)
