"""How paired differences vary where no pilot tells: assumptions, whose sources docs/power.md names."""

from __future__ import annotations

from collections.abc import Mapping

from attrs import evolve

from store.analysis.power import Variation

ASSUMED = {
    "correct": Variation(0.04, 0.25, 0.36, 0.1, discordant=0.2),
    "generated_correct": Variation(0.04, 0.25, 0.36, 0.1, discordant=0.2),
    "absolute_error": Variation(0.5, 0.5, 1.2, 0.1),
    "brier": Variation(0.05, 0.1, 0.2, 0.1),
    "nll": Variation(0.1, 0.3, 0.5, 0.1),
    "logsumexp": Variation(0.3, 0.4, 0.5, 0.1, 0.8),
    "entropy": Variation(0.05, 0.05, 0.09, 0.1, 0.8),
    "max_prob": Variation(0.02, 0.01, 0.04, 0.1, 0.5),
    "kl_final": Variation(0.3, 0.2, 0.4, 0.1, 0.8),
    "js_final": Variation(0.0006, 0.0004, 0.0004, 0.1, 0.7),
    "watch_mass": Variation(0.0001, 0.0002, 0.0002, 0.1, 0.7),
    "watch_entropy": Variation(0.03, 0.08, 0.03, 0.1, 0.6),
}


def variation(outcome: str, given: Mapping[str, float]) -> Variation:
    """Return what is assumed of an outcome's differences, `given` values in the place of the table's.

    Of accuracies, what `discordant` leaves is the rest, where that is not given: in one seed's two models the
    differences −1, 0 and 1 have a mean square of `discordant`.
    """
    found = evolve(ASSUMED[outcome], **given)
    if found.discordant is None or "rest" in given:
        return found
    rest = max(found.discordant - found.seed**2 - found.example**2, 0.0)
    return evolve(found, rest=rest**0.5)
