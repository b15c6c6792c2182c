"""What a machine can check of the page's accessibility: axe (WCAG 2.1 A and AA) finds nothing, in light and dark, on a desk and a phone."""

from __future__ import annotations

import pytest
from axe_playwright_python.sync_playwright import Axe

from tests.ui.conftest import DESK, PHONE, Visit

_RULES = {"runOnly": {"type": "tag", "values": ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa"]}}


@pytest.mark.parametrize("view", ["create", "queue", "library", "models"])
@pytest.mark.parametrize(("scheme", "size"), [("light", DESK), ("dark", PHONE)], ids=["light-desk", "dark-phone"])
def test_axe_finds_nothing(visit: Visit, view: str, scheme: str, size: dict) -> None:
    page = visit(color_scheme=scheme, viewport=size)
    page.click(f"#sm-nav [data-view={view}]")
    if view == "create":
        for fold in page.locator(".sm-fold > button").all():
            fold.click()
    for details in page.locator(f"#sm-{view} details, #sm-job details").all():
        details.evaluate("one => { one.open = true; }")
    page.wait_for_timeout(400)  # what folds out fades in
    found = Axe().run(page, options=_RULES).response
    assert len(found["passes"]) > 10
    assert [(one["id"], [node["target"] for node in one["nodes"]]) for one in found["violations"]] == []
