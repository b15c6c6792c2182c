"""The models panel in a real browser, on a server that has a hub of its own: no engine and no Gradio, which have their own tests."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from fastapi import FastAPI
from playwright.sync_api import Browser, Page, expect
from starlette.responses import HTMLResponse, JSONResponse
from starlette.staticfiles import StaticFiles

from api.job_context import JobApi
from jobs import database
from pipelines.hub import HubSettings
from pipelines.model_files import BUNDLED, DEMO_MOTION
from tests.api.house import living
from tests.pipelines.headers import LORA, SD1, write_header
from tests.pipelines.hub_server import HubServer, hub_server
from ui.sentences import server_words
from ui.words import read_texts, words

ASSETS = Path(__file__).parents[2] / "assets"
MODEL = (BUNDLED / DEMO_MOTION).read_bytes()
XT = "svd_xt.safetensors"
FRAME = """<!doctype html><meta charset="utf-8"><link rel="icon" href="page/icon.svg">
<link rel="stylesheet" href="page/page.css"><link rel="stylesheet" href="page/models.css">
<body data-view="models"><div class="gradio-container"><main id="sm-panels"><section id="sm-models"></section></main></div>
<script type="module">
import { el, replace } from "./page/dom.js";
import { mount } from "./page/models.js";
import { server } from "./page/server.js";
import * as texts from "./page/texts.js";
await texts.loadTexts();
window.errors = [];
window.setLanguage = texts.setLanguage;
const page = { ...texts, server, el, replace, view: "models",
  onView: (fn) => (window.shown = fn), fail: (error) => window.errors.push(error.message) };
mount(document.getElementById("sm-models"), page);
window.shown("models", {});
</script>"""


def with_panel(app: FastAPI, api: JobApi) -> None:
    app.add_route("/", lambda request: HTMLResponse(FRAME), methods=["GET"])
    texts = words() | {"server": server_words(), "durations": read_texts("durations")}
    app.add_route("/page/texts.json", lambda request: JSONResponse(texts), methods=["GET"])
    app.mount("/page", StaticFiles(directory=ASSETS / "page"))


@pytest.fixture
def data_dir(tmp_path: Path) -> Path:
    """A template of one's own that needs a model, a model, and a file in the wrong folder."""
    loader = {"class_type": "ImageOnlyCheckpointLoader", "inputs": {"ckpt_name": XT}}
    template = {"title": {"en": "My own", "zh": "我的模板"}, "description": {}, "groups": [], "workflow": {"1": loader}}
    (tmp_path / "templates").mkdir()
    (tmp_path / "templates" / "mine.json").write_text(json.dumps(template))
    write_header(tmp_path / "models/checkpoints/painted.safetensors", SD1)
    write_header(tmp_path / "models/checkpoints/ink.safetensors", LORA)
    return tmp_path


@pytest.fixture
def hub() -> Iterator[HubServer]:
    with hub_server(files={f"stabilityai/stable-video-diffusion-img2vid-xt/{XT}": MODEL}) as server:
        yield server


@pytest.fixture
def panel(browser: Browser, hub: HubServer, data_dir: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Page]:
    monkeypatch.setattr(database, "_SYNCHRONOUS", "OFF")
    with living(data_dir, works=False, no_auth=True, page=with_panel, hub=HubSettings(hub.url)) as house:
        page = browser.new_page(locale="en-US")
        wrong: list[str] = []
        page.on("pageerror", lambda error: wrong.append(str(error)))
        page.goto(house.url)
        expect(page.get_by_role("heading", name="For stills")).to_be_visible()
        yield page
        page.close()
    assert wrong == []


