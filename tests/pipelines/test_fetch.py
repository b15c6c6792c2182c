from __future__ import annotations

import fcntl
import hashlib
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

from errors import BadDownloadError, Canceled, HubMissingError, InputError, StorageError
from pipelines import fetch as fetching
from pipelines.fetch import Record, Wanted, fetch, forget, note, records
from pipelines.hub import HubSettings, Interrupted
from pipelines.model_files import list_files
from tests.pipelines.hub_server import HubServer, hub_server

DATA = bytes(range(256)) * 4000
WANTED = Wanted("ann/models", "big/boat.safetensors")


@pytest.fixture
def hub() -> Iterator[HubServer]:
    with hub_server(files={"ann/models/big/boat.safetensors": DATA}) as server:
        yield server


@pytest.fixture
def get(hub: HubServer, tmp_path: Path) -> Callable[..., Path]:
    def get(wanted: Wanted = WANTED, told: Callable = lambda *_: None, is_canceled: Callable = lambda: False, tries: int = 0) -> Path:
        return fetch(HubSettings(hub.url, timeout_seconds=5), wanted, tmp_path, told, is_canceled, [0.0] * tries)

    return get


def left(tmp_path: Path) -> set[str]:
    return {path.name for path in (tmp_path / "checkpoints").iterdir()}


def test_a_file_arrives_whole_and_alone(get: Callable[..., Path], tmp_path: Path) -> None:
    seen = []
    path = get(told=lambda *heard: seen.append(heard))
    assert path == tmp_path / "checkpoints" / "boat.safetensors"
    assert path.read_bytes() == DATA
    assert left(tmp_path) == {"boat.safetensors"}
    assert seen[-1] == ("running", len(DATA), len(DATA))
    assert [place for _, place, _ in seen] == sorted(place for _, place, _ in seen)


def test_a_broken_connection_is_made_again_and_goes_on(get: Callable[..., Path], hub: HubServer) -> None:
    hub.break_after = [100_000, 0, 300_000]
    assert get(tries=2).read_bytes() == DATA
    assert hub.served() == ["", "bytes=100000-", "bytes=100000-", "bytes=400000-"]


def test_after_too_many_it_waits_for_somebody_to_go_on(get: Callable[..., Path], hub: HubServer, tmp_path: Path) -> None:
    hub.break_after = [100_000, 0]
    with pytest.raises(Interrupted, match=r"ended before the last byte|broke"):
        get()
    assert left(tmp_path) == {".boat.safetensors.part", ".boat.safetensors.download"}
    assert list_files(tmp_path / "checkpoints") == {}
    (record,) = records(tmp_path)  # no server goes on with it by itself
    assert (record.bytes, record.size, record.is_running) == (100_000, len(DATA), False)
    seen = []
    assert get(told=lambda *heard: seen.append(heard)).read_bytes() == DATA  # another process could have done this
    assert seen[0] == ("checking", 100_000, len(DATA))
    assert hub.served()[-1] == "bytes=100000-"
    assert records(tmp_path) == []


def test_a_server_that_begins_anew(get: Callable[..., Path], hub: HubServer) -> None:
    hub.break_after, hub.takes_ranges = [100_000], False
    assert get(tries=1).read_bytes() == DATA


def test_another_file_under_the_same_name_begins_anew(get: Callable[..., Path], hub: HubServer, tmp_path: Path) -> None:
    hub.break_after = [100_000, 0]
    with pytest.raises(Interrupted):
        get()
    hub.files["ann/models/big/boat.safetensors"] = DATA[::-1]
    assert get().read_bytes() == DATA[::-1]


def test_what_is_damaged_is_not_kept(get: Callable[..., Path], hub: HubServer, tmp_path: Path) -> None:
    hub.told_sha256 = "0" * 64
    with pytest.raises(BadDownloadError, match="should have 000000000000"):
        get()
    assert list_files(tmp_path / "checkpoints") == {}
    assert left(tmp_path) == set()
    hub.told_sha256 = hashlib.sha256(DATA).hexdigest()
    assert get().read_bytes() == DATA


def test_a_part_that_was_changed_is_noticed(get: Callable[..., Path], hub: HubServer, tmp_path: Path) -> None:
    hub.break_after = [100_000, 0]
    with pytest.raises(Interrupted):
        get()
    (tmp_path / "checkpoints" / ".boat.safetensors.part").write_bytes(b"y" * 100_000)
    with pytest.raises(BadDownloadError):
        get()
    assert get().read_bytes() == DATA


def test_canceled_what_came_is_kept_unless_it_is_forgotten(get: Callable[..., Path], tmp_path: Path) -> None:
    seen = []
    with pytest.raises(Canceled):
        get(told=lambda *heard: seen.append(heard), is_canceled=lambda: len(seen) > 1)
    assert records(tmp_path)[0].bytes > 0
    forget(tmp_path, WANTED.checked())
    assert left(tmp_path) == set()


def test_a_full_disk_is_told_before_the_first_byte(
    get: Callable[..., Path], hub: HubServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    free = len(DATA) + fetching.ROOM - 1
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=free))
    with pytest.raises(StorageError, match=r"1\.1 GB left, and 1\.1 are needed"):
        get()
    assert hub.served() == []


def test_nothing_is_overwritten(get: Callable[..., Path], tmp_path: Path) -> None:
    get()
    with pytest.raises(InputError, match=r"checkpoints/boat\.safetensors is there already"):
        get()


def test_two_do_not_fetch_the_same(get: Callable[..., Path], tmp_path: Path) -> None:
    (tmp_path / "checkpoints").mkdir()
    with (tmp_path / "checkpoints" / ".boat.safetensors.part").open("wb") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        with pytest.raises(StorageError, match=r"Another process fetches boat\.safetensors"):
            get()


def test_what_is_not_there_leaves_nothing_but_a_wish(get: Callable[..., Path], tmp_path: Path) -> None:
    car = Wanted("ann/models", "car.safetensors").checked()
    with pytest.raises(HubMissingError):
        get(car)
    assert left(tmp_path) == set()
    note(tmp_path, Record(car))  # of a server
    with pytest.raises(HubMissingError):
        get(car)
    assert [one.is_running for one in records(tmp_path)] == [True]


def test_records_that_are_none_are_left_out(tmp_path: Path) -> None:
    note(tmp_path, Record(WANTED.checked(), False))
    good = (tmp_path / "checkpoints" / ".boat.safetensors.download").read_text()
    (tmp_path / "vae").mkdir()
    (tmp_path / "vae" / ".boat.safetensors.download").write_text(good)  # of another folder
    (tmp_path / "checkpoints" / ".x.safetensors.download").write_text("[" * 10_000)
    assert [(one.wanted.folder, one.is_running) for one in records(tmp_path)] == [("checkpoints", False)]


@pytest.mark.parametrize(
    ("folder", "name"),
    [
        ("output", ""),
        ("..", ""),
        ("vae", "../x.safetensors"),
        ("vae", ".x.safetensors"),
        ("vae", "x.pt"),
        ("vae", "a" * 190 + ".safetensors"),
    ],
)
def test_nothing_leads_elsewhere(folder: str, name: str) -> None:
    with pytest.raises(InputError):
        Wanted("ann/models", "boat.safetensors", folder, name).checked()
