"""The endpoints as the real `gradio_client` calls them, over a real port."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
from gradio_client import Client

from tests.api.house import PNG, until

ROOT = Path(__file__).parents[2]


@dataclass
class Endpoints:
    url: str
    data_dir: Path
    got: Path
    http: httpx.Client

    def client(self, token: str = "") -> Client:
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        return Client(self.url, verbose=False, analytics_enabled=False, download_files=self.got, headers=headers)

    def ask(self, method: str, path: str, token: str = "", **more: Any) -> httpx.Response:
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        return self.http.request(method, self.url + path, headers=headers, **more)

    def jobs(self, token: str = "") -> list[dict[str, Any]]:
        return self.ask("GET", "/api/jobs", token).json()["jobs"]

    def job(self, title: str, status: str) -> dict[str, Any]:
        """As soon as there is one."""
        return until(lambda: next((one for one in self.jobs() if (one["title"], one["status"]) == (title, status)), None), 20)


@contextlib.contextmanager
def serving(folder: Path, **access: Any) -> Iterator[Endpoints]:
    command = [sys.executable, "-m", "tests.ui.endpoints_server", str(folder / "data"), json.dumps(access)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT) as started:
        try:
            url = started.stdout.readline().strip()
            with httpx.Client(timeout=20, trust_env=False) as http:
                yield Endpoints(url, folder / "data", folder / "got", http)
        finally:
            started.stdin.close()
            started.wait(20)


@pytest.fixture(scope="module")
def endpoints(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Endpoints]:
    with serving(tmp_path_factory.mktemp("endpoints")) as found:
        yield found


@pytest.fixture(scope="module")
def client(endpoints: Endpoints) -> Client:
    return endpoints.client()


def made(client: Client, *values: Any, **named: Any) -> Any:
    return client.submit(*values, **named).result(timeout=60)


def test_a_film_with_its_files_and_settings(endpoints: Endpoints, client: Client) -> None:
    mp4, webp, png, settings = made(client, "a red boat", frames=5, seed=str(2**63), motion_seed="7", api_name="/film")
    assert [Path(one).suffix for one in (mp4, webp, png)] == [".mp4", ".webp", ".png"]
    assert (Path(mp4).read_bytes(), Path(png).read_bytes()) == (b".mp4", PNG)
    values = settings["values"]
    assert (values["prompt"], values["seed"], values["motion_seed"], values["frames"]) == ("a red boat", 2**63, 7, 5)
    assert (settings["stage_seconds"], settings["device"], settings["warnings"]) == ({"still": 0.25}, "cpu", [])
    workflow = endpoints.ask("GET", f"/api/jobs/{settings['job']}/workflow").json()
    assert (workflow["3"]["inputs"]["seed"], workflow["13"]["inputs"]["seed"]) == (2**63, 7)
