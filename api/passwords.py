"""Passwords and tokens are kept as hashes: scrypt for what a person thinks up, SHA-256 for 32 random bytes."""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import secrets
import unicodedata
from dataclasses import dataclass


@dataclass(frozen=True)
class Cost:
    """What one check of a password costs: 128 * n * r bytes of memory, and time in proportion to n * r * p."""

    n: int = 2**14  # with p = 5, what OWASP's cheat sheet on password storage asks for; 16 MiB
    r: int = 8
    p: int = 5

    @property
    def memory_bytes(self) -> int:
        return 128 * self.r * (self.n + self.p + 2)

    @property
    def is_sane(self) -> bool:
        is_power_of_two = self.n > 1 and self.n & (self.n - 1) == 0
        return is_power_of_two and 1 <= self.r <= 64 and 1 <= self.p <= 64 and self.memory_bytes <= 2**28


@dataclass(frozen=True)
class PasswordHash:
    """As text: `scrypt:n:r:p:salt:hash`, the last two in base64."""

    cost: Cost
    salt: bytes
    digest: bytes

    @classmethod
    def of(cls, password: str, cost: Cost | None = None) -> PasswordHash:
        cost, salt = cost or Cost(), secrets.token_bytes(16)
        return cls(cost, salt, _scrypt(password, salt, cost, 32))

    @classmethod
    def parse(cls, text: str) -> PasswordHash:
        """Raises ValueError if it is no such text, or one whose check would take the machine down."""
        try:
            kind, n, r, p, salt, digest = text.split(":")
            found = cls(Cost(int(n), int(r), int(p)), base64.b64decode(salt, validate=True), base64.b64decode(digest, validate=True))
        except (AttributeError, ValueError, binascii.Error) as error:
            raise ValueError("not of the form scrypt:n:r:p:salt:hash") from error
        if kind != "scrypt" or not found.cost.is_sane or len(found.salt) < 8 or not 16 <= len(found.digest) <= 64:
            raise ValueError("not a hash that is made here")
        return found

    def __str__(self) -> str:
        salt, digest = (base64.b64encode(part).decode() for part in (self.salt, self.digest))
        return f"scrypt:{self.cost.n}:{self.cost.r}:{self.cost.p}:{salt}:{digest}"

    def matches(self, password: str) -> bool:
        return hmac.compare_digest(_scrypt(password, self.salt, self.cost, len(self.digest)), self.digest)


def token_hash(token: str | bytes) -> str:
    return hashlib.sha256(token.encode() if isinstance(token, str) else token).hexdigest()


def _scrypt(password: str, salt: bytes, cost: Cost, length: int) -> bytes:
    normal = unicodedata.normalize("NFC", password).encode("utf-8", "surrogatepass")  # keyboards differ in how they compose é
    return hashlib.scrypt(normal, salt=salt, n=cost.n, r=cost.r, p=cost.p, maxmem=cost.memory_bytes + 2**20, dklen=length)
