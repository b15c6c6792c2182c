"""What a machine can check of the page's accessibility: axe (WCAG 2.1 A and AA) finds nothing, in light and dark, on a desk and a phone."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Page

from tests.api.house import House
from tests.ui.conftest import DESK, PHONE, Visit, page_house

VIEWS = ("create", "queue", "library", "models")
_RULES = {"runOnly": {"type": "tag", "values": ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa"]}}


@pytest.fixture(scope="module")
def served(browser: Browser, tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    with page_house(tmp_path_factory.mktemp("new") / "data") as house:
        yield house


@pytest.mark.parametrize(("scheme", "size"), [("light", DESK), ("dark", PHONE)], ids=["light-desk", "dark-phone"])
def test_axe_finds_nothing(visit: Visit, scheme: str, size: dict) -> None:
    page = visit(color_scheme=scheme, viewport=size)
    assert [(view, one) for view in VIEWS for one in found_in(page, view)] == []


def found_in(page: Page, view: str) -> list[tuple[str, list]]:
    page.click(f"#sm-nav [data-view={view}]")
    if view == "create":
        for fold in page.locator(".sm-fold > button").all():
            fold.click()
    for details in page.locator(f"#sm-{view} details, #sm-job details").all():
        details.evaluate("one => { one.open = true; }")
    page.wait_for_timeout(400)  # what folds out fades in
    found = Axe().run(page, options=_RULES).response
    assert len(found["passes"]) > 10
    return [(one["id"], [node["target"] for node in one["nodes"]]) for one in found["violations"]]
