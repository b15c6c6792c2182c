"""The library: a hundred films that were made before, in a real browser."""

from __future__ import annotations

import io
import re
import time
import zipfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from playwright.sync_api import Page, expect

from jobs.job import Outcome, Output, Submission
from jobs.store import JobStore
from pipelines.encode import save_png, save_video
from tests.ui.conftest import PHONE, SMALL, Served, Visit
from workflows.templates import fill, find_template

pytestmark = pytest.mark.demo
SEED = 2**64 - 1
COUNT = 110  # more than two pages
SIZES = {"a": (64, 64), "b": (64, 96)}


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """Every third is a still; the newest is called "boat 0"."""
    data_dir = tmp_path_factory.mktemp("library") / "data"
    outputs = write_results(data_dir / "output")
    store, template, now = JobStore(data_dir / "jobs.sqlite"), find_template("text_to_film"), time.time()
    for n in reversed(range(COUNT)):
        graph = fill(template, SMALL | {"prompt": f"boat {n}", "seed": SEED - n, "motion_seed": 5})
        files = outputs["ab"[n % 2]][: 1 if n % 3 == 2 else 2]
        more = {"title": f"boat {n}", "tags": ("sea",) if n < 2 else (), "job_id": f"j{n}", "extra": {"template": "text_to_film"}}
        outcome = Outcome(files=tuple(files), device="cpu", stage_seconds={"still": 5.0, "motion": 12.0}, peak_bytes=10**9)
        store.restore(Submission(graph, **more), outcome, now - n * 3600)
    store.close()
    found = Served(data_dir)
    yield found
    found.close()


def write_results(folder: Path) -> dict[str, list[Output]]:
    folder.mkdir(parents=True)
    outputs = {}
    for name, (height, width) in SIZES.items():
        frames = np.linspace(0.2, 0.8, 7, dtype=np.float32)[:, None, None, None] * np.ones((7, height, width, 3), np.float32)
        still = save_png(frames[0], folder / f"{name}_.png", None)
        film = save_video(frames, folder / f"{name}.mp4", format="video/h264-mp4", fps=7, metadata=None)
        outputs[name] = [Output("9", "images", still.name, bytes=9), Output("19", "gifs", film.name, bytes=still.stat().st_size)]
    return outputs


def library(visit: Visit, **context: object) -> Page:
    page = visit(**context)
    page.click("[data-view=library]")
    expect(page.locator(".sm-tile").first).to_be_visible()
    return page


def titles(page: Page) -> list[str]:
    return page.locator(".sm-tile:visible .sm-caption").all_inner_texts()


def videos(page: Page) -> int:
    return page.locator("#sm-library video").count()


def test_posters_come_in_pages_while_one_scrolls(visit: Visit) -> None:
    page = library(visit)
    assert titles(page)[:3] == ["boat 0", "boat 1", "boat 2"]
    assert page.locator(".sm-tile").count() < COUNT
    assert re.match("today", page.locator(".sm-day h3").first.inner_text(), re.IGNORECASE)
    for _ in range(30):
        page.mouse.wheel(0, 4000)
        if page.locator(".sm-library-keys").count():
            break
        page.wait_for_timeout(100)
    expect(page.locator(".sm-tile")).to_have_count(COUNT)
    assert page.locator(".sm-tile").evaluate_all("tiles => new Set(tiles.map(tile => tile.dataset.job)).size") == COUNT


def test_one_film_plays_where_the_pointer_is_and_none_elsewhere(visit: Visit) -> None:
    page = library(visit)
    page.locator(".sm-poster").nth(0).hover()
    page.wait_for_function("document.querySelector('#sm-library video')?.currentTime > 0.05")
    page.locator(".sm-poster").nth(1).hover()
    expect(page.locator(".sm-tile").nth(1).locator("video")).to_have_count(1)
    assert videos(page) == 1
    page.mouse.move(5, 5)
    expect(page.locator("#sm-library video")).to_have_count(0)


def test_a_tap_plays_and_a_second_opens(visit: Visit) -> None:
    page = library(visit, viewport=PHONE, is_mobile=True, has_touch=True)
    poster = page.locator(".sm-poster").first
    poster.tap()
    expect(poster.locator("video")).to_have_count(1)
    poster.tap()
    expect(page.locator(".sm-player video")).to_be_visible()
    assert videos(page) == 1
    assert page.evaluate("document.documentElement.scrollWidth") <= PHONE["width"]


def test_words_chips_and_tags_narrow_it_down(visit: Visit) -> None:
    page = library(visit)
    page.fill(".sm-library-search", "boat 10")
    expect(page.locator(".sm-tile")).to_have_count(11)  # 10, and 100 to 109
    page.click(".sm-chip:has-text('Stills')")
    expect(page.locator(".sm-tile")).to_have_count(3)
    page.fill(".sm-library-search", "zeppelin")
    expect(page.locator(".sm-empty")).to_contain_text("Nothing here is like that.")
    page.click("text=Show all")
    expect(page.locator(".sm-tile").first).to_be_visible()
    page.locator(".sm-poster").first.click()
    page.click(".sm-player .sm-chip:has-text('sea')")
    expect(page.locator(".sm-tile")).to_have_count(2)


def test_everything_is_told_and_no_seed_is_rounded(visit: Visit) -> None:
    page = library(visit)
    page.locator(".sm-poster").first.click()
    page.wait_for_function("document.querySelector('.sm-player video').currentTime > 0.05")
    page.click(".sm-details summary")
    details = page.locator(".sm-details")
    expect(details).to_contain_text(str(SEED))
    for text in ("motion_bucket_id", "still 5 s", "cpu", "1 GB", "j0"):
        expect(details).to_contain_text(text)
    page.click("button:has-text('中文')")
    expect(details).to_contain_text("首帧种子")


