"""The file for nginx that goes with compose.yaml, in a real nginx: HTTPS, under a path."""

from __future__ import annotations

import os
import shutil
import ssl
import subprocess
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from jobs import database
from tests.api.house import House, living
from tests.api.nginx_house import free_port, needed_nginx, nginx

CONFIG = (Path(__file__).parents[2] / "deploy" / "nginx.conf").read_text()
TOKEN = "a secret"


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with fullchain.pem and privkey.pem of 127.0.0.1."""
    needed_nginx()
    if shutil.which("openssl") is None:
        if os.environ.get("CI") == "true":
            pytest.fail("There is no openssl, and where all is tested it must be: apt-get install openssl")
        pytest.skip("there is no openssl here (apt-get install openssl)")
    folder = tmp_path_factory.mktemp("certificate")
    files = ("-keyout", str(folder / "privkey.pem"), "-out", str(folder / "fullchain.pem"))
    named = ("-subj", "/CN=films", "-addext", "subjectAltName=IP:127.0.0.1", "-days", "2")
    kind = ("-x509", "-nodes", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1")
    subprocess.run(["openssl", "req", *kind, *files, *named], check=True, capture_output=True)
    return folder


@pytest.fixture(scope="module")
def behind(certificate: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[House, int, int]]:
    """A server, and nginx's ports for HTTP and HTTPS."""
    folder, plain, secure = tmp_path_factory.mktemp("nginx"), free_port(), free_port()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(database, "_SYNCHRONOUS", "OFF")
        with living(folder / "data", root_path="/films", trusted_proxies=("127.0.0.1",), token=TOKEN) as house:
            changes = {"http://stillmotion:8000": house.url, "/etc/nginx/certs": str(certificate)}
            changes |= {"listen 80;": f"listen 127.0.0.1:{plain};", "listen 443 ssl;": f"listen 127.0.0.1:{secure} ssl;"}
            config = CONFIG
            for old, new in changes.items():
                assert old in config
                config = config.replace(old, new)
            with nginx(folder, config, secure):
                yield house, plain, secure


def test_people_sign_in_over_https_and_make_films(behind: tuple[House, int, int], certificate: Path) -> None:
    _, plain, secure = behind
    url = f"https://127.0.0.1:{secure}"
    trusted = ssl.create_default_context(cafile=str(certificate / "fullchain.pem"))
    with httpx.Client(verify=trusted, trust_env=False, timeout=10) as browser:
        moved = browser.get(f"http://127.0.0.1:{plain}/films/docs")
        assert (moved.status_code, moved.headers["location"]) == (308, "https://127.0.0.1/films/docs")
        assert browser.get(url).headers["location"] == "/films/"
        assert browser.get(f"{url}/films/healthz").json() == {"status": "alive"}
        entered = browser.post(f"{url}/films/login?next=/docs", data={"password": TOKEN}, headers={"Accept": "text/html", "Origin": url})
        assert (entered.status_code, entered.headers["location"]) == (303, "/films/docs")
        assert "Secure" in entered.headers["set-cookie"]
        assert "max-age" in entered.headers["strict-transport-security"]
        made = browser.post(f"{url}/films/api/films", json={"prompt": "a boat"}, headers={"Prefer": "wait=10", "Origin": url})
        assert (made.status_code, made.json()["status"]) == (200, "succeeded")
        film = browser.get(url + made.json()["outputs"][0]["url"])
        assert film.headers["content-type"] == "image/png"
