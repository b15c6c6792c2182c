"""The page, from the sentence to the film that plays: a real server, real models, a real browser."""

from __future__ import annotations

import re

import pytest
from playwright.sync_api import Page, expect

from tests.ui.conftest import LONG, PHONE, SMALL, Served, Visit, count_jobs

pytestmark = pytest.mark.demo


def make(page: Page, prompt: str) -> None:
    page.fill("#sm-field-prompt textarea", prompt)
    page.click("#sm-make")
    expect(page.locator(".sm-title")).to_have_text(prompt)


def plays(page: Page) -> None:
    """The film runs: its time moves, and it is of the size that was asked for."""
    film = page.locator("#sm-job video.sm-film")
    expect(film).to_be_visible()
    page.wait_for_function("() => document.querySelector('#sm-job video.sm-film').currentTime > 0.05")
    assert film.evaluate("video => [video.videoWidth, video.videoHeight]") == [64, 64]


@pytest.mark.parametrize("device", [{}, {"viewport": PHONE, "is_mobile": True, "has_touch": True}], ids=["desk", "phone"])
def test_a_sentence_becomes_a_film_that_plays(visit: Visit, device: dict) -> None:
    page = visit(values=SMALL, **device)
    make(page, f"A red boat on the sea, {len(device)}")
    plays(page)
    names = page.locator(".sm-files a").all_inner_texts()
    assert [name.split()[0] for name in names] == ["PNG", "WEBP", "MP4", "Settings"]
    with page.expect_download() as saved:
        page.click(".sm-files a:has-text('MP4')")
    assert saved.value.path().read_bytes()[4:8] == b"ftyp"
    button = page.locator("#sm-make").bounding_box()
    assert button["y"] + button["height"] <= page.viewport_size["height"]  # in reach


def test_a_job_survives_its_tab_is_seen_by_another_and_cancel_cancels(visit: Visit) -> None:
    page = visit(values=LONG)
    make(page, "A job that takes its time")
    expect(page.locator(".sm-now")).to_have_text(re.compile(r"still.*\d+/4000"))
    page.reload()
    expect(page.locator(".sm-now")).to_have_text(re.compile(r"still.*\d+/4000"))
    page.close()
    other = visit()  # another browser, another device
    expect(other.locator(".sm-title")).to_have_text("A job that takes its time")
    other.click("[data-act=cancel]")
    expect(other.locator(".sm-under")).to_contain_text("Canceled.")


def test_what_a_film_will_cost_is_asked_anew_when_the_queue_changes(visit: Visit) -> None:
    page = visit(values=SMALL)
    expect(page.locator("#sm-cost")).to_contain_text("≈")
    expect(page.locator("#sm-badge")).to_have_text("")
    with page.expect_response("**/gradio_api/run/predict") as asked:
        other = page.request.post("api/films", data=LONG | {"prompt": "Somebody's, while the form is left alone"}).json()["id"]
        expect(page.locator("#sm-badge")).to_have_text("1")
    assert "≈" in asked.value.text()
    with page.expect_response("**/gradio_api/run/predict") as asked:
        page.request.post(f"api/jobs/{other}/cancel")
        expect(page.locator("#sm-badge")).to_have_text("")
    assert "≈" in asked.value.text()


def test_ctrl_enter_makes_it_and_a_seed_that_browsers_would_round_is_kept(visit: Visit, served: Served) -> None:
    page = visit(values=SMALL | {"seed": "9007199254740993"})
    page.fill("#sm-field-prompt textarea", "A green train")
    page.keyboard.press("Control+Enter")
    expect(page.locator("#sm-job video.sm-film")).to_be_visible()
    address = page.locator(".sm-files a:has-text('Settings')").get_attribute("href")
    assert '"seed": 9007199254740993' in page.request.get(served.url.rstrip("/") + address).text()


def test_the_language_is_the_browsers_can_be_changed_and_is_remembered(visit: Visit) -> None:
    page = visit(locale="zh-CN")
    expect(page.locator("#sm-make")).to_have_text("生成视频")
    expect(page.locator("#sm-nav")).to_contain_text("队列")
    page.fill("#sm-field-prompt textarea", "what was typed stays")
    page.click("button:has-text('English')")
    expect(page.locator("#sm-make")).to_have_text("Make the film")
    expect(page.locator("#sm-nav")).to_contain_text("Queue")
    expect(page.locator("#sm-field-prompt textarea")).to_have_value("what was typed stays")
    expect(page.locator("#sm-estimate")).not_to_contain_text("cannot")
    page.reload()
    expect(page.locator("#sm-make")).to_have_text("Make the film")