def test_what_is_there_and_what_is_not(panel: Page, data_dir: Path) -> None:
    stills = panel.get_by_role("region", name="For stills")
    expect(stills).to_contain_text("checkpoints/painted.safetensors")
    expect(stills).to_contain_text("Good for: Text to film")
    expect(panel.locator(".sm-models-missing")).to_contain_text(f"It needs {XT}.")
    expect(panel.locator(".sm-models-missing code")).to_have_text(str(data_dir / "models" / "checkpoints" / XT))
    expect(panel.get_by_text("ink.safetensors is a LoRA, not a checkpoint")).to_be_visible()
    expect(panel.get_by_role("region", name="VAEs")).to_contain_text(str(data_dir / "models" / "vae"))
    write_header(data_dir / "models/checkpoints/dropped.safetensors", SD1)
    expect(stills).to_contain_text("checkpoints/dropped.safetensors")  # without a restart or a reload
    panel.evaluate("setLanguage('zh')")
    expect(panel.get_by_role("heading", name="图片模型")).to_be_visible()
    panel.set_viewport_size({"width": 390, "height": 844})
    assert panel.evaluate("document.documentElement.scrollWidth") == 390


def test_a_download_from_the_question_to_the_model(panel: Page, hub: HubServer, data_dir: Path) -> None:
    missing = panel.locator(".sm-models-missing")
    missing.get_by_role("button", name="Download").click()
    expect(missing).to_contain_text("Download about 9.6 GB")
    expect(missing.get_by_role("button", name="Yes, download")).to_be_focused()
    assert not hub.asked  # nobody has said yes
    missing.get_by_role("button", name="No:").click()
    expect(missing.get_by_role("button", name="Download")).to_be_focused()

    hub.go.clear()
    missing.get_by_role("button", name="Download").click()
    missing.get_by_role("button", name="Yes, download").click()
    bar = panel.get_by_role("progressbar", name=XT)
    expect(bar).to_have_attribute("aria-valuenow", "50")
    panel.get_by_role("button", name=f"Cancel: {XT}").click()
    expect(panel.locator(".sm-models-downloads")).to_contain_text("stopped")
    hub.go.set()
    panel.get_by_role("button", name=f"Go on: {XT}").click()
    expect(panel.locator(".sm-models-downloads")).to_contain_text("it is there")
    expect(missing.locator(".sm-card")).to_have_count(0)
    expect(panel.get_by_role("region", name="For motion")).to_contain_text(f"checkpoints/{XT}")
    assert (data_dir / "models" / "checkpoints" / XT).read_bytes() == MODEL


def test_a_model_whose_download_failed_keeps_its_card(panel: Page, hub: HubServer) -> None:
    """It says what went wrong, and is tried again from there."""
    hub.gated.add("stabilityai/stable-video-diffusion-img2vid-xt")
    card = panel.get_by_role("region", name="For motion").locator(".sm-card", has_text=f"checkpoints/{XT}")
    card.get_by_role("button", name="Download").click()
    card.get_by_role("button", name="Yes, download").click()
    expect(card).to_contain_text("is not open to everybody")
    hub.gated.clear()
    card.get_by_role("button", name="Try again").click()
    expect(card).to_contain_text("complete")


def test_what_goes_wrong_says_what_to_do(panel: Page, hub: HubServer) -> None:
    hub.gated.add("ann/models")
    panel.locator(".sm-models-more summary").click()
    panel.get_by_label("Repository").fill("ann/models")
    panel.get_by_label("File").fill("boat.safetensors")
    panel.locator(".sm-models-more button").click()
    expect(panel.get_by_role("alert")).to_contain_text("set HF_TOKEN")
    panel.evaluate("setLanguage('zh')")
    expect(panel.get_by_role("alert")).to_contain_text("ann/models 不对所有人开放。 请先在")
    panel.evaluate("setLanguage('en')")
    panel.get_by_role("button", name="Remove what came: boat.safetensors").click()
    expect(panel.locator(".sm-models-downloads .sm-card")).to_have_count(0)
    panel.get_by_label("Repository").fill("nonsense")
    panel.get_by_label("File").fill("boat.safetensors")
    panel.locator(".sm-models-more button").click()
    panel.wait_for_function("errors.length > 0")
    assert "no repository of the hub" in panel.evaluate("errors[0]")
