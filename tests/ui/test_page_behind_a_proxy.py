"""The page under a path of its own, behind a real nginx."""

from __future__ import annotations

from collections.abc import Iterator
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import expect

from tests.api.nginx_house import needed_nginx, nginx_before
from tests.ui.conftest import SMALL, Served, Visit


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """Its `url` is nginx's."""
    needed_nginx()
    folder = tmp_path_factory.mktemp("proxied")
    found = Served(folder / "data", "--root-path", "/films", "--trusted-proxies", "127.0.0.1")
    with nginx_before(found.url.rstrip("/"), folder) as address:
        found.url = f"{address}/"
        yield found
    found.close()


@pytest.mark.demo
def test_a_film_is_made_played_and_found_in_the_library_under_the_proxys_path(visit: Visit) -> None:
    page, paths = visit(values=SMALL), set()
    page.on("request", lambda request: paths.add(urlsplit(request.url).path if request.url.startswith("http") else "/films/"))
    page.reload()
    page.wait_for_selector("#sm-make")
    page.fill("#sm-field-prompt textarea", "A red boat behind a proxy")
    page.click("#sm-make")
    expect(page.locator("#sm-job video.sm-film")).to_be_visible()
    page.wait_for_function("() => document.querySelector('#sm-job video.sm-film').currentTime > 0.05")
    with page.expect_download() as saved:
        page.click(".sm-files a:has-text('MP4')")
    assert saved.value.path().read_bytes()[4:8] == b"ftyp"
    page.click("#sm-nav [data-view=library]")
    expect(page.locator("#sm-library img").first).to_be_visible()
    assert {path for path in paths if not path.startswith("/films/")} == set()
