"""The page as people meet it: a server process with the demo checkpoints, and a real browser on a desk or a phone."""

from __future__ import annotations

import base64
import contextlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import Browser, BrowserContext, ConsoleMessage, Page, expect, sync_playwright

from jobs import database
from tests.api.house import House, living
from ui.page import add_page

ROOT = Path(__file__).parent.parent.parent
DESK, PHONE = {"width": 1280, "height": 900}, {"width": 390, "height": 844}
SMALL = {"width": 64, "height": 64, "frames": 3, "steps": 2, "motion_steps": 2}  # a film within seconds
LONG = SMALL | {"steps": 4000}  # canceled long before its end: a quick machine does 400 while the page loads anew
PATIENCE = 180_000  # milliseconds: a busy machine takes its time, and who waits for what comes soon loses none
expect.set_options(timeout=PATIENCE)
_ASKED = ("/api/open", "/api/films", "/api/films/batch", "/api/jobs/nonsense", "/api/jobs/50%25")
BROWSERS = ("chromium", "chromium-browser", "google-chrome", "chrome")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What drives the page is long, and has a target of its own."""
    for item in (one for one in items if one.path.parent.name == "ui"):
        if {"browser", "working", "served"} & set(getattr(item, "fixturenames", ())):
            item.add_marker("page")


class Served:
    """A server process, and where it is."""

    def __init__(self, data_dir: Path, *arguments: object, login: str = "") -> None:
        """`login`: the name and the password, with a colon between them, of somebody whom it lets in."""
        self.data_dir, self.arguments = data_dir, arguments
        self.headers = {"Authorization": f"Basic {base64.b64encode(login.encode()).decode()}"} if login else {}
        self.log = (data_dir.parent / f"{data_dir.name}.log").open("w+")
        self.start()

    def start(self, port: int = 0) -> None:
        command = [sys.executable, str(ROOT / "app.py"), "serve", "--port", port, "--data-dir", self.data_dir, *self.arguments]
        clean = {name: value for name, value in os.environ.items() if not name.startswith(("STILLMOTION_", "HF_", "SPACE_"))}
        self.process = subprocess.Popen(
            list(map(str, command)), env=clean | {"OMP_NUM_THREADS": "1"}, stdout=subprocess.PIPE, stderr=self.log, text=True, cwd=ROOT
        )
        line = self.process.stdout.readline()
        assert line.startswith("Stillmotion is at "), line + Path(self.log.name).read_text()
        self.url = line.split()[-1]
        self.wait_for_the_page()

    def wait_for_the_page(self) -> None:
        """Programs that ask for the page before it is made are answered when it is."""
        urllib.request.urlopen(urllib.request.Request(f"{self.url}theme.css", headers=self.headers), timeout=PATIENCE / 1000).close()

    def film(self, **values: object) -> str:
        """The id of a film that is made. The first one waits until PyTorch is loaded, however long that takes."""
        headers = {"Content-Type": "application/json", "Prefer": "wait=600"}
        request = urllib.request.Request(f"{self.url}api/films", json.dumps(SMALL | values).encode(), headers)
        with urllib.request.urlopen(request, timeout=620) as answer:
            made = json.load(answer)
        assert made["status"] == "succeeded", made
        return made["id"]

    def stop(self) -> None:
        self.process.send_signal(signal.SIGTERM)
        self.process.send_signal(signal.SIGTERM)
        try:
            self.process.wait(20)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.process.stdout.close()

    def close(self) -> None:
        self.stop()
        self.log.close()


@contextlib.contextmanager
def page_house(folder: Path) -> Iterator[House]:
    """A server in this process whose GPU we are, with its page made."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(database, "_SYNCHRONOUS", "OFF")
        with living(folder, page=add_page) as house:
            assert house.get("/theme.css", timeout=PATIENCE / 1000).status_code == 200
            yield house


@pytest.fixture(scope="session")
def working(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """One server for all files whose tests do not mind each other's films; it has made one."""
    found = Served(tmp_path_factory.mktemp("page") / "data")
    found.film(prompt="A boat")
    yield found
    found.close()


@pytest.fixture
def served(working: Served) -> Served:
    """What `visit` visits; files that want a server of their own put it here."""
    return working


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


def count_jobs(page: Page) -> int:
    """All that were ever asked for."""
    return sum(page.request.get("api/jobs").json()["counts"].values())


@pytest.fixture
def visit(browser: Browser, served: Served | House) -> Iterator[Visit]:
    """What `visiting` gives, on this file's server."""
    with visiting(browser, served.url) as visit:
        yield visit


@contextlib.contextmanager
def visiting(browser: Browser, url: str) -> Iterator[Visit]:
    """`visit(path, values, **context)` opens the page as somebody new and waits until it can be used. Whatever the console calls an
    error, and every request to somewhere else, fails the test."""
    contexts: list[BrowserContext] = []
    wrong: list[str] = []
    own = urlsplit(url).netloc

    def watch(page: Page) -> None:
        page.set_default_timeout(PATIENCE)
        page.on("console", lambda message: is_wrong(message) and wrong.append(f"console: {message.text} {message.location}"))
        page.on("pageerror", lambda error: wrong.append(f"script: {error}"))
        page.on("request", lambda request: leaves(request.url) and wrong.append(f"leaves the machine: {request.url}"))

    def is_wrong(message: ConsoleMessage) -> bool:
        """Browsers log every refusal; those of what a person has asked for are shown on the page. And Gradio logs what it has given up of
        a form that was drawn anew."""
        is_refusal = "status of 4" in message.text and urlsplit(message.location["url"]).path in _ASKED
        is_given_up = re.match("AbortError|Submit function encountered an error: Error: No endpoint matching", message.text)
        return message.type == "error" and not (is_refusal or is_given_up)

    def leaves(url: str) -> bool:
        return urlsplit(url).scheme not in ("data", "blob") and urlsplit(url).netloc != own

    def open_page(path: str = "", values: dict | None = None, template: str = "text_to_film", **context: object) -> Page:
        contexts.append(browser.new_context(**{"viewport": DESK, "locale": "en-US", "base_url": url} | context))
        if values is not None:
            draft = json.dumps(json.dumps({"template": template, "values": values}))
            key = "'stillmotion.draft'"
            contexts[-1].add_init_script(f"sessionStorage.getItem({key}) ?? sessionStorage.setItem({key}, {draft})")
        page = contexts[-1].new_page()
        watch(page)
        page.goto(path or url)
        page.wait_for_selector("#sm-make, form[action*=login]")
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert wrong == []
