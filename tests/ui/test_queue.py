"""The queue's panel in a real browser, on a server whose GPU we are."""

from __future__ import annotations

import zipfile
from collections.abc import Iterator

import numpy as np
import pytest
from playwright.sync_api import Browser, Locator, Page, expect

from jobs.job import Failure, JobStatus
from jobs.progress import JobEvent
from pipelines.preview import picture
from tests.api.house import House, until
from tests.ui.conftest import PHONE, Visit, page_house, visiting

pytestmark = pytest.mark.demo
ROWS = "#sm-queue ol .sm-queue-row"


@pytest.fixture(scope="module")
def house(browser: Browser, tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    with page_house(tmp_path_factory.mktemp("queue") / "data") as house:
        yield house


@pytest.fixture
def served(house: House) -> Iterator[House]:
    """One job runs until it is let go; there is nothing else."""
    house.running = house.film("wait: a boat on the sea")["id"]
    house.gpu.began.wait(10)
    yield house
    store = house.service.store
    store.pause()
    house.gpu.go.set()
    until(lambda: not store.counts()[JobStatus.RUNNING], 60)
    for job in store.open_ids():
        store.cancel(job)
    store.clear_history()
    house.gpu.go.clear()
    house.gpu.began.clear()
    store.resume()


@pytest.fixture(scope="module")
def window(browser: Browser, house: House) -> Iterator[Page]:
    """The queue in a window that stays open, as people's do; for all tests, since Gradio takes seconds to begin."""
    with visiting(browser, house.url) as visit:
        yield queue(visit())


@pytest.fixture
def page(window: Page, served: House) -> Page:
    """The window, once it shows what there is now."""
    window.locator(".sm-toast").evaluate_all("all => all.forEach((one) => one.remove())")
    becomes(window, [served.running])
    expect(window.locator(".sm-queue-ended .sm-queue-row")).to_have_count(0)
    return window


def queue(page: Page) -> Page:
    page.click("[data-view=queue]")
    return page


def shown(page: Page, house: House) -> Locator:
    """The rows, of all jobs that there are."""
    becomes(page, [one["id"] for one in house.get("/api/line?limit=100").json()["jobs"]])
    return page.locator(ROWS)


def ids(rows: Locator) -> list[str]:
    return rows.evaluate_all("all => all.map((one) => one.dataset.job)")


def becomes(page: Page, wanted: list[str]) -> None:
    page.wait_for_function(
        f"wanted => [...document.querySelectorAll('{ROWS}')].map((one) => one.dataset.job).join() === wanted", arg=",".join(wanted)
    )


def test_what_does_not_change_is_left_alone(page: Page, served: House) -> None:
    """The first test of all: how long a job takes is not known yet, so nothing counts down."""
    served.film("a car")
    rows = shown(page, served)
    rows.last.locator("[data-act=cancel]").focus()
    page.evaluate("""() => {
      window.touched = [];
      new MutationObserver((all) => all.forEach((one) => window.touched.push(one.type)))
        .observe(document.querySelector("#sm-queue"), { subtree: true, childList: true, attributes: true, characterData: true });
    }""")
    with page.expect_response("**/api/line?limit=100"), page.expect_response("**/api/line?limit=100"):
        pass
    assert page.evaluate("window.touched") == []
    assert page.evaluate("document.activeElement.dataset.act") == "cancel"


def test_what_runs_is_shown_as_it_is_now(page: Page, served: House) -> None:
    waits = served.film("a car")["id"]
    rows = shown(page, served)
    assert ids(rows) == [served.running, waits]
    board, image = served.service.board, picture(np.zeros((4, 8, 8)), np.full((5, 3), 0.5))
    board.publish(JobEvent(served.running, "progress", {"node_id": "3", "stage": "motion", "step": 7, "total": 20}))
    board.publish(JobEvent(served.running, "preview", {"node_id": "3", "image": image, "format": "jpeg"}))
    expect(rows.first).to_contain_text("motion 7/20")
    expect(rows.first.locator("img")).to_be_visible()
    assert rows.first.locator("img").evaluate("image => image.naturalWidth") == 64
    expect(rows.last).to_contain_text("You are next")
    expect(page.locator("#sm-badge")).to_have_text("2")
    served.gpu.go.set()
    expect(page.locator("#sm-queue .sm-empty")).to_be_visible()
    expect(page.locator("#sm-badge")).to_have_text("")
    expect(page.locator(".sm-queue-ended .sm-queue-row")).to_have_count(2)


def test_waiting_jobs_are_moved_by_buttons_by_keys_and_by_dragging(page: Page, served: House) -> None:
    a, b, c = (served.film(title)["id"] for title in "abc")
    rows = shown(page, served)
    rows.nth(3).locator("[data-act=up]").press("Enter")
    becomes(page, [served.running, a, c, b])
    assert page.evaluate("document.activeElement.dataset.act") == "up"
    rows.nth(2).locator("[data-act=move]").press("ArrowUp")
    becomes(page, [served.running, c, a, b])
    assert page.evaluate("document.activeElement.dataset.act") == "move"
    rows.nth(1).locator("[data-act=move]").press("ArrowDown")
    becomes(page, [served.running, a, c, b])
    rows.nth(3).locator("[data-act=front]").click()
    becomes(page, [served.running, b, a, c])
    rows.nth(1).locator(".sm-queue-grip").drag_to(rows.nth(3), target_position={"x": 300, "y": 60})
    becomes(page, [served.running, a, c, b])
    assert [served.job(one)["place"] for one in (a, c, b)] == [1, 2, 3]


def test_a_job_is_canceled_and_had_back_and_all_that_wait_too(page: Page, served: House) -> None:
    for title in "abc":
        served.film(title)
    rows = shown(page, served)
    before = ids(rows)
    rows.nth(3).locator("[data-act=cancel]").click()
    expect(rows).to_have_count(3)
    page.click(".sm-toast:has-text('Out of the queue') button:has-text('Undo')")
    becomes(page, before)
    page.click("[data-act=clear]")
    expect(rows).to_have_count(1)
    page.click(".sm-toast:has-text('3 taken out') button:has-text('Undo')")
    becomes(page, before)
    rows.first.locator("[data-act=cancel]").click()
    expect(page.locator(".sm-queue-ended")).to_contain_text("canceled")


def test_the_queue_is_paused_and_goes_on(page: Page, served: House) -> None:
    rows = shown(page, served)
    page.click("[data-act=pause]")
    expect(page.locator(".sm-queue-paused")).to_contain_text("nothing else begins")
    page.click("[data-view=create]")
    expect(page.locator("#sm-cost")).to_contain_text("once the queue, which is paused, goes on")
    page.click("[data-view=queue]")
    served.gpu.go.set()
    job = served.film("a car")
    expect(rows).to_have_count(1)
    assert served.job(job["id"])["status"] == "queued"
    page.click("[data-act=pause]")
    expect(page.locator("#sm-queue .sm-empty")).to_be_visible()


def test_what_failed_says_why_and_can_be_tried_again(page: Page, served: House) -> None:
    served.gpu.go.set()
    failed = served.film("fail: a boat", wait=10)["id"]
    row = page.locator(f"#sm-queue [data-job='{failed}']")
    expect(row).to_contain_text("The boat sank. Take another boat.")
    served.service.store.pause()
    row.locator("[data-act=retry]").click()
    expect(page.locator(ROWS)).to_have_count(1)
    served.service.store.cancel(failed)


def test_what_had_too_little_memory_is_made_smaller(page: Page, served: House) -> None:
    store = served.service.store
    store.pause()
    served.gpu.go.set()
    job = served.film("a boat", width=128, height=128)["id"]
    with store._changing() as (connection, _):
        connection.execute("UPDATE jobs SET status = 'running', started = 1 WHERE id = ?", (job,))
    store.fail(job, Failure("out_of_memory", "Memory ran out.", "Use a smaller size."))
    row = page.locator(f"#sm-queue [data-job='{job}']")
    expect(row.locator("[data-act=smaller]")).to_be_visible()


def test_many_prompts_become_a_batch_with_the_forms_settings(visit: Visit, served: House) -> None:
    page = queue(visit(values={"prompt": "not this", "frames": 5}))
    rows = shown(page, served)
    page.click(".sm-many summary")
    page.fill("#sm-many-text", "one\n\ntwo\n")
    make = page.locator(".sm-many .sm-primary")
    expect(make).to_have_text("Make all (2)")
    page.fill("#sm-many-each", "2")
    expect(make).to_have_text("Make all (4)")
    expect(page.locator(".sm-many")).to_contain_text("Each is made by “Text to film”; all else is as the form")
    make.click()
    expect(rows).to_have_count(5)
    expect(page.locator("#sm-many-text")).to_have_value("")
    (_, *made) = (served.service.store.get(one) for one in ids(rows))
    assert [job.title for job in made] == ["one", "one", "two", "two"]
    assert {job.workflow["16"]["inputs"]["video_frames"] for job in made} == {5}
    served.gpu.go.set()
    expect(page.locator(".sm-queue-batches")).to_contain_text("4 of 4 were made")
    assert page.locator(".sm-queue-batches a").get_attribute("href").endswith(f"files.zip?batch={made[0].batch}")


def test_a_large_batch_is_counted_whole_and_stays_when_other_jobs_have_ended(page: Page, served: House) -> None:
    served.post("/api/films/batch", {"lines": "boat\n" * 210})
    served.gpu.go.set()
    for number in range(9):
        served.film(f"after {number}", wait=60)
    until(lambda: served.get("/api/line").json()["queued"] == 0, 60)
    batches = page.locator(".sm-queue-batches")
    expect(batches).to_contain_text("210 of 210 were made")
    with page.expect_download() as saved:
        batches.locator("a").click()
    names = zipfile.ZipFile(saved.value.path()).namelist()
    assert sum(name.endswith(".png") for name in names) == 210


def test_what_is_had_back_is_where_it_was(page: Page, served: House) -> None:
    for title in "abc":
        served.film(title)
    rows = shown(page, served)
    before = ids(rows)
    rows.nth(1).locator("[data-act=cancel]").click()
    expect(rows).to_have_count(3)
    page.click(".sm-toast:has-text('Out of the queue') button:has-text('Undo')")
    becomes(page, before)


def test_a_table_is_counted_and_its_wrong_rows_are_named(page: Page, served: House) -> None:
    rows = shown(page, served)
    page.click(".sm-many summary")
    file = page.locator(".sm-many input[type=file]")
    file.set_input_files({"name": "films.csv", "mimeType": "text/csv", "buffer": b'prompt,frames\n"a\nb",3\nc,5\n\n'})
    expect(page.locator(".sm-many")).to_contain_text("2 rows")
    page.click(".sm-many .sm-primary")
    expect(rows).to_have_count(3)
    file = page.locator(".sm-many input[type=file]")
    file.set_input_files({"name": "caf.csv", "mimeType": "text/csv", "buffer": "prompt\nCafé\n".encode("latin-1")})
    expect(page.locator(".sm-toast.sm-bad")).to_contain_text("caf.csv is not in UTF-8")


def test_a_table_that_is_pasted_is_a_table_and_a_prompt_with_commas_is_none(visit: Visit, served: House) -> None:
    page = queue(visit())
    rows = shown(page, served)
    page.click(".sm-many summary")
    make, said = page.locator(".sm-many .sm-primary"), page.locator(".sm-many-table")
    page.fill("#sm-many-text", "a boat, sea, sun\nprompt for a car, 3, 5")
    expect(make).to_have_text("Make all (2)")
    expect(said).to_be_hidden()
    page.fill("#sm-many-text", '\nprompt;frames\n"a boat, sea";3\na car;5\n')
    expect(make).to_have_text("Make all (2)")
    expect(said).to_contain_text("This is a table")
    make.click()
    expect(rows).to_have_count(3)
    made = [served.service.store.get(one) for one in ids(rows)[1:]]
    assert [(job.title, job.workflow["16"]["inputs"]["video_frames"]) for job in made] == [("a boat, sea", 3), ("a car", 5)]
    page.click("button:has-text('中文')")
    page.fill("#sm-many-text", "prompt,framse\na boat,3")
    make.click()
    expect(page.locator(".sm-many-wrong li").first).to_have_text("第 1 行: 没有列 'framse'。是否要用 'frames'？")


def test_what_was_used_is_told_where_somebody_asks(visit: Visit, served: House) -> None:
    served.gpu.go.set()
    for title in "ab":
        served.film(title, wait=10)
    runs = sum(one.runs for one in served.service.store.usage())
    assert runs >= 3
    page = queue(visit())
    used = page.locator(".sm-usage")
    expect(used.locator("table")).to_have_count(0)
    used.locator("summary").click()
    expect(used.locator(".sm-sum td").nth(1)).to_have_text(str(runs))
    with page.expect_download() as saved:
        used.locator("a").click()
    assert saved.value.path().read_text().startswith("owner,day,runs,seconds\n,")


def test_a_phone_needs_no_dragging(visit: Visit, served: House) -> None:
    a, b = (served.film(title)["id"] for title in "ab")
    page = queue(visit(viewport=PHONE, is_mobile=True, has_touch=True))
    rows = shown(page, served)
    assert page.evaluate("document.documentElement.scrollWidth") <= PHONE["width"]
    expect(rows.nth(1).locator(".sm-queue-grip")).to_be_hidden()
    button = rows.nth(2).locator("[data-act=up]")
    assert min(button.bounding_box()[side] for side in ("width", "height")) >= 40
    button.tap()
    becomes(page, [served.running, b, a])


def test_the_queue_speaks_chinese_at_once(page: Page, served: House) -> None:
    served.film("a car")
    rows = shown(page, served)
    page.click("button:has-text('中文')")
    expect(rows.last).to_contain_text("即将开始")
    expect(page.locator(".sm-many summary")).to_have_text("批量提示词")
