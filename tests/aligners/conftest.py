"""The two worlds that aligners are tested on."""

import pytest
from aligner_worlds import World, make_world

from alignbench.target import Constraint


@pytest.fixture(scope="session")
def hard() -> World:
    """The text says sun."""
    return make_world(Constraint("sun", "always"))


@pytest.fixture(scope="session")
def soft() -> World:
    """The text says sun, and each wind in it counts half a nat."""
    return make_world(Constraint("sun", "always"), Constraint("winds", "reward", beta=2.0))
