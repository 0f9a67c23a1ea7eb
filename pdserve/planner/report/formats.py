"""How numbers are written for people."""

import math

UNKNOWN = "–"
_LEAST_SHARE = 0.0005


def number(value: float) -> str:
    """Three significant digits, with separators of thousands and without an exponent.

    Numbers that are round to begin with are written without their zeros.
    """
    if not math.isfinite(value):
        return UNKNOWN
    if value == 0:
        return "0"
    decimals = max(0, 2 - math.floor(math.log10(abs(value))))
    text = f"{value:,.{min(decimals, 9)}f}"
    exact = decimals > 0 and float(text.replace(",", "")) == value
    return text.rstrip("0").rstrip(".") if exact else text


def percent(share: float) -> str:
    """A share of 1 as percent, with the digits that still tell it from all and none."""
    if not math.isfinite(share):
        return UNKNOWN
    if 0 < share < _LEAST_SHARE:
        return "under 0.1%"
    text = f"{share * 100:.1f}"
    return f"{text.removesuffix('.0')}%"


def duration(seconds: float) -> str:
    """Milliseconds, or seconds from ten on."""
    if not math.isfinite(seconds):
        return UNKNOWN
    return f"{number(seconds)} s" if seconds >= 10 else f"{number(seconds * 1e3)} ms"


def size(count: float) -> str:
    """Bytes in the decimal unit that fits."""
    return _scaled(count, "B")


def bandwidth(bytes_per_s: float) -> str:
    """Bytes per second in the decimal unit that fits."""
    return _scaled(bytes_per_s, "B/s")


def plural(count: int, noun: str) -> str:
    """The count and the noun, which takes an s for all but one."""
    return f"{count:,} {noun}" if count == 1 else f"{count:,} {noun}s"


def listed(items: list[str]) -> str:
    """Items with commas, and "and" before the last."""
    return items[0] if len(items) == 1 else f"{', '.join(items[:-1])} and {items[-1]}"


def _scaled(value: float, unit: str) -> str:
    if not math.isfinite(value):
        return UNKNOWN
    for factor, prefix in ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")):
        if value >= factor:
            return f"{number(value / factor)} {prefix}{unit}"
    return f"{number(value)} {unit}"
