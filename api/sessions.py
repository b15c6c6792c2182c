"""Cookies: who has signed in, until when, signed with a key that only this server knows.

Nothing is kept on the server. A cookie dies with its time, with the key, and with the password or token that it was got for.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import secrets
import time
from collections.abc import Callable
from pathlib import Path

from api.private_files import replacing, warn_if_others_can_read
from api.users import Login
from errors import UnreadableFileError

LIFE_SECONDS = 30 * 24 * 3600
_KEY_BYTES = 32
_COOKIE_BYTES = 1024


class Sessions:
    """Makes and reads the cookie's value. `now` is the clock, in seconds since 1970."""

    def __init__(self, key: bytes, now: Callable[[], float] = time.time) -> None:
        self._key, self._now = key, now
        self.cookie_name = f"stillmotion_{self._sign('name')[:8]}"  # cookies know no ports: two servers on one machine must not share one

    def issue(self, login: Login) -> str:
        body = json.dumps([login.user.name, login.proof, int(self._now()) + LIFE_SECONDS], ensure_ascii=False).encode()
        text = base64.urlsafe_b64encode(body).decode().rstrip("=")
        return f"{text}.{self._sign(text)}"

    def read(self, value: str) -> tuple[str, str] | None:
        """Name and proof, or None if the value is not ours, was changed, or is too old."""
        text, _, signature = value.partition(".")
        if len(value) > _COOKIE_BYTES or not hmac.compare_digest(self._sign(text).encode(), signature.encode("utf-8", "replace")):
            return None
        name, proof, expires = json.loads(base64.urlsafe_b64decode(text + "=" * (-len(text) % 4)))
        return (name, proof) if self._now() < expires else None

    def _sign(self, text: str) -> str:
        return hmac.new(self._key, b"session:" + text.encode("utf-8", "replace"), hashlib.sha256).hexdigest()


def read_key(path: Path | None) -> bytes:
    """The key in the file, which is made (0600) if it is missing; without a file, one that dies with the process.

    Raises UnreadableFileError if the file is damaged, StorageError if it cannot be made.
    """
    if path is None:
        return secrets.token_bytes(_KEY_BYTES)
    if not path.exists():
        with replacing(path) as file:
            file.write(secrets.token_hex(_KEY_BYTES).encode())
    try:
        key = bytes.fromhex(path.read_text())
    except (OSError, ValueError) as error:
        raise _bad_key(path) from error
    if len(key) < _KEY_BYTES:
        raise _bad_key(path)
    warn_if_others_can_read(path)
    return key


def _bad_key(path: Path) -> UnreadableFileError:
    return UnreadableFileError(f"The key of the cookies in {path} is damaged.", "Remove the file: everybody has to sign in again.")
