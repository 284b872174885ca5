"""A number shows two digits of its error; a bound never says more than is known."""

from __future__ import annotations

from math import inf

import pytest
from hypothesis import given
from hypothesis import strategies as st

from alignbench.reports.table.numbers import plain, spell


@pytest.mark.parametrize(
    ("value", "low", "high", "expected"),
    [
        (0.12345, 0.1, 0.147, "0.123 ± 0.023"),
        (0.12345, 0.05, 0.9, "0.123 [0.050, 0.900]"),
        (1234.5, 1000, 1470, "1230 ± 240"),
        (-0.001, -0.05, 0.048, "-0.001 ± 0.049"),
        (-0.00004, -0.05, 0.05, "0.000 ± 0.050"),
        (0.0996, 0, 0.1992, "0.10 ± 0.10"),
        (0.0, 0.0, 0.037, "0.000 [0.000, 0.037]"),
        (1.0, 1.0, 1.0, "1 ± 0"),
        (1e-9, 0.9e-9, 1.1e-9, "1e-09 ± 1e-10"),
        (3e8, 2.9e8, 3.1e8, "3e+08 ± 1e+07"),
        (21.98, 0.00017, 2808213.0, "22 [0.00017, 2810000]"),
        (13.55, 0.5, 19180.0, "14 [0.5, 19180]"),
        (0.5, 0.1, inf, "0.50 [0.10, ∞]"),
        (0.5, None, 0.6, "0.50 [-∞, 0.60]"),
        (0.2, None, None, "0.2000"),
        (4.0, None, None, "4"),
        (inf, 3.0, None, "∞"),
        (-inf, None, None, "-∞"),
        (None, None, None, "—"),
        (None, 0.30, None, "≥ 0.3"),
        (None, 0.3, inf, "≥ 0.3"),
        (None, None, 0.0123456, "≤ 0.0124"),
        (None, -inf, 0.3, "≤ 0.3"),
        (None, 0.12345, 0.45678, "[0.123, 0.457]"),
        (None, -0.12345, None, "≥ -0.124"),
        (None, None, 2e-9, "≤ 2e-9"),
        (None, 0.0, None, "≥ 0.0"),
    ],
)
def test_spelling(value: float | None, low: float | None, high: float | None, expected: str) -> None:
    assert " ".join(filter(None, spell(value, low, high))) == expected


@pytest.mark.parametrize(
    ("value", "expected"),
    [(0.0, "0"), (-0.0, "0"), (3.0, "3"), (1e7, "1.000e+07"), (12345.678, "12346"), (1.234e-05, "1.234e-05")],
)
def test_plain(value: float, expected: str) -> None:
    assert plain(value) == expected


finite = st.floats(-1e12, 1e12)


@given(finite, st.floats(0, 1e12), st.floats(0, 1e12))
def test_what_is_spelled_is_near_the_value(value: float, below: float, above: float) -> None:
    low, high = value - below, value + above
    point, _ = spell(value, low, high)
    assert abs(float(point) - value) <= max(0.06 * (high - low), 0.006 * abs(value), 1e-15)


@given(finite)
def test_a_bound_stays_true_when_rounded(limit: float) -> None:
    assert float(spell(None, limit, None)[0].removeprefix("≥ ")) <= limit
    assert float(spell(None, None, limit)[0].removeprefix("≤ ")) >= limit
