from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from api.downloads import Download, Downloads
from errors import InputError, JobStateError, UnknownNameError
from pipelines.fetch import Wanted, records
from pipelines.hub import HubSettings
from tests.api.house import until
from tests.pipelines.hub_server import HubServer, hub_server

DATA = bytes(range(256)) * 4000
BOAT, CAR = (Wanted("ann/models", f"{name}.safetensors") for name in ("boat", "car"))


@pytest.fixture
def hub() -> Iterator[HubServer]:
    with hub_server(files={f"ann/models/{name}.safetensors": DATA for name in ("boat", "car")}) as server:
        yield server


@pytest.fixture
def make(hub: HubServer, tmp_path: Path) -> Iterator[Callable[..., Downloads]]:
    """A server's downloads; a second one is those of the server that is started next."""
    made = []

    def make(**more: Any) -> Downloads:
        for before in made:
            before.close()
        made.append(Downloads(tmp_path, HubSettings(hub.url, timeout_seconds=5), **{"pauses": (), **more}))
        made[-1].start()
        return made[-1]

    yield make
    hub.go.set()
    for one in made:
        one.close()


def state(downloads: Downloads, number: int = 0) -> str:
    return downloads.list()[number]["state"]


def comes(downloads: Downloads) -> bool:
    """Half of it is here; the rest waits."""
    return any(one["state"] == "running" and one["bytes"] == len(DATA) // 2 for one in downloads.list())


def test_one_after_the_other(make: Callable[..., Downloads], hub: HubServer, tmp_path: Path) -> None:
    downloads = make()
    hub.go.clear()
    first = downloads.add(BOAT)
    second = downloads.add(CAR)
    until(lambda: comes(downloads))
    assert [one["state"] for one in downloads.list()] == ["running", "waiting"]
    with pytest.raises(JobStateError, match="is being fetched already"):
        downloads.add(BOAT)
    hub.go.set()
    until(lambda: [one["state"] for one in downloads.list()] == ["done", "done"])
    assert (tmp_path / "checkpoints" / "car.safetensors").read_bytes() == DATA
    assert first["id"] != second["id"]
    with pytest.raises(InputError, match="there already"):
        downloads.add(BOAT)
    downloads.cancel(first["id"])
    assert len(downloads.list()) == 1  # cleared away
    assert (tmp_path / "checkpoints" / "boat.safetensors").exists()


def test_canceled_and_resumed(make: Callable[..., Downloads], hub: HubServer) -> None:
    downloads = make()
    hub.go.clear()
    made = downloads.add(BOAT)
    until(lambda: comes(downloads))
    assert downloads.cancel(made["id"])["state"] == "canceled"
    hub.go.set()
    until(lambda: downloads._thread is None)
    assert (state(downloads), records(downloads.models_dir)[0].is_running) == ("canceled", False)
    assert downloads.resume(made["id"])["bytes"] >= len(DATA) // 2
    until(lambda: state(downloads) == "done")
    assert hub.served()[-1].startswith("bytes=")


def test_canceled_and_forgotten(make: Callable[..., Downloads], hub: HubServer, tmp_path: Path) -> None:
    downloads = make()
    hub.go.clear()
    made = downloads.add(BOAT)
    until(lambda: comes(downloads))
    downloads.cancel(made["id"], forgets=True)
    hub.go.set()
    until(lambda: downloads.list() == [])
    assert list((tmp_path / "checkpoints").iterdir()) == []
    with pytest.raises(UnknownNameError):
        downloads.cancel(made["id"])


def test_what_waits_is_canceled_at_once(make: Callable[..., Downloads], hub: HubServer) -> None:
    downloads = make()
    hub.go.clear()
    downloads.add(BOAT)
    second = downloads.add(CAR)
    downloads.cancel(second["id"], forgets=True)
    assert [one["name"] for one in downloads.list()] == ["boat.safetensors"]
    hub.go.set()
    until(lambda: state(downloads) == "done")
    assert not any("car" in path for _, path, _ in hub.asked)


def test_asked_for_again_while_it_stops(make: Callable[..., Downloads], hub: HubServer) -> None:
    downloads = make()
    hub.go.clear()
    made = downloads.add(BOAT)
    until(lambda: comes(downloads))
    downloads.cancel(made["id"])
    downloads.resume(made["id"])
    hub.go.set()
    until(lambda: state(downloads) == "done")


def test_a_restart_goes_on_with_what_ran_and_not_with_what_was_stopped(
    make: Callable[..., Downloads], hub: HubServer, tmp_path: Path
) -> None:
    downloads = make()
    hub.break_after = [100_000, 0]
    stopped = downloads.add(CAR)
    until(lambda: state(downloads) == "failed")
    downloads.cancel(stopped["id"])
    hub.go.clear()
    downloads.add(BOAT)
    until(lambda: comes(downloads))
    downloads._is_closing = True
    hub.go.set()
    downloads.close()
    assert not (tmp_path / "checkpoints" / "boat.safetensors").exists()

    later = make()
    until(lambda: {one["name"]: one["state"] for one in later.list()} == {"boat.safetensors": "done", "car.safetensors": "canceled"})
    assert hub.served()[-1].startswith("bytes=")
    later.resume(stopped["id"])
    until(lambda: all(one["state"] == "done" for one in later.list()))


def test_what_goes_wrong_is_told_and_mended(make: Callable[..., Downloads], hub: HubServer) -> None:
    downloads = make()
    hub.gated.add("ann/models")
    made = downloads.add(BOAT)
    until(lambda: state(downloads) == "failed")
    error = downloads.list()[0]["error"]
    assert error["code"] == "hub_refused"
    assert "Accept the licence" in error["hint"]
    hub.gated.clear()
    downloads.resume(made["id"])
    until(lambda: state(downloads) == "done")
    assert downloads.list()[0]["error"] is None


def test_speed_and_what_remains() -> None:
    one = Download(BOAT.checked())
    for second in range(30):
        one.came(float(second), "running", second * 1000, 100_000)
    shown = one.document(29.0)
    assert (shown["bytes_per_second"], shown["remaining_seconds"]) == (1000, 71.0)
    assert len(one.speeds) < 13
    one.came(30.0, "running", 0, 100_000)  # from the first byte on: no speed below nothing
    assert one.document(30.0)["bytes_per_second"] is None


def test_nobody_asked_and_nothing_is_fetched(make: Callable[..., Downloads], hub: HubServer) -> None:
    downloads = make()
    assert (downloads.list(), downloads._thread, hub.asked) == ([], None, [])


def test_what_somebody_else_has_fetched_since_is_no_download_any_more(make: Callable[..., Downloads], hub: HubServer) -> None:
    downloads = make()
    hub.go.clear()
    made = downloads.add(BOAT)
    until(lambda: comes(downloads))
    downloads.cancel(made["id"])
    hub.go.set()
    until(lambda: downloads._now is None)
    assert state(downloads) == "canceled"
    target = BOAT.checked().target(downloads.models_dir)
    target.write_bytes(DATA)
    for path in target.parent.glob(".boat*"):
        path.unlink()
    assert downloads.list() == []


def test_where_the_models_are_is_told_to_admins_only(make: Callable[..., Downloads], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipelines.fetch.ROOM", 10**18)
    downloads = make()
    downloads.add(BOAT)
    until(lambda: state(downloads) == "failed")
    assert str(downloads.models_dir) in downloads.list()[0]["error"]["message"]
    told = downloads.list(shows_paths=False)[0]["error"]
    assert told["message"].startswith("The disk that holds models/checkpoints has")
    assert str(downloads.models_dir) not in str(told)
