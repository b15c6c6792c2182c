"""Loaded models, kept for the next film."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Any, TypeVar

import torch
from torch import nn

T = TypeVar("T")


class Shelf:
    """What was loaded stays until `budget_bytes` are exceeded; then what was used longest ago goes. The newest always stays."""

    def __init__(self, budget_bytes: int = 0) -> None:
        self.budget_bytes = budget_bytes
        self._kept: OrderedDict[Hashable, tuple[Any, int]] = OrderedDict()

    def take(self, key: Hashable, load: Callable[[], T]) -> T:
        """What is kept under the key, or else what `load` gives."""
        if key in self._kept:
            self._kept.move_to_end(key)
            return self._kept[key][0]
        self._shrink(0)
        models = load()
        self._kept[key] = models, bytes_of(models)
        self._shrink(1)
        return models

    def drop_others(self, key: Hashable = None) -> bool:
        """Let go of everything else, or of all. False if there was nothing."""
        others = [kept for kept in self._kept if kept != key]
        for kept in others:
            del self._kept[kept]
        return bool(others)

    def modules(self) -> list[nn.Module]:
        return [module for models, _ in self._kept.values() for module in modules_of(models)]

    @property
    def bytes(self) -> int:
        return sum(size for _, size in self._kept.values())

    def bytes_on(self, device: torch.device) -> int:
        """Of what is kept, that is on this kind of device."""
        kept = [models for models, _ in self._kept.values() if device_of(models) == device.type]
        return sum(bytes_of(models) for models in kept)

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
