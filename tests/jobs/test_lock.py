from __future__ import annotations

import fcntl
import os

import pytest

from errors import StorageError
from jobs.lock import WorkerLock


def test_one_holds_it_until_it_lets_go(path):
    first, second = WorkerLock(path), WorkerLock(path)
    first.take()
    first.take()
    with pytest.raises(StorageError, match=rf"Another Stillmotion \(process {os.getpid()}\) works in .* already\. Stop it first"):
        second.take()
    first.release()
    first.release()
    second.take()
    second.release()


def test_a_place_that_cannot_be_locked_is_said(path, monkeypatch):
    def refuse(handle, how):
        raise OSError(95, "Operation not supported")

    monkeypatch.setattr(fcntl, "flock", refuse)
    with pytest.raises(StorageError, match="cannot be locked: Operation not supported"):
        WorkerLock(path).take()
    with pytest.raises(StorageError, match="cannot be written: No such file"):
        WorkerLock(path / "gone" / "x").take()
