from __future__ import annotations

import pytest

from api.passwords import Cost, PasswordHash, token_hash

CHEAP = Cost(n=16, r=1, p=1)


def test_a_hash_as_text_and_back() -> None:
    kept = PasswordHash.of("correct horse", CHEAP)
    assert PasswordHash.parse(str(kept)) == kept
    assert kept.matches("correct horse")
    assert not kept.matches("correct horse ")
    assert str(PasswordHash.of("correct horse", CHEAP)) != str(kept)  # salted


def test_against_the_standard() -> None:
    """RFC 7914, section 12: scrypt("password", "NaCl", n=1024, r=8, p=16)."""
    digest = (
        "fdbabe1c9d3472007856e7190d01e9fe7c6ad7cbc8237830e77376634b3731622eaf30d92e22a3886ff109279d9830dac727afb94a83ee6d8360cbdfa2cc0640"
    )
    assert PasswordHash(Cost(1024, 8, 16), b"NaCl", bytes.fromhex(digest)).matches("password")


@pytest.mark.parametrize(
    "cost", [Cost(0, 8, 1), Cost(1, 8, 1), Cost(1000, 8, 1), Cost(2**30, 8, 1), Cost(2**14, 0, 1), Cost(2**14, 8, 0), Cost(2**14, 8, 10**6)]
)
def test_costs_that_nobody_can_pay_are_refused(cost: Cost) -> None:
    text = f"scrypt:{cost.n}:{cost.r}:{cost.p}:AAAAAAAAAAAAAAAA:AAAAAAAAAAAAAAAAAAAAAAAA"
    with pytest.raises(ValueError, match="not a hash"):
        PasswordHash.parse(text)


@pytest.mark.parametrize(
    "text",
    ["", "scrypt", "scrypt:16:1:1:AA", "md5:16:1:1:AAAAAAAAAAAAAAAA:AAAAAAAAAAAAAAAAAAAAAAAA", "scrypt:x:1:1:AA:AA", "scrypt:16:1:1:?:?"],
)
def test_what_is_no_hash(text: str) -> None:
    with pytest.raises(ValueError, match="not "):
        PasswordHash.parse(text)


def test_any_text_is_a_password() -> None:
    for password in ("密码密码", "\ud800", "\0", "x" * 100_000):
        assert PasswordHash.of(password, CHEAP).matches(password)
    assert token_hash("é") == token_hash("é".encode())
