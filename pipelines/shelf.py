"""Loaded models, kept for the next film."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterable
from typing import Any, TypeVar

import torch
from torch import nn

T = TypeVar("T")


class Shelf:
    """What was loaded stays until `budget_bytes` are exceeded; then what was used longest ago goes. The newest always stays.

    One thread does the jobs and takes. Another may `prepare` models for the job after this one; `before_drop` ends it, before memory is
    given back."""

    def __init__(self, budget_bytes: int = 0) -> None:
        self.budget_bytes, self.before_drop = budget_bytes, lambda: None
        self._kept: OrderedDict[Hashable, tuple[Any, int]] = OrderedDict()
        self._wanted: set[Hashable] = set()  # by this job, and by the one after it
        self._lock = threading.RLock()

    def __contains__(self, key: Hashable) -> bool:
        return key in self._kept

    def begin_job(self) -> None:
        """What was wanted until now belongs to jobs that are over."""
        with self._lock:
            self._wanted.clear()

    def take(self, key: Hashable, load: Callable[[], T]) -> T:
        """What is kept under the key, or else what `load` gives."""
        with self._lock:
            if key in self._kept:
                return self._again(key)
            self._shrink(0)
        models = load()
        with self._lock:
            self._put(key, models)
            self._shrink(1)
        return models

    def want(self, keys: Iterable[Hashable]) -> None:
        """The next job will take these, if they are there: nothing that is prepared for it takes their place."""
        with self._lock:
            self._wanted.update(keys)

    def prepare(self, key: Hashable, size: int, load: Callable[[], T]) -> T | None:
        """As `take`, for the next job beside this one: None if both together have no room for these models of `size` bytes. What neither
        wants goes for it."""
        with self._lock:
            if key in self._kept:
                return self._again(key)
            if size + sum(bytes_ for kept, (_, bytes_) in self._kept.items() if kept in self._wanted) > self.budget_bytes:
                return None
            for other in [kept for kept in self._kept if kept not in self._wanted]:
                if self.bytes + size > self.budget_bytes:
                    del self._kept[other]
        models = load()
        with self._lock:
            self._put(key, models)
        return models

    def drop_others(self, key: Hashable = None) -> bool:
        """Let go of everything else, or of all. False if there was nothing."""
        self.before_drop()
        with self._lock:
            others = [kept for kept in self._kept if kept != key]
            for kept in others:
                del self._kept[kept]
        return bool(others)

    def modules(self) -> list[nn.Module]:
        with self._lock:
            return [module for models, _ in self._kept.values() for module in modules_of(models)]

    @property
    def bytes(self) -> int:
        with self._lock:
            return sum(size for _, size in self._kept.values())

    def bytes_on(self, device: torch.device) -> int:
        """Of what is kept, that is on this kind of device."""
        with self._lock:
            kept = [models for models, _ in self._kept.values() if device_of(models) == device.type]
        return sum(bytes_of(models) for models in kept)

    def _again(self, key: Hashable) -> Any:
        self._wanted.add(key)
        self._kept.move_to_end(key)
        return self._kept[key][0]

    def _put(self, key: Hashable, models: Any) -> None:
        self._wanted.add(key)
        self._kept[key] = models, bytes_of(models)

    def _shrink(self, least: int) -> None:
        while len(self._kept) > least and self.bytes > self.budget_bytes:
            self._kept.popitem(last=False)


def modules_of(models: Any) -> list[nn.Module]:
    """Of a dataclass of models."""
    return [value for value in vars(models).values() if isinstance(value, nn.Module)]


def bytes_of(models: Any) -> int:
    """Of all weights of the modules in a dataclass of models; what two of them share counts once."""
    weights = (p for module in modules_of(models) for p in module.parameters())
    return sum({_place(p): p.nbytes if p.is_mkldnn else p.untyped_storage().nbytes() for p in weights}.values())


def _place(weight: nn.Parameter) -> int:
    """What tells one storage from another; packed weights are each one's own."""
    return id(weight) if weight.is_mkldnn else weight.untyped_storage().data_ptr()


def device_of(models: Any) -> str:
    """The kind of device where a dataclass of models is, told by its first weight."""
    return next(modules_of(models)[0].parameters()).device.type
