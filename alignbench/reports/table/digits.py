"""Numbers to two significant digits, with their limits: what brief tables print."""

from __future__ import annotations

from math import floor, inf, isinf, log10
from re import findall

from alignbench.reports.table.numbers import INFINITY, MISSING

LARGE = 1e5  # from here on, powers of ten
SMALL = 0.005  # half a width: below, a third decimal tells
SYMMETRIC = 0.1  # of the half width: sides that differ by less are printed as one ±


def two_digits(value: float) -> str:
    """A number to two significant digits, without a 0 before the point: `.13`, `1.2`, `11`, `0`, `∞`."""
    if isinf(value):
        return INFINITY if value > 0 else f"−{INFINITY}"
    if abs(value) >= LARGE:
        return f"{value:.1e}"
    return _to(value, _decimals(value))


def _decimals(value: float, most: int = 2) -> int:
    """Decimals that show two significant digits; none of what is 10 or more, and not more than `most`."""
    return 0 if value == 0 else min(max(1 - floor(log10(abs(value)) + 1e-9), 0), most)


def _to(value: float, decimals: int) -> str:
    text = f"{abs(value):.{decimals}f}"
    if float(text) == 0:
        return "0"
    text = text.removeprefix("0") if abs(value) < 1 and text.startswith("0.") else text
    return f"−{text}" if value < 0 else text


def spelled(value: float | None, low: float | None, high: float | None) -> tuple[str, str]:
    """A number and its 95 % limits: `.13` and `.07–.34`, `11` and `±2.2`; a bound is `≥ .3`, what is exact has none."""
    low, high = None if low == -inf else low, None if high == inf else high
    if value is None:
        known = [f"{sign} {two_digits(x)}" for sign, x in (("≥", low), ("≤", high)) if x is not None]
        return " ".join(known) or MISSING, ""
    if isinf(value) or (low is None and high is None) or low == high == value:
        return two_digits(value), ""
    if low is None or high is None:
        return two_digits(value), f"≥ {two_digits(low)}" if low is not None else f"≤ {two_digits(high or inf)}"
    half = (high - low) / 2
    if abs(value) >= 10 and abs(high + low - 2 * value) <= 2 * SYMMETRIC * half:
        return two_digits(value), f"±{two_digits(half)}"
    decimals = _decimals(half, 2 if half >= SMALL else 3)
    return _to(value, decimals), f"{_to(low, decimals)}–{_to(high, decimals)}"


def percent(value: float | None, low: float | None, high: float | None) -> tuple[str, str]:
    """A share and its limits in percent: `83` and `72–90`; a decimal where the interval is narrower than 2 %."""
    if value is None or low is None or high is None:
        return spelled(*(None if x is None else 100 * x for x in (value, low, high)))
    decimals = 0 if high - low >= 0.02 else 1
    point, *ends = (f"{100 * x:.{decimals}f}".removesuffix(".0") for x in (value, low, high))
    return point, "" if low == high else "–".join(ends)


def sides(printed: str, value: float, low: float | None, high: float | None) -> tuple[str, str]:
    """How far the limits of a number lie above and below it, with the decimals that it is `printed` with: `.21`, `.06`.

    Both are half the width where they are about that; "" is a side whose limit is not known.
    """
    decimals = max(map(len, findall(r"\.(\d+)", printed)), default=0)  # of the number or of its limits: `0 0–.12`
    up, down = (None if x is None or isinf(x) else abs(x - value) for x in (high, low))
    if up is not None and down is not None and abs(up - down) <= SYMMETRIC * (up + down):
        up = down = (up + down) / 2
    above, below = ("" if x is None else _to(x, decimals) for x in (up, down))
    return above, below
