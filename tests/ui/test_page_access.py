"""Who may see the page, and what it does when the server is gone for a while."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import Browser, Page, expect

from tests.ui.conftest import DESK, PATIENCE, ROOT, Served, Visit


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """With two users, anna and ben; the first may do everything."""
    data = tmp_path_factory.mktemp("users") / "data"
    for name, *more in (("anna", "--admin"), ("ben",)):
        command = [sys.executable, "app.py", "user", "add", name, *more, "--data-dir", str(data)]
        subprocess.run(command, input=f"{name} has a password\n", text=True, check=True, cwd=ROOT, capture_output=True)
    found = Served(data, "--users", data / "users.json", login="anna:anna has a password")
    yield found
    found.close()


def sign_in(page: Page, name: str) -> None:
    page.fill("input[name=username]", name)
    page.fill("input[name=password]", f"{name} has a password")
    page.click("form button")
    page.wait_for_selector("#sm-make")


def test_who_has_signed_in_sees_only_what_is_his_and_can_sign_out(visit: Visit) -> None:
    anna, ben = visit(), visit()
    expect(anna.locator("form button")).to_have_text("Sign in")
    sign_in(anna, "anna")
    sign_in(ben, "ben")
    ben.fill("#sm-field-prompt textarea", "ben's secret")
    ben.click("#sm-make")
    expect(ben.locator(".sm-title")).to_have_text("ben's secret")
    job = re.search(r"job=([\w-]+)", ben.url)[1]
    ben.click("[data-act=cancel]")
    ben.click(".sm-out button")
    expect(ben.locator("input[name=password]")).to_be_visible()
    sign_in(ben, "ben")
    assert ben.request.get(f"api/jobs/{job}").status == 200
    assert anna.request.get(f"api/jobs/{job}").status == 200  # an admin sees all
    assert visit().request.get(f"api/jobs/{job}").status == 401


def test_a_server_that_is_gone_is_said_and_found_again(browser: Browser, served: Served) -> None:
    """By who had signed in before: it knows him again."""
    context = browser.new_context(viewport=DESK, locale="en-US")
    page = context.new_page()
    page.set_default_timeout(PATIENCE)
    page.goto(served.url)
    sign_in(page, "ben")
    page.fill("#sm-field-prompt textarea", "typed before it went")
    page.wait_for_timeout(300)  # Gradio tells of what was typed a little later
    port = urlsplit(served.url).port
    page.evaluate("window.isOfTheOldServer = true")
    served.stop()
    page.evaluate("window.dispatchEvent(new Event('offline'))")  # what a browser says when its line is gone: it looks at once
    expect(page.locator("#sm-connection")).to_contain_text("cannot be reached")
    served.start(port)
    page.wait_for_function("() => !window.isOfTheOldServer")  # it has loaded itself anew
    expect(page.locator("#sm-connection")).to_be_hidden()
    page.wait_for_selector("#sm-make")
    expect(page.locator("#sm-field-prompt textarea")).to_have_value("typed before it went")
    page.click("#sm-make")  # the form is the new server's
    expect(page.locator(".sm-title")).to_have_text("typed before it went")
    page.click("[data-act=cancel]")
    context.close()
