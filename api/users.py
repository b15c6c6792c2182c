"""Who may enter: one token, or a file of users that is read again whenever it changes.

    {"users": [{"name": "ada", "role": "admin", "password": "scrypt:16384:8:5:...", "tokens": ["sha256 in hex", ...]}]}

A file that was damaged while we run does not lock anybody out or in: those who were known stay, and the log says why.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import logging
import re
import secrets
import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from api.passwords import Cost, PasswordHash, token_hash
from api.private_files import replacing, warn_if_others_can_read
from errors import InputError, UnknownNameError, UnreadableFileError

log = logging.getLogger("stillmotion.access")

ROLES = ("user", "admin")
_PASSWORD_LENGTHS = range(8, 257)


@dataclass(frozen=True)
class User:
    """Somebody who was let in. The only user of a server without names is called ""."""

    name: str
    is_admin: bool


@dataclass(frozen=True)
class Login:
    """A user, and the fingerprint of what he entered with: a cookie is good as long as that is."""

    user: User
    proof: str


@dataclass(frozen=True)
class Entry:
    name: str
    role: str = "user"
    password: PasswordHash | None = None
    tokens: tuple[str, ...] = ()

    @property
    def user(self) -> User:
        return User(self.name, self.role == "admin")

    @property
    def proofs(self) -> list[str]:
        return [fingerprint(kept) for kept in (*self.tokens, *([str(self.password)] if self.password else []))]

    def document(self) -> dict[str, Any]:
        password = {"password": str(self.password)} if self.password else {}
        return {"name": self.name, "role": self.role, **password, "tokens": list(self.tokens)}


class Users:
    """All who may enter."""

    def __init__(self, entries: Iterable[Entry]) -> None:
        self.entries = {entry.name: entry for entry in entries}
        costs = [entry.password.cost for entry in self.entries.values() if entry.password]
        self.has_passwords = bool(costs)
        self._nobody = PasswordHash(max(costs, key=lambda cost: cost.n * cost.r * cost.p, default=Cost()), bytes(16), bytes(32))

    @classmethod
    def of_token(cls, token: str) -> Users:
        """One user, whose jobs are those of a server without credentials: it may get them later, and keep its library."""
        return cls([Entry("", "admin", None, (token_hash(token),))])

    def by_token(self, token: bytes) -> Login | None:
        """All tokens are compared, however early one fits."""
        given, found = token_hash(token), None
        for entry in self.entries.values():
            for kept in entry.tokens:
                if hmac.compare_digest(kept, given):
                    found = Login(entry.user, fingerprint(kept))
        return found

    def by_password(self, name: str, password: str) -> Login | None:
        """Slow, as it must be, and as slow for a name that does not exist. Call it in a thread."""
        entry = self.entries.get(unicodedata.normalize("NFC", name))
        kept = entry.password if entry and entry.password else self._nobody
        is_right = kept.matches(password) and kept is not self._nobody
        return Login(entry.user, fingerprint(str(kept))) if entry and is_right else None

    def by_proof(self, name: str, proof: str) -> Login | None:
        entry = self.entries.get(name)
        return Login(entry.user, proof) if entry and proof in entry.proofs else None


class UsersFile:
    """`current()` gives those whom the file names now."""

    def __init__(self, path: Path) -> None:
        """Raises UnreadableFileError if the file is missing or damaged, or names nobody."""
        self.path = path
        self._seen = self._state()
        self._users = Users(read(path))
        warn_if_others_can_read(path)

    def current(self) -> Users:
        state = self._state()
        if state != self._seen:
            self._seen = state
            try:
                self._users = Users(read(self.path))
                log.info("users read again from %s: %d", self.path, len(self._users.entries))
            except UnreadableFileError as error:
                log.error("the users stay as they were: %s", error)
        return self._users

    def _state(self) -> tuple[int, int, int] | None:
        try:
            found = self.path.stat()
        except OSError:
            return None
        return found.st_mtime_ns, found.st_size, found.st_ino


def read(path: Path) -> list[Entry]:
    """Raises UnreadableFileError, which says what is wrong and with whom, but never what a password's hash looks like."""
    hint = "`app.py user add NAME` makes a good entry."
    try:
        document = json.loads(path.read_bytes())
    except OSError as error:
        raise UnreadableFileError(f"The users file {path} cannot be read: {error.strerror or error}.", hint) from error
    except (ValueError, RecursionError) as error:
        raise UnreadableFileError(f"The users file {path} is no JSON.", hint) from error
    try:
        entries = [_entry(item) for item in document["users"]]
        names = [entry.name for entry in entries]
        if not names or len(set(names)) < len(names):
            raise ValueError("it names nobody" if not names else "a name is there twice")
    except (KeyError, TypeError) as error:
        raise UnreadableFileError(f'The users file {path} is not of the form {{"users": [{{"name": ...}}, ...]}}.', hint) from error
    except ValueError as error:
        raise UnreadableFileError(f"The users file {path} is wrong: {error}.", hint) from error
    return entries


