from __future__ import annotations

import hashlib
import socket
from collections.abc import Iterator

import pytest

from errors import HubError, HubMissingError, HubOfflineError, HubRefusedError, InputError
from pipelines.hub import HubFile, HubSettings, Interrupted, bytes_from, check_names, look_up
from tests.pipelines.hub_server import COMMIT, HubServer, hub_server

DATA = bytes(range(256)) * 40
REPO, PATH = "ann/models", "boat.safetensors"


@pytest.fixture
def hub() -> Iterator[HubServer]:
    with hub_server(files={f"{REPO}/{PATH}": DATA, f"{REPO}/vae/a boat.safetensors": b"x"}) as server:
        yield server


def at(hub: HubServer, **more: object) -> HubSettings:
    return HubSettings(hub.url, timeout_seconds=5, **more)


def test_a_file_is_looked_up_where_the_hub_is_and_read_where_it_redirects_to(hub: HubServer) -> None:
    file = look_up(at(hub), REPO, PATH)
    assert file == HubFile(REPO, PATH, COMMIT, len(DATA), hashlib.sha256(DATA).hexdigest())
    assert b"".join(bytes_from(at(hub), file, 0)) == DATA
    assert [(method, path) for method, path, _ in hub.asked] == [
        ("HEAD", f"/{REPO}/resolve/main/{PATH}"),
        ("GET", f"/{REPO}/resolve/{COMMIT}/{PATH}"),
        ("GET", f"/cdn/{REPO}/{PATH}"),
    ]


def test_from_any_place_on(hub: HubServer) -> None:
    file = look_up(at(hub), REPO, PATH)
    assert b"".join(bytes_from(at(hub), file, 10_000)) == DATA[10_000:]
    hub.takes_ranges = False
    first, *rest = bytes_from(at(hub), file, 10_000)
    assert first == b""  # which says that it begins anew
    assert b"".join(rest) == DATA


def test_names_with_folders_and_spaces(hub: HubServer) -> None:
    with pytest.raises(HubMissingError):
        look_up(at(hub), REPO, "vae/none.safetensors")
    look_up_failed = hub.asked[-1]
    assert look_up_failed[1] == f"/{REPO}/resolve/main/vae/none.safetensors"
    with pytest.raises(HubMissingError):  # the little server does not unquote
        look_up(at(hub), REPO, "vae/a boat.safetensors")
    assert hub.asked[-1][1].endswith("/vae/a%20boat.safetensors")


def test_the_token_goes_to_the_hub_alone(hub: HubServer) -> None:
    settings = at(hub, token="hf_right")
    assert list(bytes_from(settings, look_up(settings, REPO, PATH), 0))
    sent = {path.split("/")[1]: headers.get("Authorization") for _, path, headers in hub.asked}
    assert sent == {"ann": "Bearer hf_right", "cdn": None}
    assert "hf_right" not in repr(settings)


def test_a_gated_repository_says_what_to_do(hub: HubServer) -> None:
    hub.gated.add(REPO)
    with pytest.raises(HubRefusedError) as caught:
        look_up(at(hub), REPO, PATH)
    assert f"Accept the licence at {hub.url}/{REPO}" in caught.value.hint
    assert "set HF_TOKEN" in caught.value.hint
    with pytest.raises(HubRefusedError, match="of the account whose token HF_TOKEN has"):
        look_up(at(hub, token="hf_wrong"), REPO, PATH)
    assert look_up(at(hub, token="hf_right"), REPO, PATH).size == len(DATA)


def test_what_is_not_there(hub: HubServer) -> None:
    with pytest.raises(HubMissingError, match="no repository bo/none, or it is private"):
        look_up(at(hub), "bo/none", PATH)
    with pytest.raises(HubMissingError, match=r"no file none\.safetensors in ann/models"):
        look_up(at(hub), REPO, "none.safetensors")


def test_offline_nothing_is_asked(hub: HubServer) -> None:
    with pytest.raises(HubOfflineError, match="HF_HUB_OFFLINE"):
        look_up(at(hub, is_offline=True), REPO, PATH)
    assert not hub.asked


def test_nobody_there_and_a_busy_hub() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{free.getsockname()[1]}"
    with pytest.raises(Interrupted, match=r"127\.0\.0\.1 cannot be reached: Connection refused"):
        look_up(HubSettings(url), REPO, PATH)
    with hub_server(status=503) as hub, pytest.raises(Interrupted, match="busy"):
        look_up(at(hub), REPO, PATH)
    with hub_server(status=418) as hub, pytest.raises(HubError, match="answers 418"):
        look_up(at(hub), REPO, PATH)


def test_what_cannot_be_checked_is_not_fetched(hub: HubServer) -> None:
    hub.told_sha256 = "abc"
    with pytest.raises(HubError, match="does not say the size and the SHA-256"):
        look_up(at(hub), REPO, PATH)


@pytest.mark.parametrize("endpoint", ["nonsense", "ftp://127.0.0.1/", "http://"])
def test_an_endpoint_that_is_none(endpoint: str) -> None:
    with pytest.raises(HubError):
        look_up(HubSettings(endpoint), REPO, PATH)


@pytest.mark.parametrize("repo", ["boat", "a/b/c", "../a", "a/..", "a b/c", "", "a/b?x", "\ud800/a", None])
def test_no_repository(repo: str) -> None:
    with pytest.raises(InputError, match="no repository"):
        check_names(repo, PATH)


@pytest.mark.parametrize(
    "path", ["../x.safetensors", "a//x.safetensors", "/x.safetensors", "a\\x.safetensors", "x.ckpt", "", "\ud800.safetensors"]
)
def test_no_file(path: str) -> None:
    with pytest.raises(InputError, match=r"is no (file|\.safetensors)"):
        check_names(REPO, path if path.endswith("ckpt") else f"{path}.safetensors" if path else "")
