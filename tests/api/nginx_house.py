"""A real nginx, with the very lines that docs/proxy.md shows or with others."""

from __future__ import annotations

import os
import re
import shutil
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.api.house import until

TEXT = (Path(__file__).parents[2] / "docs" / "proxy.md").read_text()
AROUND = """
daemon off;
{user}
pid {folder}/nginx.pid;
events {{ worker_connections 64; }}
http {{
    access_log off;
    client_body_temp_path {folder}/body; proxy_temp_path {folder}/proxy; fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi; scgi_temp_path {folder}/scgi;
    {config}
}}
"""


def free_port() -> int:
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        return bound.getsockname()[1]


def needed_nginx() -> str:
    """The program. Without one a test is skipped, or fails where all is tested."""
    found = shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin:/usr/local/sbin:/opt/homebrew/bin")
    if found is None and os.environ.get("CI") == "true":
        pytest.fail("There is no nginx, and where all is tested it must be: apt-get install nginx-light")
    return found or pytest.skip("there is no nginx here (apt-get install nginx-light)")


@contextmanager
def nginx_before(url: str, folder: Path) -> Iterator[str]:
    """The address of the server at `url`, as it is behind nginx. `folder` is for nginx's own files."""
    inside, beside = re.findall(r"```nginx\n(.*?)```", TEXT, re.DOTALL)
    port, inside = free_port(), inside.replace("http://127.0.0.1:8000", url)
    assert url in inside
    with nginx(folder, f"{beside} server {{ listen 127.0.0.1:{port}; {inside} }}", port):
        yield f"http://127.0.0.1:{port}/films"


@contextmanager
def nginx(folder: Path, config: str, port: int) -> Iterator[None]:
    """It runs, and listens at `port`. `config`: what stands in `http { ... }`; `folder` is for nginx's own files."""
    program, log = needed_nginx(), folder / "error.log"
    user = "user root;" if os.getuid() == 0 else ""  # else it would not have the rights of whom the folder belongs to
    (folder / "nginx.conf").write_text(AROUND.format(user=user, folder=folder, config=config))
    command = [program, "-p", str(folder), "-e", str(log), "-c", str(folder / "nginx.conf")]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) as started:
        try:
            until(lambda: started.poll() is not None or answers(port))
            assert started.poll() is None, started.stderr.read()
            yield
        finally:
            started.terminate()
    assert "[emerg]" not in log.read_text()


def answers(port: int) -> bool:
    with socket.socket() as asking:
        return asking.connect_ex(("127.0.0.1", port)) == 0
