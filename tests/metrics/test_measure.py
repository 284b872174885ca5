"""What metrics declare, and that a plug-in that fails, or gives what is no number, is one line that names it."""

import pytest

from alignbench.errors import RunError, Unsupported, UsageError
from alignbench.metrics import measure, range_of
from alignbench.registry import metric
from alignbench.types import Estimate


@pytest.fixture
def gives(monkeypatch):
    """A metric that does what it is told, registered for one test only."""
    monkeypatch.setattr(metric, "entries", dict(metric.entries))

    def make(act, **meta):
        def told(evidence, *, k: int = 1):
            return act()

        metric("told", **meta)(told)
        return lambda **params: measure("told", None, **params)

    return make


def fail(error):
    raise error


def test_a_metric_that_raises_says_what_and_where(gives):
    with pytest.raises(RunError) as error:
        gives(lambda: fail(ZeroDivisionError("by\nzero")))()
    text = str(error.value)
    assert text.startswith("metric 'told' failed: ZeroDivisionError: by zero (test_measure.py:") and "\n" not in text
    with pytest.raises(Unsupported, match=r"^as it is$"):
        gives(lambda: fail(Unsupported("as it is")))()


@pytest.mark.parametrize("value", [0.5, None, {"a": 0.5}, [Estimate(1.0)]])
def test_what_is_no_estimate_is_refused(gives, value):
    with pytest.raises(
        RunError, match=r"^metric 'told' gave .*, not an Estimate or a mapping from parts to Estimates$"
    ):
        gives(lambda: value)()


def test_ranges_begin_at_0_and_are_of_the_part():
    """Means over seeds take the log or the logit of a number that has one."""
    declared = [e.meta["range"] for e in metric.values() if "range" in e.meta]
    spans = [span for r in declared for span in (r.values() if isinstance(r, dict) else [r])]
    assert len(spans) > 15 and all(low == 0 < high for low, high in spans)
    assert range_of("satisfaction", "share.pronoun.she") == range_of("divergence", "tv") == (0, 1)
    assert range_of("divergence", "kl_target") is range_of("satisfaction", "reward.x") is None
    assert range_of("nobody's") is None


def test_an_estimate_is_the_only_part(gives):
    assert gives(lambda: Estimate(1.0))() == {"": Estimate(1.0)}
    assert gives(lambda: {"a": Estimate(1.0)})() == {"a": Estimate(1.0)}


def test_arguments_are_checked_by_type_and_by_the_declared_check(gives):
    asked = gives(lambda: fail(AssertionError), check=lambda k: fail(UsageError("k is odd")) if k % 2 else None)
    with pytest.raises(UsageError, match=r"^metric 'told' argument 'k': input should be a valid integer, not 'x'$"):
        asked(k="x")
    with pytest.raises(UsageError, match=r"^metric 'told' k is odd$"):
        asked()
