"""A number spelled with its error: as many digits as the error deserves, and no more."""

from __future__ import annotations

from decimal import ROUND_CEILING, ROUND_FLOOR, Context
from math import floor, inf, isfinite, isinf, log10

MISSING = "—"
INFINITY = "∞"
SYMMETRIC = 0.05  # of the half width: sides that differ by less are printed as one ±
MOST_DECIMALS = 6
SMALLEST_FIXED, LARGEST_FIXED = 1e-4, 1e7  # outside, powers of ten
SMALLEST_ERROR = 1e-300  # below, an error is none: halving it would leave the range of normal floats


def spell(value: float | None, low: float | None, high: float | None) -> tuple[str, str]:
    """A value and its 95 % limits as (point, spread): `0.123` and `± 0.045`, or `0.12` and `[0.05, 0.31]`.

    Infinity is `∞`. Without a value, one limit makes a bound (`≥ 0.3`), two an interval, none a dash.
    """
    low, high = None if low == -inf else low, None if high == inf else high
    if value is None:
        return _bound(low, high), ""
    if isinf(value) or (low is None and high is None):
        return plain(value), ""
    return _with_interval(value, -inf if low is None else low, inf if high is None else high)


def plain(value: float) -> str:
    """A number to four significant digits; an integer as it is."""
    if isinf(value):
        return INFINITY if value > 0 else f"-{INFINITY}"
    if value == 0 or (value == int(value) and abs(value) < LARGEST_FIXED):
        return str(int(value))
    if not SMALLEST_FIXED <= abs(value) < LARGEST_FIXED:
        return f"{value:.3e}"
    return _fixed(value, max(3 - floor(log10(abs(value))), 0))


def _bound(low: float | None, high: float | None) -> str:
    """What is known of a value from its limits alone; limits are rounded away from it, so that they stay true."""
    below = low is not None and _rounded(low, ROUND_FLOOR)
    above = high is not None and _rounded(high, ROUND_CEILING)
    if below and above:
        return f"[{below}, {above}]"
    return f"≥ {below}" if below else f"≤ {above}" if above else MISSING


def _rounded(limit: float, direction: str) -> str:
    if isinf(limit):
        return plain(limit)
    short = Context(prec=3, rounding=direction).create_decimal(repr(limit))
    return f"{short:f}" if limit == 0 or SMALLEST_FIXED <= abs(limit) < LARGEST_FIXED else f"{short:e}"


def _with_interval(value: float, low: float, high: float) -> tuple[str, str]:
    sides = [side for side in (value - low, high - value) if isfinite(side) and side > SMALLEST_ERROR]
    if not sides:
        return plain(value), "± 0" if isfinite(high - low) else f"[{plain(low)}, {plain(high)}]"
    half = (high - low) / 2
    if isfinite(half) and abs(high + low - 2 * value) <= 2 * SYMMETRIC * half:
        decimals = _decimals(half)
        if _is_readable(value, decimals):
            return _fixed(value, decimals), f"± {_fixed(half, decimals)}"
        return f"{value:.3g}", f"± {half:.2g}"
    decimals = min(_decimals(min(sides)), _decimals(half) + 1) if isfinite(half) else _decimals(min(sides))
    spelled = [_limit(x, decimals) for x in (value, low, high)]
    return spelled[0], f"[{spelled[1]}, {spelled[2]}]"


def _limit(value: float, decimals: int) -> str:
    if isinf(value):
        return plain(value)
    if value and decimals < 1 and abs(value) < 10 ** (1 - decimals):  # a wide interval must not round it away
        return f"{value:.2g}"
    return _fixed(value, decimals) if _is_readable(value, decimals) else f"{value:.3g}"


def _decimals(error: float) -> int:
    """How many decimals show `error` to two significant digits; negative for tens and hundreds."""
    return 1 - floor(log10(float(f"{error:.1e}")))


def _is_readable(value: float, decimals: int) -> bool:
    return decimals <= MOST_DECIMALS and abs(value) < LARGEST_FIXED


def _fixed(value: float, decimals: int) -> str:
    text = f"{round(value, decimals):.{max(decimals, 0)}f}"
    return text.removeprefix("-") if float(text) == 0 else text