def test_another_template_keeps_what_both_have_and_is_remembered(visit: Visit) -> None:
    page = visit()
    page.fill("#sm-field-prompt textarea", "A train")
    page.fill("#sm-field-frames input", "9")
    page.click("#sm-template input")
    page.get_by_role("option", name="Text to still").click()
    expect(page.locator("#sm-make")).to_have_text("Make the still")
    expect(page.locator("#sm-field-prompt textarea")).to_have_value("A train")
    expect(page.locator("#sm-estimate")).not_to_contain_text("cannot")
    page.click("button:has-text('中文')")
    expect(page.locator("#sm-make")).to_have_text("生成图片")
    page.reload()
    expect(page.locator("#sm-make")).to_have_text("生成图片")
    page.click("#sm-template input")
    page.get_by_role("option", name="文字生成视频").click()
    expect(page.locator("#sm-field-frames input")).to_have_value("9")


@pytest.mark.parametrize("template", ["Still to film", "Extend a film"])
def test_a_form_that_waits_for_a_file_is_the_same_after_a_reload(visit: Visit, template: str) -> None:
    page = visit()
    page.click("#sm-template input")
    page.get_by_role("option", name=template).click()
    expect(page.locator("#sm-template input")).to_have_value(template)
    expect(page.locator("#sm-field-prompt")).to_have_count(0)
    page.wait_for_timeout(1000)  # the form that was there says farewell, and must not be taken for this one
    page.reload()
    expect(page.locator("#sm-field-frames input")).to_have_value("14")
    expect(page.locator("#sm-template input")).to_have_value(template)
    expect(page.locator(".sm-crop img")).to_have_count(0)
    page.click("#sm-template input")
    page.get_by_role("option", name="Text to still").click()
    expect(page.locator("#sm-make")).to_have_text("Make the still")


def test_what_settings_have_replaced_can_be_had_back(visit: Visit, served: Served) -> None:
    page = visit(f"?job={served.film(prompt='A boat that was made before')}")
    page.fill("#sm-field-prompt textarea", "My own words")
    page.wait_for_function("() => sessionStorage['stillmotion.draft']?.includes('My own words')")
    page.click("[data-act=remake]")
    expect(page.locator("#sm-field-prompt textarea")).not_to_have_value("My own words")
    page.click(".sm-toast >> text=Undo")
    expect(page.locator("#sm-field-prompt textarea")).to_have_value("My own words")


def test_on_a_phone_what_to_make_has_the_whole_width(visit: Visit) -> None:
    page = visit(viewport=PHONE, is_mobile=True, has_touch=True)
    assert page.locator("#sm-template").bounding_box()["width"] > 0.85 * PHONE["width"]
    assert page.evaluate("document.documentElement.scrollWidth") <= PHONE["width"]


def test_a_form_that_was_filled_goes_back_to_what_the_template_has(visit: Visit) -> None:
    page = visit()
    page.fill("#sm-field-prompt textarea", "A train")
    page.fill("#sm-field-frames input", "9")
    page.wait_for_function("() => sessionStorage['stillmotion.draft']?.includes('A train')")
    page.click("[data-act=reset]")
    expect(page.locator("#sm-field-frames input")).to_have_value("14")
    expect(page.locator("#sm-toasts")).to_contain_text("as the template has it")
    page.click(".sm-toast >> text=Undo")
    expect(page.locator("#sm-field-prompt textarea")).to_have_value("A train")
    expect(page.locator("#sm-field-frames input")).to_have_value("9")
    page.click("[data-act=reset]")
    expect(page.locator("#sm-field-frames input")).to_have_value("14")
    page.reload()
    expect(page.locator("#sm-field-frames input")).to_have_value("14")
    expect(page.locator("#sm-field-prompt textarea")).not_to_have_value("A train")
    expect(page.locator("#sm-field-seed textarea, #sm-field-seed input")).to_have_attribute("placeholder", "random")


