"""Webhooks: when a job has ended that names an address in `extra["webhook"]`, that address is told.

A POST with JSON, `{"event": "job.succeeded", "delivery": "17", "attempt": 1, "sent": "...Z", "job": {...}}`, and these headers:

    X-Stillmotion-Event       job.succeeded, job.failed or job.canceled
    X-Stillmotion-Delivery    the same each time that this is tried again
    X-Stillmotion-Signature   sha256=HEX, the HMAC-SHA256 of the body with the bytes of the key in the key file, which is in hex

Any 2xx answer is good. Otherwise it is tried again, after ten seconds at first, for about a day; 410 means never again.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import logging
import os
import secrets
import threading
import time
from collections.abc import Callable, Mapping
from http.client import HTTPException
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from errors import InputError, StorageError, UnknownJobError, UnreadableFileError
from jobs.deliveries import Deliveries, Delivery
from jobs.documents import job_document, utc
from jobs.outgoing import post
from jobs.progress import Board, JobEvent
from jobs.store import JobStore
from pipelines.filenames import storage_error

log = logging.getLogger(__name__)

Post = Callable[..., int]

_GONE = 410
_LONGEST_SLEEP = 60.0  # so that a clock that is set does not matter for long
_KEY_BYTES = 32
_THREADS = 4


class Webhooks:
    """A few threads; each tells one address after the other, and no host is told by two at once: so a host that does not answer delays
    those behind it only, not the others. `post` is as `jobs.outgoing.post`."""

    def __init__(self, store: JobStore, board: Board, key: bytes, *, allows_private: bool = False, post: Post = post) -> None:
        self.store, self.board, self.key, self.allows_private, self.post = store, board, key, allows_private, post
        self.deliveries = Deliveries(store.database, store.clock)
        self._choosing, self._busy = threading.Lock(), set[str]()  # hosts that are being told
        self._news, self._changes, self._is_stopping = threading.Condition(), 0, False
        self._threads = [threading.Thread(target=self._work, name=f"webhooks {number}", daemon=True) for number in range(_THREADS)]

    def start(self) -> None:
        self._unsubscribe = self.board.subscribe(self._notice)
        for thread in self._threads:
            thread.start()

    def stop(self, seconds: float = 5.0) -> None:
        """What is due and was not told in this time is told after the next start."""
        self._unsubscribe()
        self._is_stopping = True
        self._wake()
        until = time.monotonic() + seconds
        for thread in self._threads:
            thread.join(max(0.0, until - time.monotonic()))

    def step(self) -> float:
        """Tell one address, if one is due and its host free; gives the seconds until the next is. Raises StorageError."""
        with self._choosing:
            delivery = self.deliveries.upcoming(lambda url: _host(url) not in self._busy)
            if delivery is None:
                return _LONGEST_SLEEP
            seconds = delivery.due - self.store.clock()
            if seconds > 0:
                return min(seconds, _LONGEST_SLEEP)
            self._busy.add(_host(delivery.url))
        try:
            self._try(delivery)
        finally:
            with self._choosing:  # not while another reads what is due: it would find this one still due, and its host free
                self._busy.discard(_host(delivery.url))
            self._wake()
        return 0.0

    def _work(self) -> None:
        while True:
            known = self._changes
            try:
                seconds = self.step()
            except StorageError as error:
                log.error("Webhooks cannot be told now: %s", error)
                seconds = _LONGEST_SLEEP
            if self._is_stopping and seconds > 0:
                return
            with self._news:
                self._news.wait_for(lambda known=known: self._changes != known, seconds)

    def _notice(self, event: JobEvent) -> None:
        if event.kind in ("succeeded", "failed", "canceled"):
            self._wake()

    def _wake(self) -> None:
        with self._news:
            self._changes += 1
            self._news.notify_all()

    def _try(self, delivery: Delivery) -> None:
        try:
            body = self._body(delivery)
            status = self.post(delivery.url, body, self._headers(delivery, body), allows_private=self.allows_private)
            problem, is_final = f"it answered {status}", status == _GONE
        except (InputError, UnknownJobError) as error:
            status, problem, is_final = 0, str(error), True
        except (OSError, HTTPException, UnicodeError) as error:  # a name that is too long for the domain system is the last
            status, problem, is_final = 0, str(error) or type(error).__name__, False
        if 200 <= status < 300:
            self.deliveries.done(delivery)
            return
        due = self.deliveries.failed(delivery, problem, is_final=is_final)
        log.warning("The webhook of job %s was not delivered: %s. %s", delivery.job_id, problem, _plan(due))

    def _body(self, delivery: Delivery) -> bytes:
        document = {
            "event": f"job.{delivery.status}", "delivery": str(delivery.id), "attempt": delivery.attempts + 1,
            "sent": utc(self.store.clock()), "job": job_document(self.store.get(delivery.job_id)),
        }  # fmt: skip
        return json.dumps(document).encode()

    def _headers(self, delivery: Delivery, body: bytes) -> Mapping[str, str]:
        return {
            "Content-Type": "application/json",
            "User-Agent": "Stillmotion",
            "X-Stillmotion-Event": f"job.{delivery.status}",
            "X-Stillmotion-Delivery": str(delivery.id),
            "X-Stillmotion-Signature": f"sha256={signature(self.key, body)}",
        }


def _host(url: str) -> str:
    try:
        return urlsplit(url).netloc.lower()
    except ValueError:  # it will be refused
        return url


def signature(key: bytes, body: bytes) -> str:
    return hmac.new(key, body, hashlib.sha256).hexdigest()


def read_key(path: Path) -> bytes:
    """The key in the file, which is made (0600) if it is missing. Raises UnreadableFileError if it is damaged, StorageError."""
    if not path.exists():
        _make_key(path)
    try:
        key = bytes.fromhex(path.read_text())
    except (OSError, ValueError) as error:
        raise _bad_key(path) from error
    if len(key) < _KEY_BYTES:
        raise _bad_key(path)
    return key


def _make_key(path: Path) -> None:
    """Whole or not at all: it is written under another name first."""
    part = path.with_name(f".{secrets.token_hex(8)}.part")
    try:
        handle = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(handle, "w") as file:
            file.write(secrets.token_hex(_KEY_BYTES))
        part.replace(path)
    except OSError as error:
        raise storage_error(path.parent, error) from error
    finally:
        part.unlink(missing_ok=True)


def _bad_key(path: Path) -> UnreadableFileError:
    return UnreadableFileError(f"The key of the webhooks in {path} is damaged.", "Remove the file: receivers need the new one then.")


def _plan(due: float | None) -> str:
    return "It is given up." if due is None else f"It is tried again at {utc(due)}."


def webhook_of(extra: Mapping[str, Any]) -> str | None:
    """The address that a job names, if it is one at all."""
    url = extra.get("webhook")
    return url if isinstance(url, str) else None
