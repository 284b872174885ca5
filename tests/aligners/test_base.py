"""What all aligners have in common: how a recipe that names other generators is checked."""

import pytest

from alignbench.errors import UsageError
from alignbench.registry import aligner, generator, load_plugins

load_plugins()
NESTING = {name: "proposal" for name, entry in aligner.items() if "proposal" in entry.parameters} | {"chain": "steps"}
"""Aligner → its hyper-parameter that names aligners or generators."""


@pytest.fixture
def loader(monkeypatch):
    """A generator that may run code, which is told if it did."""
    ran = []
    monkeypatch.setattr(generator, "entries", dict(generator.entries))
    generator("loader")(lambda *, trust_remote_code=False: ran.append(trust_remote_code))
    yield
    assert not ran


@pytest.mark.parametrize("name", NESTING)
@pytest.mark.parametrize(
    "given",
    [
        "loader:trust_remote_code=true", {"name": "loader", "trust_remote_code": True},
        "{name: sir, proposal: {name: loader, trust_remote_code: true}}",
        {"name": "sir", "proposal": "loader:trust_remote_code=true"},
    ],
)  # fmt: skip
def test_no_recipe_may_ask_to_run_a_repository_s_code(loader, name, given):
    """Planted bug: a hyper-parameter that names a generator, without the guard, be the recipe made in Python or not."""
    value = [given] if name == "chain" else given
    for made in (aligner[name].thing, lambda **told: aligner[name].check(told) or aligner[name].thing(**told)):
        with pytest.raises(UsageError, match=r"trust_remote_code is not an argument; give the flag --trust_remote"):
            made(**{NESTING[name]: value})


def test_there_are_aligners_that_put_others_to_work():
    assert {"best_of_n", "chain", "quasi_rejection", "rejection", "sir"} <= set(NESTING)
