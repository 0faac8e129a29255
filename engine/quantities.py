"""Quantities in words: large numbers with a decimal prefix, times, things counted."""


def si(value: float, unit: str = "") -> str:
    """Give a number to three digits with a decimal prefix: 1.2 GB, 27.6 k."""
    prefixes = iter(("", "k", "M", "G", "T", "P", "E"))
    prefix = next(prefixes)
    while abs(value) >= 999.5 and prefix != "E":
        value, prefix = value / 1000, next(prefixes)
    return f"{value:.3g} {prefix}{unit}".strip()


def duration(seconds: float) -> str:
    """Give a time to what matters of it: 2 d 3 h, 3 h 10 min, 25 min, less than a minute."""
    minutes = round(seconds / 60)
    if minutes < 1:
        return "less than a minute"
    hours, minutes = divmod(minutes, 60)
    days, hours = divmod(hours, 24)
    parts = [(days, "d"), (hours, "h"), (minutes, "min")]
    first = next(place for place, (number, _) in enumerate(parts) if number)
    return " ".join(f"{number} {unit}" for number, unit in parts[first : first + 2] if number)


def count(number: int, thing: str) -> str:
    """Give "1 cell", "2 cells", "1,000 cells"."""
    return f"{number:,} {thing}" + "s" * (number != 1)
