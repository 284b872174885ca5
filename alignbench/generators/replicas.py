"""Copies of one model on several devices, each with a thread that draws or scores its share of the rows."""

from __future__ import annotations

import copy
import queue
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Protocol, Self, TypeVar, runtime_checkable

import numpy as np
import torch

from alignbench.generators.base import Model
from alignbench.generators.budget import Budget
from alignbench.types import Array

T = TypeVar("T")


@runtime_checkable
class Replicated(Protocol):
    """A model that may have copies."""

    @property
    def replicas(self) -> Sequence[Model]:
        """The copies, on devices of their own."""
        ...


@runtime_checkable
class Changing(Protocol):
    """A model whose weights may change, and those of its copies after it."""

    def follow(self) -> None:
        """Bring the copies to where it is."""
        ...


class Replicable(Model, Protocol):
    """A model that can be copied: what its copies do not share."""

    network: Any  # of another library
    tokenizer: Any
    budget: Budget
    replicas: tuple[Self, ...]

    def forget(self) -> None:
        """Let go of memory that is kept only to be faster."""
        ...


R = TypeVar("R", bound=Replicable)


def replicated(model: R, devices: Sequence[torch.device]) -> R:
    """The model, with a copy of it on each of `devices`; a copy differs in nothing but its place."""
    for device in devices:
        other = copy.copy(model)
        other.network = copy.deepcopy(model.network).to(device)
        other.budget = copy.copy(model.budget)
        other.tokenizer, other.replicas = copy.deepcopy(model.tokenizer), ()
        other.forget()
        model.replicas = (*model.replicas, other)
    return model


def replicas_of(model: Model) -> tuple[Model, ...]:
    """The model and its copies, which are as it is now."""
    if not isinstance(model, Replicated):
        return (model,)
    if isinstance(model, Changing):
        model.follow()
    return (model, *model.replicas)


def shares(count: int, parts: int) -> list[Array]:
    """Numbers 0 … count − 1 dealt to `parts` hands like cards: long and short rows are spread, and no hand is empty."""
    return [np.arange(first, count, parts) for first in range(min(parts, count))]


def at_once(jobs: Sequence[Callable[[], T]]) -> list[T]:
    """What the jobs return, each run in a thread of its own; the first failure is raised."""
    if len(jobs) < 2:
        return [job() for job in jobs]
    with ThreadPoolExecutor(len(jobs)) as pool:
        return [future.result() for future in [pool.submit(job) for job in jobs]]


def merged(streams: Sequence[Iterator[T]]) -> Iterator[T]:
    """What several iterators yield, each run in a thread of its own, as it comes; the first failure is raised.

    Where the caller stops early, the threads stop at their next item.
    """
    ready: queue.Queue[tuple[str, Any]] = queue.Queue()
    stop = threading.Event()
    threads = [threading.Thread(target=_drain, args=(s, ready, stop), daemon=True) for s in streams]
    for thread in threads:
        thread.start()
    try:
        running = len(threads)
        while running:
            kind, item = ready.get()
            if kind == "failed":
                raise item
            if kind == "ended":
                running -= 1
            else:
                yield item
    finally:
        stop.set()
        for thread in threads:
            thread.join()


def _drain(stream: Iterator[Any], ready: queue.Queue[tuple[str, Any]], stop: threading.Event) -> None:
    try:
        for item in stream:
            ready.put(("item", item))
            if stop.is_set():
                return
        ready.put(("ended", None))
    except BaseException as error:  # raised again in the caller's thread
        ready.put(("failed", error))