@pytest.mark.parametrize(("locale", "says"), [("en-US", "Say what the film shows."), ("zh-CN", "请写下视频要展示的内容。")])
def test_an_empty_prompt_is_not_queued_and_said_at_its_field(visit: Visit, locale: str, says: str) -> None:
    page = visit(values=SMALL, locale=locale)
    before = count_jobs(page)
    field = page.locator("#sm-field-prompt textarea")
    field.fill("  ")
    page.click("#sm-make")
    expect(page.locator("#sm-field-prompt .sm-lacks")).to_have_text(says)
    expect(field).to_be_focused()
    expect(field).to_have_attribute("aria-invalid", "true")
    assert count_jobs(page) == before
    field.fill("A boat")
    expect(page.locator("#sm-field-prompt .sm-lacks")).to_have_count(0)
    page.click("#sm-make")
    expect(page.locator(".sm-title")).to_have_text("A boat")


def test_a_size_that_becomes_another_and_a_part_of_a_frame_are_said_while_they_are_typed(visit: Visit) -> None:
    page = visit(values=SMALL)
    page.click(".sm-fold > button:has-text('Still')")
    page.fill("#sm-field-width input", "100")
    expect(page.locator("#sm-estimate")).to_contain_text("100x64 pixels become 96x64")
    page.fill("#sm-field-frames input", "14.7")
    expect(page.locator("#sm-estimate")).to_contain_text("14.7 is no whole number; use 14 or 15")
    page.click("#sm-make")
    expect(page.locator("#sm-field-frames .sm-lacks")).to_contain_text("use 14 or 15")
    page.fill("#sm-field-frames input", "3")
    page.click("#sm-make")
    expect(page.locator(".sm-title")).to_be_in_viewport()  # the unfolded form is longer than the window
    expect(page.locator(".sm-lacks")).to_have_count(0)


def test_what_a_form_asks_that_was_drawn_anew_changes_nothing(visit: Visit) -> None:
    page = visit(values=SMALL)
    with page.expect_request("**/gradio_api/run/predict") as asked:
        page.fill("#sm-field-frames input", "5")
    told = asked.value.post_data_json | {"fn_index": 99_999}
    answer = page.request.post("gradio_api/run/predict", data=told)
    assert (answer.status, answer.json()) == (200, {"data": [], "is_generating": False})
    assert page.request.post("gradio_api/run/predict", data=told | {"session_hash": "nobody"}).status == 500


def test_browsers_ask_whether_a_part_of_the_page_is_new(visit: Visit) -> None:
    page = visit()
    first = page.request.get("page/main.js")
    assert first.headers["cache-control"] == "no-cache"
    again = page.request.get("page/main.js", headers={"If-None-Match": first.headers["etag"]})
    assert (again.status, again.headers["cache-control"]) == (304, "no-cache")
    folds = page.locator(".sm-fold").evaluate_all("all => all.map((one) => getComputedStyle(one).overflowX)")
    assert set(folds) == {"visible"}  # no scroll bars of their own


def test_the_usual_size_is_named_only_if_it_is_the_one(visit: Visit) -> None:
    page = visit()
    page.click(".sm-fold > button:has-text('Still')")
    size = page.locator("#sm-sizes input")
    expect(size).to_have_value("192 x 192")
    page.fill("#sm-field-width input", "72")
    expect(size).to_have_value("")
    page.fill("#sm-field-width input", "256")
    expect(size).to_have_value("256 x 192")


@pytest.mark.parametrize("device", [{}, {"viewport": PHONE, "is_mobile": True, "has_touch": True}], ids=["desk", "phone"])
def test_what_is_wrong_is_said_where_it_is_before_anything_begins(visit: Visit, device: dict) -> None:
    page = visit(values=SMALL | {"seed": "seven"}, **device)
    before = count_jobs(page)
    page.click("#sm-make")
    field = page.locator("#sm-field-seed")  # it stands in a group that was folded
    expect(field.locator("input, textarea")).to_be_focused()
    expect(field.locator(".sm-lacks")).to_contain_text("'seven' is no whole number")
    expect(field.locator(".sm-lacks")).to_be_in_viewport(ratio=1)
    expect(page.locator(".sm-toast")).to_have_count(0)  # it would cover a part of the form
    assert count_jobs(page) == before
    field.locator("input, textarea").fill("7")
    expect(field.locator(".sm-lacks")).to_have_count(0)


def test_what_is_wrong_is_said_in_chinese(visit: Visit) -> None:
    page = visit(values=SMALL | {"seed": "seven"}, locale="zh-CN")
    page.click("#sm-make")
    expect(page.locator("#sm-field-seed .sm-lacks")).to_contain_text("'seven' 不是整数")