def test_it_works_with_the_keyboard_alone(visit: Visit) -> None:
    page = library(visit)
    page.locator(".sm-poster").first.focus()
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowDown")
    page.keyboard.press("ArrowUp")
    page.keyboard.press("f")
    expect(page.locator("[data-job=j1] .sm-star")).to_have_attribute("aria-pressed", "true")
    page.keyboard.press("f")
    expect(page.locator("[data-job=j1] .sm-star")).to_have_attribute("aria-pressed", "false")
    page.keyboard.press("Enter")
    expect(page.locator(".sm-player h2")).to_have_text("boat 1")
    page.keyboard.press("ArrowRight")
    expect(page.locator(".sm-player h2")).to_have_text("boat 2")
    page.keyboard.press("ArrowLeft")
    page.keyboard.press("ArrowLeft")
    expect(page.locator(".sm-player h2")).to_have_text("boat 0")
    page.keyboard.press("Delete")
    expect(page.locator(".sm-player h2")).to_have_text("boat 1")
    page.click(".sm-toast >> text=Undo")
    expect(page.locator(".sm-player h2")).to_have_text("boat 0")
    page.keyboard.press("Escape")
    assert page.evaluate("document.activeElement.closest('.sm-tile').dataset.job") == "j0"


def test_the_browser_finds_back_and_a_film_has_an_address(visit: Visit) -> None:
    page, title = library(visit), ".sm-player h2"
    page.locator(".sm-poster").nth(1).click()
    expect(page.locator(title)).to_have_text("boat 1")
    page.keyboard.press("ArrowRight")
    expect(page.locator(title)).to_have_text("boat 2")
    assert page.url.endswith("#library/j2")
    page.click("[data-view=queue]")
    page.go_back()
    expect(page.locator(title)).to_have_text("boat 2")
    page.go_back()
    expect(page.locator(".sm-tile").first).to_be_visible()
    expect(page.locator(title)).to_have_count(0)
    page.go_forward()
    expect(page.locator(title)).to_have_text("boat 2")
    page.reload()
    expect(page.locator(title)).to_have_text("boat 2")
    page.keyboard.press("Escape")
    expect(page.locator(".sm-tile").first).to_be_visible()
    page.click("[data-view=create]")
    expect(page.locator("#sm-make")).to_be_visible()


def test_a_film_that_is_not_there_is_said(visit: Visit) -> None:
    page = visit()
    page.goto(f"{page.url}#library/50%")  # as somebody types it
    expect(page.locator(".sm-toast")).to_contain_text("There is no such film")
    expect(page.locator(".sm-tile").first).to_be_visible()


def test_the_address_of_a_deleted_film_says_so_and_brings_it_back(visit: Visit) -> None:
    page = visit()
    page.request.delete("api/jobs/j9")
    page.goto(f"{page.url}#library/j9")
    expect(page.locator(".sm-toast")).to_contain_text("Deleted: boat 9")
    page.click(".sm-toast >> text=Undo")
    expect(page.locator(".sm-player h2")).to_have_text("boat 9")


def test_several_are_saved_as_a_zip_and_deleted_with_undo(visit: Visit) -> None:
    page = library(visit)
    for place in (2, 3):
        page.locator(".sm-tile").nth(place).hover()
        page.locator(".sm-choose input").nth(place).check()
    with page.expect_download() as saved:
        page.click(".sm-tray >> text=ZIP")
    with zipfile.ZipFile(io.BytesIO(saved.value.path().read_bytes())) as made:
        assert made.namelist() == ["a_.png", "a_.settings.json", "b_.png", "b.mp4", "b_.settings.json"]
    page.click(".sm-tray >> text=Delete")
    expect(page.locator(".sm-tile").nth(2)).to_be_hidden()
    assert titles(page)[2] == "boat 4"
    page.click(".sm-toast >> text=Undo")
    expect(page.locator(".sm-tile").nth(2)).to_be_visible()
    page.reload()
    expect(page.locator(".sm-tile").nth(2)).to_contain_text("boat 2")


def test_two_play_in_step_and_their_likeness_is_told(visit: Visit) -> None:
    page = library(visit)
    page.locator(".sm-poster").nth(4).focus()
    for _ in range(2):
        page.keyboard.press("x")
        page.keyboard.press("ArrowRight")
        page.keyboard.press("ArrowRight")
    page.click(".sm-tray >> text=Compare")
    times = "[...document.querySelectorAll('.sm-compare video')].map(one => one.currentTime)"
    page.wait_for_function(f"{times}.length == 2 && {times}.every(time => time > 0.1)")
    first, second = page.evaluate(times)
    assert abs(first - second) < 0.1
    expect(page.locator(".sm-compare")).to_contain_text("Identical: every pixel of every frame.")
    expect(page.locator(".sm-compare table")).to_contain_text(str(SEED - 6))
    assert page.url.endswith("#library/j4/j6")
    page.reload()
    expect(page.locator(".sm-compare table")).to_contain_text(str(SEED - 6))
    page.keyboard.press("Escape")
    expect(page.locator(".sm-tile").first).to_be_visible()
    assert videos(page) == 0


def test_films_stand_on_the_pages_own_background() -> None:
    """Black bars are no part of a film."""
    style = (Path(__file__).parents[2] / "assets" / "page" / "library.css").read_text("utf-8")
    grounds = re.findall(r"^\.sm-(?:player-media|compare figure video)\b[^{]*\{[^}]*background: ([^;]*);", style, re.MULTILINE)
    assert grounds == ["var(--sm-raised)"] * 2
