"""The page as people meet it: a server process with the demo checkpoints, and a real browser on a desk or a phone."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import Browser, BrowserContext, ConsoleMessage, Page, expect, sync_playwright

ROOT = Path(__file__).parent.parent.parent
DESK, PHONE = {"width": 1280, "height": 900}, {"width": 390, "height": 844}
SMALL = {"width": 64, "height": 64, "frames": 3, "steps": 2, "motion_steps": 2}  # a film within seconds
LONG = SMALL | {"steps": 400}  # time enough to look at it while it runs
expect.set_options(timeout=60_000)  # a busy machine loads PyTorch for a while
_ASKED = ("/api/open", "/api/films", "/api/films/batch", "/api/jobs/nonsense")
BROWSERS = ("chromium", "chromium-browser", "google-chrome", "chrome")


class Served:
    """A server process, and where it is."""

    def __init__(self, data_dir: Path, *arguments: object) -> None:
        self.data_dir = data_dir
        command = [sys.executable, str(ROOT / "app.py"), "serve", "--port", "0", "--data-dir", str(data_dir), *map(str, arguments)]
        clean = {name: value for name, value in os.environ.items() if not name.startswith(("STILLMOTION_", "HF_", "SPACE_"))}
        self.log = (data_dir.parent / f"{data_dir.name}.log").open("w+")
        self.process = subprocess.Popen(
            command, env=clean | {"OMP_NUM_THREADS": "1"}, stdout=subprocess.PIPE, stderr=self.log, text=True, cwd=ROOT
        )
        line = self.process.stdout.readline()
        assert line.startswith("Stillmotion is at "), line + Path(self.log.name).read_text()
        self.url = line.split()[-1]
        self.wait_for_the_page()

    def wait_for_the_page(self) -> None:
        """Programs that ask for the page before it is made are answered when it is."""
        with contextlib.suppress(urllib.error.HTTPError):  # those who have not signed in
            urllib.request.urlopen(f"{self.url}theme.css", timeout=120).close()

    def close(self) -> None:
        self.process.send_signal(signal.SIGTERM)
        self.process.send_signal(signal.SIGTERM)
        try:
            self.process.wait(20)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.process.stdout.close()
        self.log.close()


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """One server for all tests of a file."""
    found = Served(tmp_path_factory.mktemp("page") / "data")
    yield found
    found.close()


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    path = next(filter(None, map(shutil.which, BROWSERS)), None)
    if path is None and not os.environ.get("CI"):
        pytest.skip("no Chromium on this machine: apt-get install chromium")
    assert path, "no Chromium: the page cannot be tested"
    with sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=path, args=["--no-sandbox", "--autoplay-policy=no-user-gesture-required"])
        yield started
        started.close()


Visit = Callable[..., Page]


@pytest.fixture
def visit(browser: Browser, served: Served) -> Iterator[Visit]:
    """`visit(path, values, **context)` opens the page as somebody new and waits until it can be used. Whatever the console calls an
    error, and every request to somewhere else, fails the test."""
    contexts: list[BrowserContext] = []
    wrong: list[str] = []
    own = urlsplit(served.url).netloc

    def watch(page: Page) -> None:
        page.set_default_timeout(60_000)
        page.on("console", lambda message: is_wrong(message) and wrong.append(f"console: {message.text} {message.location}"))
        page.on("pageerror", lambda error: wrong.append(f"script: {error}"))
        page.on("request", lambda request: leaves(request.url) and wrong.append(f"leaves the machine: {request.url}"))

    def is_wrong(message: ConsoleMessage) -> bool:
        """Browsers log every refusal; those of what a person has asked for are shown on the page."""
        is_refusal = "status of 4" in message.text and urlsplit(message.location["url"]).path in _ASKED
        return message.type == "error" and not is_refusal

    def leaves(url: str) -> bool:
        return urlsplit(url).scheme not in ("data", "blob") and urlsplit(url).netloc != own

    def open_page(path: str = "", values: dict | None = None, template: str = "text_to_film", **context: object) -> Page:
        contexts.append(browser.new_context(**{"viewport": DESK, "locale": "en-US", "base_url": served.url} | context))
        if values is not None:
            draft = json.dumps(json.dumps({"template": template, "values": values}))
            key = "'stillmotion.draft'"
            contexts[-1].add_init_script(f"sessionStorage.getItem({key}) ?? sessionStorage.setItem({key}, {draft})")
        page = contexts[-1].new_page()
        watch(page)
        page.goto(path or served.url)
        page.wait_for_selector("#sm-make, form[action*=login]")
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert wrong == []
