from __future__ import annotations

from pathlib import Path

import pytest

import settings
from errors import InputError
from jobs.service_settings import GIB, ClusterSettings
from pipelines.parameters import MachineSettings, declarations
from server_options import ServeCommand, WorkCommand


@pytest.fixture(autouse=True)
def empty_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(settings.os, "environ", {})


def serve(*arguments: str) -> ServeCommand:
    command = settings.parse(arguments)
    assert isinstance(command, ServeCommand)
    return command


def test_no_command_is_the_server_on_this_machine_alone() -> None:
    assert serve() == serve("serve")
    assert (serve().host, serve().port, serve().token, serve().users) == ("127.0.0.1", 8000, "", None)
    assert serve().store.database == Path("data/jobs.sqlite")
    assert serve().store.queues_path == Path("data/jobs-queues.sqlite")


def test_to_listen_without_a_host_is_everywhere() -> None:
    assert serve("--listen").host == "0.0.0.0"
    assert serve("--listen", "--port", "80").host == "0.0.0.0"
    assert serve("--listen", "::1").host == "::1"


def test_the_page_is_there_unless_it_is_not_wanted(monkeypatch: pytest.MonkeyPatch) -> None:
    assert serve().has_page
    assert not serve("--no-ui").has_page
    monkeypatch.setattr(settings.os, "environ", {"STILLMOTION_NO_UI": "1"})
    assert not serve().has_page


