"""Quantities in words: large numbers with a decimal prefix."""


def si(value: float, unit: str = "") -> str:
    """Give a number to three digits with a decimal prefix: 1.2 GB, 27.6 k."""
    prefixes = iter(("", "k", "M", "G", "T", "P", "E"))
    prefix = next(prefixes)
    while abs(value) >= 999.5 and prefix != "E":
        value, prefix = value / 1000, next(prefixes)
    return f"{value:.3g} {prefix}{unit}".strip()
