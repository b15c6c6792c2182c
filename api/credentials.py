"""How a client shows who it is, and whether it is true.

Authorization: TOKEN | Bearer TOKEN | Basic NAME:PASSWORD | Basic NAME:TOKEN
Cookie         what the login page gave
?token=TOKEN   on a WebSocket or a GET, where a browser can set no header
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import secrets
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field

from api.limits import Attempts
from api.refusals import Unauthorized
from api.sessions import Sessions
from api.users import Login, Users

_HINT = "Send the header `Authorization: Bearer TOKEN`, or sign in at /login."
_REMEMBERED = 1024
_CHECKS_AT_ONCE = 2  # each takes 16 MiB and a processor


@dataclass(frozen=True)
class Credential:
    """A secret, and for Basic and the login page the name that it should belong to."""

    secret: bytes = field(repr=False)
    name: str | None = None


def read_authorization(value: str) -> Credential:
    """Raises Unauthorized for a Basic that cannot be read. PAI's clients send the token without any scheme."""
    scheme, _, rest = value.strip().partition(" ")
    if scheme.lower() == "bearer":
        return Credential(rest.strip().encode("latin-1"))
    if scheme.lower() != "basic":
        return Credential(value.strip().encode("latin-1"))
    try:
        name, colon, secret = base64.b64decode(rest.strip(), validate=True).partition(b":")
        if not colon:
            raise ValueError("no colon")
        return Credential(secret, name.decode())
    except ValueError:  # base64's and UTF-8's errors are such
        raise Unauthorized("The Basic credentials cannot be read.", "They are base64 of NAME:PASSWORD, in UTF-8.") from None


class Doorkeeper:
    """Checks credentials. What has been right once is known again at once; what is wrong is counted by address."""

    def __init__(self, users: Callable[[], Users], sessions: Sessions, attempts: Attempts) -> None:
        self._users, self.sessions, self._attempts = users, sessions, attempts
        self._key = secrets.token_bytes(32)
        self._known: OrderedDict[bytes, tuple[str, str]] = OrderedDict()
        self._checks = asyncio.Semaphore(_CHECKS_AT_ONCE)

    def by_cookie(self, value: str) -> Login | None:
        found = self.sessions.read(value)
        return self._users().by_proof(*found) if found else None

    async def identify(self, given: Credential, address: str) -> Login:
        """Raises Unauthorized, or TooManyAttempts before anything is looked at."""
        digest = hmac.new(self._key, repr(given.name).encode() + b"\0" + given.secret, hashlib.sha256).digest()
        if known := self._recall(digest):
            return known
        self._attempts.begin(address)
        login = await self._check(given)
        if login is None:
            raise Unauthorized("These credentials are not right.", _HINT)
        self._attempts.succeed(address)
        self._known[digest] = login.user.name, login.proof
        while len(self._known) > _REMEMBERED:
            self._known.popitem(last=False)
        return login

    def _recall(self, digest: bytes) -> Login | None:
        if digest not in self._known:
            return None
        self._known.move_to_end(digest)
        return self._users().by_proof(*self._known[digest])

    async def _check(self, given: Credential) -> Login | None:
        users = self._users()
        by_token = users.by_token(given.secret)
        if by_token and (given.name in (None, "", by_token.user.name) or not by_token.user.name):
            return by_token  # the only user may be called anything
        if given.name is None or not users.has_passwords:
            return None
        async with self._checks:
            return await asyncio.to_thread(users.by_password, given.name, given.secret.decode("utf-8", "replace"))


def missing() -> Unauthorized:
    return Unauthorized("This needs a token or a password.", _HINT)
