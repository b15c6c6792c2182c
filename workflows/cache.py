"""Results that are kept by what made them: the same node with the same inputs is not worked twice.

In memory under a budget of bytes; what took long (`NodeClass.keeps`) on the disk as well, under another. What was used longest ago goes
first. A file that is damaged, not whole yet, or gone, is a miss, so files are written under the names they keep: several machines may share
the folder, and it may be on a disk that cannot rename. Keys are hashes of a node's function, its values, its files and its inputs' keys.
"""

from __future__ import annotations

import json
import logging
import os
import shutil
import time
import zlib
from collections import OrderedDict
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from pipelines.values import Draw, Latents, Pictures

log = logging.getLogger(__name__)

GIB = 2**30
_KEPT = {"Latents": (Latents, "samples"), "Pictures": (Pictures, "pixels")}
_ABANDONED_SECONDS = 3600
_SPARE_BYTES = GIB  # the disk is never filled for the sake of a cache
Values = tuple[Any, ...]


class Cache:
    """`folder`: where on the disk; None is nowhere. Budgets of 0 keep nothing. One thread uses it; any may ask what is in it."""

    def __init__(self, folder: Path | None = None, *, memory_bytes: int = GIB, disk_bytes: int = 8 * GIB) -> None:
        self.folder, self.memory_bytes, self.disk_bytes = folder, memory_bytes, disk_bytes
        self.hits = self.misses = 0
        self._kept: OrderedDict[str, tuple[Values, int]] = OrderedDict()

    def __contains__(self, key: str) -> bool:
        """Whether it is likely that something is kept under the key. Any thread may ask."""
        return key in self._kept or (self.folder is not None and self._path(key).exists())

    def glance(self, key: str) -> Values | None:
        """What is kept in memory, if anything. Any thread may ask; it does not count as use."""
        kept = self._kept.get(key)
        return kept and kept[0]

    def get(self, key: str) -> Values | None:
        """What is kept under the key, or None."""
        values = self._from_memory(key) or self._from_disk(key)
        self.hits, self.misses = self.hits + (values is not None), self.misses + (values is None)
        return values

    def put(self, key: str, values: Values, *, on_disk: bool = False) -> None:
        self._remember(key, values)
        if on_disk and self.folder and self.disk_bytes and len(values) == 1 and type(values[0]).__name__ in _KEPT:
            self._write(self._path(key), values[0])

    def forget(self) -> bool:
        """Give the memory back; what is on the disk stays. False if there was nothing."""
        had_any = bool(self._kept)
        self._kept.clear()
        return had_any

    @property
    def bytes(self) -> int:
        return sum(size for _, size in self._kept.values())

    def _from_memory(self, key: str) -> Values | None:
        if key not in self._kept:
            return None
        self._kept.move_to_end(key)
        return self._kept[key][0]

    def _remember(self, key: str, values: Values) -> None:
        size = sum(map(size_of, values))
        if size > self.memory_bytes:
            return
        self._kept[key] = values, size
        self._kept.move_to_end(key)
        while self.bytes > self.memory_bytes:
            self._kept.popitem(last=False)

    def _path(self, key: str) -> Path:
        return self.folder / f"{key}.safetensors"

    def _from_disk(self, key: str) -> Values | None:
        if not self.folder:
            return None
        path = self._path(key)
        try:
            value = _read(path)
            os.utime(path)
        except FileNotFoundError:
            return None
        except (OSError, ValueError, KeyError, TypeError, SafetensorError) as error:
            log.warning("a kept result is damaged and is made anew: %s (%s)", path.name, error)
            with suppress(OSError):
                path.unlink()
            return None
        self._remember(key, (value,))
        return (value,)

    def _write(self, path: Path, value: Latents | Pictures) -> None:
        """A disk that is full, or does not take it, costs the cache and not the job."""
        if size_of(value) > self.disk_bytes:
            return
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._make_room(size_of(value))
            if shutil.disk_usage(path.parent).free < size_of(value) + _SPARE_BYTES:
                return
            _save(value, path)
        except FileExistsError:  # another machine was faster, or is about to be
            return
        except (OSError, SafetensorError) as error:
            log.warning("a result could not be kept: %s", error)

    def _make_room(self, size: int) -> None:
        files = []
        for path in self.folder.iterdir():
            with suppress(FileNotFoundError):  # others make room too
                status = path.stat()
                if path.suffix == ".safetensors":
                    files.append((status.st_mtime, status.st_size, path))
                elif path.suffix == ".part" and time.time() - status.st_mtime > _ABANDONED_SECONDS:  # of a version that wrote such
                    path.unlink()
        files.sort()
        total = sum(each for _, each, _ in files) + size
        for _, each, path in files:
            if total <= self.disk_bytes:
                return
            path.unlink(missing_ok=True)
            total -= each


def size_of(value: Any) -> int:
    """Bytes of the arrays and tensors that a value holds, and those that its parts hold."""
    if hasattr(value, "nbytes"):
        return value.nbytes
    return 200 + sum(map(size_of, value.__dict__.values())) if hasattr(value, "__dict__") else 0


def _save(value: Latents | Pictures, path: Path) -> None:
    """Raises FileExistsError. What somebody may be reading is never cut short."""
    kind = type(value).__name__
    array = np.ascontiguousarray(getattr(value, _KEPT[kind][1]))
    draw = [value.draw.seed, *value.draw.shape] if value.draw else None
    data = save({"values": array}, metadata={"kind": kind, "draw": json.dumps(draw), "crc": str(zlib.crc32(array.data))})
    with path.open("xb") as file:
        try:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        except BaseException:
            path.unlink(missing_ok=True)
            raise


def _read(path: Path) -> Latents | Pictures:
    if not path.exists():
        raise FileNotFoundError(path)
    with safe_open(path, "np") as file:
        told, array = file.metadata(), file.get_tensor("values")
    if zlib.crc32(np.ascontiguousarray(array).data) != int(told["crc"]):
        raise ValueError("the bytes are not those that were written")
    draw = json.loads(told["draw"])
    return _KEPT[told["kind"]][0](array, Draw(draw[0], tuple(draw[1:])) if draw else None)
