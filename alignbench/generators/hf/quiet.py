"""What libraries do to the whole process, kept in: progress bars between our own lines, and global random numbers."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch


@contextmanager
def no_bars() -> Iterator[None]:
    """Inside, loading and saving show none."""
    from transformers.utils import logging

    bars = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if bars:
            logging.enable_progress_bar()


@contextmanager
def no_dataset_bars() -> Iterator[None]:
    """Inside, datasets show none."""
    import datasets

    shown = not datasets.are_progress_bars_disabled()
    datasets.disable_progress_bars()
    try:
        yield
    finally:
        if shown:
            datasets.enable_progress_bars()


@contextmanager
def global_randomness_kept() -> Iterator[None]:
    """Inside, the global generators of Python, numpy and torch are others' to use; after it they are as they were."""
    devices = list(range(torch.cuda.device_count())) if torch.cuda.is_available() else []
    python, array = random.getstate(), np.random.get_state()
    try:
        with torch.random.fork_rng(devices):
            yield
    finally:
        random.setstate(python)
        np.random.set_state(array)
