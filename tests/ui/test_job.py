"""What a result offers, of a workflow of one's own too; and how the panels bear a server that cannot answer."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from playwright.sync_api import Browser, Page, expect

from jobs.job import Failure, Job, Outcome, Output, Submission
from pipelines.encode import save_png, save_video
from tests.api.house import House
from tests.ui.conftest import SMALL, Visit, page_house
from workflows.templates import fill, find_template

pytestmark = pytest.mark.demo
REFUSE = """path => {
  const real = window.fetch;
  window.asked = 0;
  window.heal = () => { window.fetch = real; };
  window.fetch = (address, more) => {
    if (!String(address).includes(path)) return real(address, more);
    window.asked += 1;
    const error = { code: "storage", message: "The disk is full.", hint: "Free some space." };
    return Promise.resolve(new Response(JSON.stringify({ error }), { status: 507 }));
  };
}"""
LISTEN = """() => {
  const Real = window.AudioContext;
  window.heard = [];
  window.AudioContext = class extends Real { constructor() { super(); window.heard.push(this); } };
  localStorage.setItem("stillmotion.sound", "on");
}"""


@pytest.fixture(scope="module")
def served(browser: Browser, tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    """Nothing runs, but what tests let run."""
    folder = tmp_path_factory.mktemp("results")
    with page_house(folder) as house:
        house.service.store.pause()
        house.files = files(folder / "output")
        yield house


def files(folder: Path) -> tuple[Output, ...]:
    folder.mkdir(parents=True, exist_ok=True)
    frames = np.linspace(0.2, 0.8, 3, dtype=np.float32)[:, None, None, None] * np.ones((3, 64, 64, 3), np.float32)
    still = save_png(frames[0], folder / "a.png", None)
    film = save_video(frames, folder / "a.mp4", format="video/h264-mp4", fps=7, metadata=None)
    return Output("9", "images", still.name), Output("19", "gifs", film.name)


def graph(**values: Any) -> dict[str, Any]:
    return fill(find_template("text_to_film"), SMALL | {"prompt": "a boat", "seed": 5, "motion_seed": 6} | values)


def made(house: House, workflow: dict[str, Any], name: str) -> None:
    house.service.store.restore(Submission(workflow, title=name, job_id=name), Outcome(files=house.files, device="cpu"), 1e9)


def newest(house: House, page: Page, before: str) -> Job:
    """What a button has asked for, once the page shows it."""
    page.wait_for_function("before => !location.search.includes(`job=${before}`)", arg=before)
    return house.service.store.list_jobs(limit=1).jobs[0]


def shown(visit: Visit, house: House, job_id: str) -> Page:
    page = visit(f"{house.url}/?job={job_id}")
    expect(page.locator(".sm-title")).to_be_visible()
    return page


def test_a_workflow_of_ones_own_is_changed_by_its_own_fields(visit: Visit, served: House) -> None:
    workflow = graph() | {"99": {"class_type": "SaveImage", "inputs": {"images": ["8", 0], "filename_prefix": "more"}}}
    made(served, workflow, "own")
    page = shown(visit, served, "own")
    page.click("[data-act=more]")
    job = newest(served, page, "own")
    assert job.workflow["16"]["inputs"]["motion_bucket_id"] == 144
    assert job.workflow.keys() == workflow.keys()


def test_only_what_there_is_can_be_changed(visit: Visit, served: House) -> None:
    """Whose motion a seed is cannot be told of any workflow."""
    workflow = graph() | {"99": {"class_type": "SaveImage", "inputs": {"images": ["8", 0], "filename_prefix": "more"}}}
    made(served, workflow, "unlike")
    page = shown(visit, served, "unlike")
    expect(page.locator("[data-act=less]")).to_be_visible()
    expect(page.locator("[data-act=keep]")).to_have_count(0)


def test_the_still_is_kept_and_moves_anew_in_a_workflow_that_is_like_a_template(visit: Visit, served: House) -> None:
    workflow = graph()
    workflow["3"]["inputs"]["denoise"] = 0.5
    made(served, workflow, "like")
    page = shown(visit, served, "like")
    page.click("[data-act=keep]")
    job = newest(served, page, "like")
    assert job.workflow["13"]["inputs"]["seed"] != 6
    assert (job.workflow["3"]["inputs"]["seed"], job.workflow["3"]["inputs"]["denoise"]) == (5, 0.5)


def failed(house: House, name: str, template: str, **values: Any) -> None:
    store = house.service.store
    job = Submission(fill(find_template(template), values), title=name, job_id=name, extra={"template": template})
    store.submit(job)
    with store._changing() as (connection, _):
        connection.execute("UPDATE jobs SET status = 'running', started = 1 WHERE id = ?", (name,))
    store.fail(name, Failure("out_of_memory", "Memory ran out.", "Use a smaller size."))


def test_a_still_for_which_memory_ran_out_is_made_smaller(visit: Visit, served: House) -> None:
    failed(served, "large", "text_to_still", prompt="a boat", seed=1, width=512, height=768)
    page = shown(visit, served, "large")
    page.click("[data-act=smaller]")
    job = newest(served, page, "large")
    sizes = [(one["inputs"]["width"], one["inputs"]["height"]) for one in job.workflow.values() if "width" in one["inputs"]]
    assert sizes == [(384, 512)]


def test_the_queue_makes_it_smaller_too(visit: Visit, served: House) -> None:
    failed(
        served,
        "larger",
        "text_to_film",
        **SMALL | {"prompt": "a boat", "seed": 1, "motion_seed": 1, "width": 128, "height": 128, "frames": 7},
    )
    page = visit()
    page.click("[data-view=queue]")
    with page.expect_response("**/api/films"):
        page.locator("#sm-queue [data-job=larger] [data-act=smaller]").click()
    inputs = served.service.store.list_jobs(limit=1).jobs[0].workflow["16"]["inputs"]
    assert (inputs["width"], inputs["height"], inputs["video_frames"]) == (64, 64, 4)


@pytest.mark.parametrize(("view", "path"), [("library", "api/jobs?"), ("queue", "api/line?limit=100"), ("create", "api/jobs/patient")])
def test_a_server_that_cannot_answer_is_asked_seldom_and_said_once(visit: Visit, served: House, view: str, path: str) -> None:
    made(served, graph(), "patient")
    page = shown(visit, served, "patient")
    page.evaluate(REFUSE, path)
    if view == "create":
        page.evaluate("document.dispatchEvent(new Event('visibilitychange'))")
    else:
        page.click(f"[data-view={view}]")
    toast = page.locator(".sm-toast.sm-bad")
    expect(toast).to_have_text("The disk is full. Free some space.×")
    page.wait_for_timeout(1500)
    assert 1 <= page.evaluate("window.asked") <= 2
    expect(toast).to_have_count(1)
    with page.expect_response(lambda answer: path in answer.url and answer.ok):
        page.evaluate("window.heal()")


def test_a_job_that_is_not_there_is_said_and_there_is_a_way_back(visit: Visit, served: House) -> None:
    page = visit(f"{served.url}/?job=nonsense")
    expect(page.locator("#sm-job")).to_contain_text("There is no such job, or no longer.")
    page.click("button:has-text('中文')")
    expect(page.locator("#sm-job")).to_contain_text("没有该任务")
    page.click("[data-act=back]")
    expect(page.locator(".sm-gone")).to_have_count(0)
    assert "nonsense" not in page.url  # what runs now is shown, if anything does


def test_a_job_without_words_has_a_name_all_the_same(visit: Visit, served: House) -> None:
    served.service.store.restore(Submission(graph(), job_id="unnamed"), Outcome(files=served.files, device="cpu"), 1e9)
    page = shown(visit, served, "unnamed")
    expect(page.locator(".sm-title")).to_have_text("Untitled")
    page.click("[data-view=library]")
    expect(page.locator("[data-job=unnamed] .sm-caption")).to_have_text("Untitled")


def test_what_went_wrong_is_chinese_on_the_chinese_page(visit: Visit, served: House) -> None:
    failed(served, "short", "text_to_film", prompt="a boat", seed=1, motion_seed=1)
    page = visit(f"{served.url}/?job=short", locale="zh-CN")
    expect(page.locator("#sm-job [role=alert]")).to_have_text("内存不足。 Memory ran out. Use a smaller size.")
    page.fill("#sm-field-prompt textarea", "a boat")
    page.fill("#sm-field-frames input", "9000")
    expect(page.locator("#sm-estimate")).to_contain_text("9000 大于最大值")


def test_the_sound_at_the_end_leaves_nothing_open(visit: Visit, served: House) -> None:
    job = served.film("wait: a boat")["id"]
    page = shown(visit, served, job)
    page.evaluate(LISTEN)
    served.service.store.resume()
    served.gpu.began.wait(10)
    served.gpu.go.set()
    page.wait_for_function("() => window.heard.length && window.heard.every((one) => one.state === 'closed')")
    served.service.store.pause()