def test_what_is_given_arrives_where_it_belongs() -> None:
    command = serve(
        "--data-dir", "d", "--database", "x/y.db", "--token", "t", "--allowed-hosts", "a.example, .b.example", "--max-queued", "5",
        "--max-work", "2.5",        "--min-free", "0.5", "--drain", "7", "--idle-unload", "0", "--cache-gib", "1",
        "--keep-days", "30", "--keep-gib", "10",
        "--webhook-private",        "--enable-custom-nodes", "--device", "cpu", "--vram-limit", "6", "--root-path", "/films",
    )  # fmt: skip
    assert (command.store.data_dir, command.store.database, command.store.max_queued) == (Path("d"), Path("x/y.db"), 5)
    assert (command.store.max_pixel_steps, command.store.min_free_bytes) == (2_500_000, GIB // 2)
    assert (command.drain_seconds, command.work.idle_unload_seconds, command.work.cache_bytes) == (7, 0, GIB)
    assert (command.work.keep_days, command.work.keep_bytes, command.work.webhook_private) == (30, 10 * GIB, True)
    assert (command.work.machine.device, command.work.machine.vram_limit) == ("cpu", 6)
    assert (command.token, command.allowed_hosts, command.root_path) == ("t", ("a.example", ".b.example"), "/films")
    assert command.has_custom_nodes


def test_the_environment_says_the_same_and_the_command_line_counts_more(monkeypatch: pytest.MonkeyPatch) -> None:
    said = {"LISTEN": "::", "PORT": "81", "TOKEN": "t", "NO_AUTH": "no", "WEBHOOK_PRIVATE": "1", "KEEP_DAYS": "3", "DEVICE": "cpu",
            "ALLOWED_HOSTS": "a.example,b.example", "DATABASE": "/x.db", "DATA_DIR": "/srv"}  # fmt: skip
    monkeypatch.setattr(settings.os, "environ", {f"STILLMOTION_{name}": value for name, value in said.items()})
    command = serve("--port", "82")
    assert (command.host, command.port, command.token, command.no_auth) == ("::", 82, "t", False)
    assert (command.work.webhook_private, command.work.keep_days, command.work.machine.device) == (True, 3, "cpu")
    assert (command.allowed_hosts, command.store.database, command.store.data_dir) == (
        ("a.example", "b.example"),
        Path("/x.db"),
        Path("/srv"),
    )


@pytest.mark.parametrize(
    ("name", "value", "says"),
    [("PORT", "eighty", "STILLMOTION_PORT: 'eighty' is no whole number"), ("NO_AUTH", "perhaps", "neither true nor false"),
     ("CACHE_GIB", "-1", "less than nothing"), ("DEVICE", "x" * 30, "--device"), ("ATTENTION", "none", "Unknown attention 'none'")],
)  # fmt: skip
def test_a_variable_that_cannot_be_read_is_named(name: str, value: str, says: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(settings.os, "environ", {f"STILLMOTION_{name}": value})
    with pytest.raises(InputError, match=says):
        serve()


@pytest.mark.parametrize(
    "arguments",
    [("--port", "70000"), ("--port", "-1"), ("--max-queued", "-1"), ("--keep-days", "nan"), ("--cache-gib", "inf"), ("--vram", "huge"),
     ("--tokens", "x")],
)  # fmt: skip
def test_values_that_cannot_be(arguments: tuple[str, ...]) -> None:
    with pytest.raises(InputError):
        serve(*arguments)


def test_every_setting_of_the_machine_is_an_option() -> None:
    for name in declarations(MachineSettings):
        assert getattr(serve().work.machine, name) == getattr(MachineSettings(), name)


def test_a_worker_has_what_concerns_jobs() -> None:
    command = settings.parse(["work", "--until-empty", "--drain", "1", "--keep-gib", "2"])
    assert isinstance(command, WorkCommand)
    assert (command.until_empty, command.drain_seconds, command.work.keep_bytes) == (True, 1, 2 * GIB)
    with pytest.raises(InputError):
        settings.parse(["work", "--port", "80"])


def test_several_machines_are_asked_for_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    assert serve().work.cluster is None
    assert serve().store.max_attempts == 2
    command = serve(
        "--executor", "ray", "--ray-address", "10.0.0.5:6379", "--min-replicas", "1", "--max-replicas", "4", "--replica-idle", "9"
    )
    assert command.work.cluster == ClusterSettings("10.0.0.5:6379", 1, 4, 9.0, None)
    assert command.store.max_attempts == 5
    assert serve("--executor", "ray", "--device", "cpu").work.cluster.gpus == 0
    assert serve("--executor", "ray", "--device", "cuda").work.cluster.gpus == 1
    work = settings.parse(["work", "--executor", "ray"])
    assert (work.work.cluster, work.store.max_attempts) == (ClusterSettings(), 5)
    monkeypatch.setattr(settings.os, "environ", {"STILLMOTION_EXECUTOR": "ray", "STILLMOTION_RAY_ADDRESS": "auto"})
    assert serve().work.cluster.address == "auto"


@pytest.mark.parametrize(("arguments", "words"), [
    (("--executor", "dask"), "neither local nor ray"),
    (("--ray-address", "10.0.0.5:6379"), "does the jobs itself"),
    (("--executor", "ray", "--ray-address", "93.184.216.34:6379"), "from the internet"),
    (("--executor", "ray", "--ray-address", "ray://10.0.0.5:10001"), "its head"),
    (("--executor", "ray", "--max-replicas", "0"), "no number from 1 on"),
    (("--executor", "ray", "--min-replicas", "3"), "more than the most"),
])  # fmt: skip
def test_machines_that_cannot_be(arguments: tuple[str, ...], words: str) -> None:
    with pytest.raises(InputError, match=words):
        serve(*arguments)


def test_ray_is_told_to_be_quiet_and_to_ask_for_a_token(monkeypatch: pytest.MonkeyPatch) -> None:
    environment = {"RAY_AUTH_MODE": "token"}
    monkeypatch.setattr(settings.os, "environ", environment)
    settings.ray_environment(Path("/d/ray.token"), is_local=True)
    assert environment == {"RAY_AUTH_MODE": "token", "RAY_USAGE_STATS_ENABLED": "0", "RAY_AUTH_TOKEN_PATH": "/d/ray.token"}
