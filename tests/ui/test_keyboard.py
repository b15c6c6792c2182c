"""The page without a mouse: a real browser, and keys alone."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from playwright.sync_api import Page, expect

from tests.ui.conftest import LONG, Visit, count_jobs

_WHERE = """() => {
  const now = document.activeElement, style = getComputedStyle(now), shown = now.closest("label") ?? now;
  const outlines = [style, getComputedStyle(shown)].filter((one) => one.outlineStyle !== "none" && parseFloat(one.outlineWidth) >= 2);
  return {place: now.closest("[id^=sm-]")?.id ?? "", tag: now.localName, is_seen: outlines.length > 0};
}"""


@pytest.fixture
def opened(visit: Visit) -> Callable[..., Page]:
    """The page, once its own parts are there."""

    def opened(**more: object) -> Page:
        page = visit(**more)
        page.wait_for_selector("#sm-fold-prefix > button[aria-expanded]")
        return page

    return opened


def stops(page: Page) -> list[dict]:
    """Where Tab leads, from the beginning of the page until it leaves it."""
    found = []
    while not found or found[-1]["tag"] != "body":
        page.keyboard.press("Tab")
        found.append(page.evaluate(_WHERE))
        assert len(found) < 200
    return found[:-1]


def test_tab_goes_through_the_page_in_its_order_and_is_always_seen(opened: Callable[..., Page]) -> None:
    page = opened()
    for fold in page.locator(".sm-fold > button").all():
        fold.click()
    page.reload()
    for name in ("steps", "motion_steps", "crf"):
        expect(page.locator(f"#sm-field-{name}")).to_be_visible()  # what was open is open again
    page.evaluate("document.activeElement.blur()")
    found = stops(page)
    assert [one for one in found if not one["is_seen"]] == []
    places = list(dict.fromkeys(one["place"] for one in found))
    wanted = ["sm-nav", "sm-template", "sm-open", "sm-field-prompt", "sm-paces", "sm-field-motion_bucket_id", "sm-field-frames"]
    wanted += ["sm-fold-negative_prompt", "sm-field-width", "sm-fold-motion_checkpoint", "sm-fold-prefix", "sm-field-metadata", "sm-make"]
    assert [one for one in places if one in wanted] == wanted
    assert sum(one["place"] == "sm-paces" for one in found) == 1  # one question, one stop


def test_arrows_choose_the_motion(opened: Callable[..., Page]) -> None:
    page = opened()
    page.locator("#sm-paces input:checked").focus()
    page.keyboard.press("ArrowRight")
    expect(page.locator("#sm-field-motion_bucket_id input")).to_have_value("200")
    page.keyboard.press("ArrowLeft")
    page.keyboard.press("ArrowLeft")
    expect(page.locator("#sm-field-motion_bucket_id input")).to_have_value("40")
    expect(page.locator("#sm-paces input").nth(0)).to_be_focused()


@pytest.mark.parametrize("key", ["Enter", "Space"])
def test_folds_open_and_close_and_say_so(opened: Callable[..., Page], key: str) -> None:
    page = opened()
    fold = page.locator("#sm-fold-negative_prompt > button")
    expect(fold).to_have_attribute("aria-expanded", "false")
    fold.focus()
    page.keyboard.press(key)
    expect(page.locator("#sm-field-steps")).to_be_visible()
    expect(fold).to_have_attribute("aria-expanded", "true")
    page.keyboard.press(key)
    expect(page.locator("#sm-field-steps")).to_be_hidden()


def test_another_template_and_another_language_leave_the_keyboard_and_the_folds_where_they_were(opened: Callable[..., Page]) -> None:
    page = opened()
    template, folded = page.locator("#sm-template input"), page.locator("#sm-field-prefix")  # which all templates have
    page.locator("#sm-fold-prefix > button").focus()
    page.keyboard.press("Enter")
    expect(folded).to_be_visible()
    template.focus()
    page.keyboard.press("ArrowDown")
    expect(page.get_by_role("option").first).to_be_visible()
    page.keyboard.press("Escape")
    expect(page.get_by_role("option")).to_have_count(0)
    for _ in range(3):
        page.keyboard.press("ArrowDown")
    page.keyboard.press("Enter")
    expect(template).not_to_have_value("Text to film")
    expect(page.locator("#sm-field-frames, #sm-field-count, #sm-field-image, #sm-field-film").first).to_be_visible()
    expect(folded).to_be_visible()
    page.locator("#sm-header button[lang]").focus()
    page.keyboard.press("Enter")
    expect(page.locator("#sm-fold-prefix > button")).to_contain_text("文件")
    expect(folded).to_be_visible()
    expect(page.locator("#sm-header button[lang]")).to_be_focused()
    page.locator("#sm-theme").focus()
    page.keyboard.press("Space")
    expect(page.locator("#sm-theme")).to_be_focused()


def test_escape_closes_what_was_said_and_ctrl_enter_makes_a_film_where_the_form_is(opened: Callable[..., Page]) -> None:
    page = opened(values=LONG | {"steps": 0})
    before = count_jobs(page)
    page.locator("#sm-field-prompt textarea").focus()
    page.keyboard.press("Control+Enter")
    expect(page.locator("#sm-field-steps .sm-lacks")).to_contain_text("0 is less than 1")
    expect(page.locator("#sm-field-steps input")).to_be_focused()
    page.locator("[data-act=reset]").focus()
    page.keyboard.press("Enter")
    expect(page.locator(".sm-toast")).to_contain_text("as the template has it")
    page.keyboard.press("Escape")
    expect(page.locator(".sm-toast")).to_have_count(0)
    page.locator("#sm-nav [data-view=queue]").focus()
    page.keyboard.press("Enter")
    page.keyboard.press("Control+Enter")
    page.locator("#sm-nav [data-view=create]").focus()
    page.keyboard.press("Enter")
    expect(page.locator("#sm-make")).to_be_visible()
    assert count_jobs(page) == before
