"""What can be known of the container, the compose file and the unit without an engine to run them."""

from __future__ import annotations

import re
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest
import yaml

import server_options
import settings

ROOT = Path(__file__).parents[2]
DOCKERFILE = (ROOT / "Dockerfile").read_text()
COMPOSE = yaml.safe_load((ROOT / "deploy" / "compose.yaml").read_text())
SERVICE = COMPOSE["services"]["stillmotion"]
UNIT = (ROOT / "deploy" / "stillmotion.service").read_text()
NGINX = (ROOT / "deploy" / "nginx.conf").read_text()
VARIABLES = {option.variable for option in (*server_options._SERVER, *server_options._STORE, *server_options._WORK)} | {
    "STILLMOTION_DATA_DIR"
}


def test_the_image_holds_every_package_and_lock_that_it_needs() -> None:
    ignored = (ROOT / ".dockerignore").read_text().splitlines()
    for package in ("pipelines", "workflows", "jobs", "api", "ui", "assets"):
        assert f"\nCOPY {package} {package}\n" in DOCKERFILE
        assert f"!{package}" in ignored
    assert ignored[0] == "**"
    for device in ("cuda", "cpu"):
        assert (ROOT / f"requirements-{device}.lock").exists()


def test_it_runs_as_nobody_in_particular() -> None:
    assert re.search(r"^USER 10001:10001$", DOCKERFILE, re.MULTILINE)
    assert "VOLUME /data\n" in DOCKERFILE
    assert isinstance(settings.parse(["serve", "--listen"]), server_options.ServeCommand)


@pytest.mark.parametrize(("status", "code"), [(200, 0), (503, 1)])
def test_the_health_check_asks_healthz(status: int, code: int) -> None:
    program = re.search(r'CMD \["python", "-c", "(.+)"\]\n', DOCKERFILE)[1]
    asked = []

    class Answer(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            self.send_response(status)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Answer) as server:
        threading.Thread(target=server.handle_request, daemon=True).start()
        environment = {"STILLMOTION_PORT": str(server.server_port)}
        done = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, check=False, timeout=20)
    assert (done.returncode, asked) == (code, ["/healthz"])


@pytest.mark.parametrize("text", [DOCKERFILE, UNIT, str(SERVICE["environment"])], ids=["image", "unit", "compose"])
def test_only_settings_that_exist_are_set(text: str) -> None:
    set_here = set(re.findall(r"\b(STILLMOTION_[A-Z_]+)(?:'?: |=|')", text)) - {"STILLMOTION_HOST"}
    assert set_here
    assert set_here <= VARIABLES


def test_whoever_stops_it_waits_longer_than_it_drains() -> None:
    assert int(SERVICE["stop_grace_period"].rstrip("s")) > int(SERVICE["environment"]["STILLMOTION_DRAIN"]) + 10
    assert int(re.search(r"TimeoutStopSec=(\d+)", UNIT)[1]) > int(re.search(r"STILLMOTION_DRAIN=(\d+)", UNIT)[1]) + 10


def test_the_proxy_of_the_compose_file_is_the_one_that_is_trusted_and_serves_the_path() -> None:
    environment = SERVICE["environment"]
    assert COMPOSE["services"]["nginx"]["networks"]["inside"]["ipv4_address"] == environment["STILLMOTION_TRUSTED_PROXIES"]
    assert f"location {environment['STILLMOTION_ROOT_PATH']}/ {{" in NGINX
    assert "proxy_pass http://stillmotion:8000/;" in NGINX


def test_nginx_says_what_the_documentation_says() -> None:
    page = ROOT / "docs" / "proxy.md"
    if not page.exists():
        pytest.skip("no page about proxies")
    lines = re.findall(r"^    (proxy_[a-z_]+|client_max_body_size) ([^;#]+);", page.read_text(), re.MULTILINE)
    assert lines
    for name, value in lines:
        if name != "proxy_pass":
            assert f"        {name} {value};\n" in NGINX
