"""Quantities in words: large numbers with a decimal prefix, things counted."""


def si(value: float, unit: str = "") -> str:
    """Give a number to three digits with a decimal prefix: 1.2 GB, 27.6 k."""
    prefixes = iter(("", "k", "M", "G", "T", "P", "E"))
    prefix = next(prefixes)
    while abs(value) >= 999.5 and prefix != "E":
        value, prefix = value / 1000, next(prefixes)
    return f"{value:.3g} {prefix}{unit}".strip()


def count(number: int, thing: str) -> str:
    """Give "1 cell", "2 cells", "1,000 cells"."""
    return f"{number:,} {thing}" + "s" * (number != 1)
