"""Files into the form: our own films, foreign workflows, pictures to move."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from PIL import Image
from playwright.sync_api import Page, expect

from tests.ui.conftest import SMALL, Served, Visit

pytestmark = pytest.mark.demo
SEED = "18446744073709551615"  # browsers would round it


def drop(page: Page, path: Path) -> None:
    """As a person drops it anywhere on the page."""
    kinds = {".json": "application/json", ".png": "image/png", ".mp4": "video/mp4"}
    data = page.evaluate_handle(
        """async ([bytes, name, type]) => {
            const transfer = new DataTransfer();
            transfer.items.add(new File([new Uint8Array(bytes)], name, { type }));
            return transfer;
        }""",
        [list(path.read_bytes()), path.name, kinds[path.suffix]],
    )
    page.dispatch_event("body", "drop", {"dataTransfer": data})


def fold(page: Page, title: str) -> None:
    page.locator(".sm-fold button", has_text=title).first.click()


def test_a_film_of_ours_fills_the_form_with_every_seed_as_it_was(visit: Visit, served: Served) -> None:
    page = visit(values=SMALL | {"seed": SEED, "motion_bucket_id": 200})
    page.fill("#sm-field-prompt textarea", "A blue fish in the sea")
    page.click("#sm-make")
    expect(page.locator("#sm-job video.sm-film")).to_be_visible()
    film = max((served.data_dir / "output").rglob("*.mp4"), key=lambda path: path.stat().st_mtime_ns)
    other = visit()
    drop(other, film)
    expect(other.locator("#sm-field-prompt textarea")).to_have_value("A blue fish in the sea")
    expect(other.locator("#sm-paces input:checked")).to_have_value("200")
    expect(other.locator("#sm-field-frames input")).to_have_value("3")
    fold(other, "Still")
    expect(other.locator("#sm-field-seed input, #sm-field-seed textarea")).to_have_value(SEED)


def test_a_foreign_workflow_becomes_a_form_that_says_what_is_missing_and_runs_when_it_is_put_right(visit: Visit, tmp_path: Path) -> None:
    graph = {
        "1": {"class_type": "CheckpointLoaderSimple", "inputs": {"ckpt_name": "SD/v1-5-pruned-emaonly.ckpt"}},
        "2": {"class_type": "CLIPTextEncode", "inputs": {"text": "A red balloon, clouds", "clip": ["1", 1]}},
        "3": {"class_type": "EmptyLatentImage", "inputs": {"width": 64, "height": 64, "batch_size": 1}},
        "4": {"class_type": "KSampler", "inputs": {"seed": int(SEED), "steps": 2, "cfg": 3.0, "sampler_name": "euler",
              "scheduler": "normal", "denoise": 1.0, "model": ["1", 0], "positive": ["2", 0],
              "negative": ["2", 0], "latent_image": ["3", 0]}},
        "5": {"class_type": "VAEDecode", "inputs": {"samples": ["4", 0], "vae": ["1", 2]}},
        "6": {"class_type": "ImageScaleBy", "inputs": {"image": ["5", 0], "upscale_method": "bilinear", "scale_by": 2.0}},
        "7": {"class_type": "SaveImage", "inputs": {"images": ["6", 0], "filename_prefix": "mine"}},
    }  # fmt: skip
    path = tmp_path / "workflow.json"
    path.write_text(json.dumps(graph))
    page = visit()
    drop(page, path)
    expect(page.locator(".sm-opened")).to_contain_text("v1-5-pruned-emaonly.ckpt")
    expect(page.locator("#sm-estimate")).to_contain_text("Put right first")
    for group in page.locator(".sm-fold > button").all():
        group.click()
    expect(page.locator("textarea").first).to_have_value("A red balloon, clouds")
    checkpoint = page.locator("[id^=sm-field-ckpt_name] input")
    checkpoint.click()
    page.get_by_role("option", name="stillmotion_demo_still.safetensors").click()
    page.click("#sm-make")
    picture = page.locator("#sm-job .sm-media img:not(.sm-preview)")
    expect(picture).to_be_visible()
    page.wait_for_function("() => document.querySelector('#sm-job .sm-media img')?.naturalWidth === 128")


def test_a_picture_becomes_the_one_to_move_and_what_of_it_is_shown(visit: Visit, tmp_path: Path) -> None:
    path = tmp_path / "own.png"
    Image.new("RGB", (300, 100), (200, 30, 30)).save(path)
    page = visit(values=SMALL | {"motion_steps": 400})
    drop(page, path)
    expect(page.locator("#sm-template input")).to_have_value("Still to film")
    crop = page.locator(".sm-crop img")
    expect(crop).to_be_visible()
    page.wait_for_function("() => document.querySelector('.sm-crop img').naturalWidth === 300")
    box = crop.bounding_box()
    assert box["width"] == pytest.approx(box["height"], rel=0.02)  # the film is square: its middle
    page.click("#sm-make")
    given = page.locator("#sm-job img.sm-film:not(.sm-preview)")  # until there is more
    expect(given).to_have_attribute("src", re.compile(r"filename=own\.png"))
    assert page.locator(".sm-steps li").all_inner_texts()[-1:] == ["file"]
    assert page.locator(".sm-steps li").count() == 2  # no still is made
    page.click("[data-act=cancel]")
    expect(page.locator("#sm-job [data-act=retry]")).to_be_visible()
    page.click(".sm-fold > button:has-text('Motion')")
    page.fill("#sm-field-motion_steps input", "2")
    page.click("#sm-make")
    expect(page.locator("#sm-job video.sm-film")).to_be_visible()
    page.click("#sm-template input")
    page.get_by_role("option", name="Extend a film").click()
    expect(page.locator("#sm-field-film")).to_be_visible()
    expect(page.locator(".sm-picture")).to_have_count(0)  # it would be that of another form


def test_what_is_no_settings_and_no_picture_is_said(visit: Visit, tmp_path: Path) -> None:
    path = tmp_path / "notes.json"
    path.write_text("[1, 2]")
    page = visit()
    with page.expect_response(lambda answer: "api/open" in answer.url) as refused:
        drop(page, path)
    assert refused.value.status == 400
    expect(page.locator(".sm-toast.sm-bad")).to_be_visible()
