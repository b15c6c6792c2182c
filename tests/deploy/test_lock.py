"""What is pinned, what is locked and what is listed are the same things."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
LOCKS = ("requirements.lock", "requirements-cuda.lock", "requirements-cpu.lock", "requirements-mcp.lock", "requirements-ray.lock")
PINNED = re.compile(r"^([A-Za-z0-9._-]+)==([^ ;\\\n]+)", re.MULTILINE)


def pinned(name: str) -> set[tuple[str, str]]:
    return {(package.lower(), version) for package, version in PINNED.findall((ROOT / name).read_text())}


@pytest.mark.parametrize("lock", LOCKS)
def test_a_lock_has_every_requirement_in_its_version(lock: str) -> None:
    own = ROOT / lock.replace(".lock", ".txt")
    wanted = pinned("requirements.txt") | (pinned(own.name) if own.exists() else set())
    if "cpu" in lock:
        wanted = {(name, version) for name, version in wanted if name != "torch"}
    assert wanted <= pinned(lock), "run `make lock`"


@pytest.mark.parametrize("lock", LOCKS)
def test_everything_in_a_lock_has_its_hash_and_no_address(lock: str) -> None:
    text = (ROOT / lock).read_text()
    blocks = re.split(r"^(?=[a-z0-9])", text, flags=re.MULTILINE)[1:]
    assert len(blocks) > 50
    assert [block.partition(" ")[0] for block in blocks if "--hash=sha256:" not in block] == []
    assert "://" not in text


def test_the_lock_without_cuda_has_nothing_of_it() -> None:
    assert [name for name, _ in pinned("requirements-cpu.lock") if re.match(r"torch$|triton|nvidia|cuda|xformers", name)] == []


def test_the_licence_of_everything_is_listed() -> None:
    rows = re.findall(r"^\| ([a-z0-9][a-z0-9._-]*) \| (\d[^ |]*) \| (.+) \|$", (ROOT / "docs" / "licences.md").read_text(), re.MULTILINE)
    assert {(name, version) for name, version, _ in rows} == set().union(*map(pinned, LOCKS)), "run `make lock`"
    assert all(licence.strip() for *_, licence in rows)
