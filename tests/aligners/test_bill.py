"""What training cost: summed over bookings and runs, but for memory, of which the largest peak counts."""

import json

import pytest
from aligner_worlds import LENGTH, PROMPTS, make_world

from alignbench.aligners.base import Setting
from alignbench.aligners.bill import FILE, Bill
from alignbench.errors import StoreError
from alignbench.seeds import Seed
from alignbench.types import Training


def test_two_trainings_are_the_larger_peak_and_the_sums_of_the_rest():
    """Planted bug: peaks summed, a memory that was never in use; and one kept by which was booked last."""
    a, b = Training(1.5, 10, 20, 30, 4, peak_bytes=900), Training(0.5, 1, 2, 3, 1, peak_bytes=700)
    assert a + b == b + a == Training(2.0, 11, 22, 33, 5, peak_bytes=900)
    assert sum([a, b], Training()) == a + b and Training() + b == b


def test_a_peak_is_booked_and_found_again(tmp_path):
    world, bill = make_world(), Bill()
    setting = Setting(world.base, world.target, PROMPTS, LENGTH, Seed(0, "train"), bill=bill)
    setting.book(trained=8, peak_bytes=5_000)
    setting.book(trained=8, peak_bytes=3_000)
    assert bill.total == Training(trained=16, peak_bytes=5_000)
    bill.add(tmp_path, Training(steps=1, peak_bytes=7_000))
    later = Bill()
    later.add(tmp_path, Training(steps=2, peak_bytes=6_000))
    assert later.total == Training(steps=3, peak_bytes=7_000)


def test_a_bill_of_an_older_version_has_no_peak(tmp_path):
    """Any other field that is missing, or is no number, is damage."""
    booked = {"seconds": 1.5, "drawn": 1, "scored": 2, "trained": 3, "steps": 4}
    (tmp_path / FILE).write_text(json.dumps(booked))
    bill = Bill()
    bill.open(tmp_path)
    assert bill.total == Training(**booked, peak_bytes=0)
    for wrong in (booked | {"peak_bytes": "9"}, booked | {"peak_bytes": None}, {"peak_bytes": 9}, [], "x", 3):
        (tmp_path / FILE).write_text(json.dumps(wrong))
        with pytest.raises(StoreError, match=r"cost\.json: is not what a run writes"):
            Bill().open(tmp_path)
