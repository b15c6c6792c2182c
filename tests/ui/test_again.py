"""From one result to the next: more motion, the same still anew, a longer film, stills to choose from, the same once more."""

from __future__ import annotations

import json
import re

import pytest
from playwright.sync_api import Page, expect

from tests.ui.conftest import SMALL, Served, Visit

pytestmark = pytest.mark.demo


def job_of(page: Page) -> str:
    return re.search(r"job=([\w-]+)", page.url)[1]


def made(page: Page, served: Served, before: str = "") -> dict:
    """The job that is shown, once its film is."""
    page.wait_for_function("before => location.search.includes('job=') && !(before && location.search.includes(before))", arg=before)
    expect(page.locator(f'#sm-job[data-job="{job_of(page)}"] .sm-again')).to_be_visible()
    return page.request.get(f"{served.url}api/jobs/{job_of(page)}").json()


def test_what_is_kept_is_not_made_again(visit: Visit, served: Served) -> None:
    page = visit(values=SMALL | {"seed": "5", "motion_seed": "6"})
    page.fill("#sm-field-prompt textarea", "A red rocket in the sky")
    page.click("#sm-make")
    first = made(page, served)
    page.click("[data-act=more]")
    second = made(page, served, first["id"])
    graph = json.loads(page.request.get(f"{served.url}api/jobs/{second['id']}/workflow").text())
    assert (graph["3"]["inputs"]["seed"], graph["13"]["inputs"]["seed"]) == (5, 6)
    assert graph["16"]["inputs"]["motion_bucket_id"] == 144  # 1.6 times
    assert "3" in second["cached"]  # the still was there
    page.click("[data-act=keep]")
    third = made(page, served, second["id"])
    graph = json.loads(page.request.get(f"{served.url}api/jobs/{third['id']}/workflow").text())
    assert graph["3"]["inputs"]["seed"] == 5
    assert graph["13"]["inputs"]["seed"] != 6
    assert first["title"] == second["title"] == third["title"] == "A red rocket in the sky"
    page.click("[data-act=extend]")
    expect(page.locator("#sm-template input")).to_have_value("Extend a film")
    expect(page.locator("#sm-toasts")).to_contain_text("goes on with this film")
    expect(page.locator("#sm-field-film input")).to_have_value(re.compile(r"\.mp4 \[output\]$"))
    for name, value in {"frames": "3", "motion_steps": "2", "motion_bucket_id": "144"}.items():  # as the film has them
        expect(page.locator(f"#sm-field-{name} input")).to_have_value(value)
    page.click("#sm-make")
    longer = made(page, served, third["id"])
    assert (longer["status"], longer["title"]) == ("succeeded", "A red rocket in the sky")


def test_the_still_is_chosen_before_the_film_is_paid_for(visit: Visit, served: Served) -> None:
    small = {name: SMALL[name] for name in ("width", "height", "steps")}
    page = visit(values=small | {"count": 3}, template="stills_to_choose")
    page.fill("#sm-field-prompt textarea", "A yellow car in the city")
    page.click("#sm-make")
    expect(page.locator(".sm-choice img")).to_have_count(3)
    button = page.locator(".sm-choices button")
    expect(button).to_be_disabled()
    page.locator(".sm-choice input").nth(1).check()
    chosen = page.locator(".sm-choice img").nth(1).get_attribute("src")
    button.click()
    expect(page.locator(".sm-steps")).to_be_visible()
    graph = json.loads(page.request.get(f"{served.url}api/jobs/{job_of(page)}/workflow").text())
    picture = next(one["inputs"]["image"] for one in graph.values() if one["class_type"] == "LoadImage")
    assert picture.removesuffix(" [output]") in chosen.replace("%2F", "/")
    film = next(one["inputs"] for one in graph.values() if one["class_type"] == "SVD_img2vid_Conditioning")
    assert (film["width"], film["height"]) == (SMALL["width"], SMALL["height"])  # the still's size
    page.click("[data-act=cancel]")


def test_a_film_that_is_verified_comes_out_the_same(visit: Visit, served: Served) -> None:
    page = visit()
    page.click("#sm-nav [data-view=library]")
    expect(page.locator(".sm-tile").first).to_be_visible()
    made = served.film(prompt="A boat that is verified")
    poster = page.locator(f"[data-job='{made}'] .sm-poster")
    expect(poster).to_be_visible()  # it came while one looked
    poster.click()
    page.click("[data-act=verify]")
    expect(page.locator(".sm-player-check")).to_have_text("Identical: every pixel of every frame.")
    page.keyboard.press("Escape")
    titles = page.locator(".sm-tile:visible .sm-caption").all_inner_texts()
    assert titles.count("A boat that is verified") == 1  # the second one is not kept
