"""The words of method sentences: counts, and how an interval was made."""


def spell_count(count: int, thing: str) -> str:
    """Return "1 seed", "2 seeds"."""
    return f"{count} {thing}" if count == 1 else f"{count} {thing}s"


def described(seeds: int, resamples: int | None, seed: int, confidence: float) -> str:
    """Return how an interval was made, for a method sentence."""
    level = f"{confidence:.0%} intervals"
    over = (
        "over examples only (one seed: the variation between trainings is not covered)"
        if seeds < 2
        else f"over {seeds} seeds and the examples as crossed random factors (Satterthwaite's degrees of freedom)"
    )
    if resamples is None:
        return f"{level} {over}"
    return f"{level} {over}, by the pigeonhole bootstrap ({resamples} resamples, random seed {seed})"
