"""Leaving out one at a time: by totals and by rows, the same numbers."""

import numpy as np
import pytest

from alignbench.stats.jackknife import jackknife, leave_out


@pytest.mark.parametrize("shares", [(0.5, 0.5), (0.8, 0.2)])  # where the form is flat, and where it is not
def test_by_rows_and_by_totals(shares):
    """A form with a maximum at ½: there its slope tells of no error, its curve does."""
    codes = np.repeat([0, 1], (np.array(shares) * 100).astype(int))
    columns = np.eye(2)[codes]
    totals = jackknife(columns, lambda s: s[..., 0] * s[..., 1] / s.sum(axis=-1) ** 2)
    rows = leave_out(lambda kept: np.array([np.prod(columns[kept].mean(axis=0))]), np.arange(100))
    assert (rows[0][0], rows[1][0]) == pytest.approx(totals, rel=1e-9)
    assert np.sqrt(totals[1]) > 0.003  # of a spread of 0.0035 by the curve alone