def add(path: Path, name: str, password: str, role: str = "user", cost: Cost | None = None) -> None:
    """Put a new user into the file, which is made if it is missing.

    Raises InputError for a name that is taken or no name, a short password or an unknown role; UnreadableFileError if the file is
    damaged; StorageError if it cannot be written.
    """
    name = unicodedata.normalize("NFC", name)
    if reason := _why_no_name(name):
        raise InputError(f"{name!r} cannot be a user's name: {reason}.", "Use one such as 'ada'.")
    if len(password) not in _PASSWORD_LENGTHS:
        raise InputError(f"The password has {len(password)} characters.", f"Use {_PASSWORD_LENGTHS[0]} to {_PASSWORD_LENGTHS[-1]}.")
    if role not in ROLES:
        raise UnknownNameError("role", role, ROLES)
    entry = Entry(name, role, PasswordHash.of(password, cost))
    with replacing(path) as file:
        entries = read(path) if path.exists() else []
        if name in [one.name for one in entries]:
            raise InputError(f"There is a user {name!r} already.", "Choose another name.")
        file.write(document([*entries, entry]))


def new_token(path: Path, name: str) -> str:
    """A new token for a user of the file. It is kept as a hash: this is the only time that it can be read.

    Raises UnknownNameError, UnreadableFileError or StorageError.
    """
    token = secrets.token_urlsafe(32)
    with replacing(path) as file:
        entries = {entry.name: entry for entry in read(path)}
        if name not in entries:
            raise UnknownNameError("user", name, entries)
        entries[name] = replace(entries[name], tokens=(*entries[name].tokens, token_hash(token)))
        file.write(document(entries.values()))
    return token


def fingerprint(kept: str) -> str:
    return hashlib.sha256(b"proof:" + kept.encode()).hexdigest()[:32]


def document(entries: Iterable[Entry]) -> bytes:
    """The file that names them."""
    return (json.dumps({"users": [entry.document() for entry in entries]}, indent=1, ensure_ascii=False) + "\n").encode()


def _entry(item: dict[str, Any]) -> Entry:
    name, role, tokens = item["name"], item.get("role", "user"), item.get("tokens", [])
    if not isinstance(name, str) or (reason := _why_no_name(name)):
        raise ValueError(f"{name!r} is no name" if not isinstance(name, str) else f"{name!r} is no name: {reason}")
    if role not in ROLES:
        raise ValueError(f"the role of {name!r} is none of {', '.join(ROLES)}")
    if not isinstance(tokens, list) or not all(isinstance(one, str) and re.fullmatch("[0-9a-f]{64}", one) for one in tokens):
        raise ValueError(f"the tokens of {name!r} are no list of SHA-256 hashes in hex")
    if unknown := sorted(set(item) - {"name", "role", "password", "tokens"}):
        raise ValueError(f"{name!r} has {unknown[0]!r}, which nothing reads")
    try:
        password = PasswordHash.parse(item["password"]) if item.get("password") else None
    except ValueError as error:
        raise ValueError(f"the password of {name!r} is {error}") from error
    return Entry(name, role, password, tuple(tokens))


def _why_no_name(name: str) -> str:
    if not 1 <= len(name) <= 64 or name != name.strip():
        return "it has 1 to 64 characters, without spaces around"
    if ":" in name or "/" in name or "\\" in name or not name.isprintable():
        return "colons, slashes and invisible characters are not allowed"
    return "" if unicodedata.is_normalized("NFC", name) else "it is not in Unicode's composed form (NFC)"
