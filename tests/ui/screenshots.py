"""Pictures of the page for the documentation, of a real server with the demo checkpoints.

python -m tests.ui.screenshots --into docs/images           # some minutes without a GPU
python -m tests.ui.screenshots --into /tmp/shots --quick    # small films, to try it
"""

from __future__ import annotations

import argparse
import json
import shutil
import tempfile
from pathlib import Path

from playwright.sync_api import BrowserContext, Page, expect, sync_playwright

from tests.ui.conftest import BROWSERS, DESK, PHONE, Served

PROMPTS = (
    "Rocket takes off from the ground, fire, sky, airplane",
    "A white boat sails on the sea, sun",
    "A red balloon floats over a field, clouds",
)
QUICK = {"width": 128, "height": 128, "frames": 7, "steps": 6}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--into", type=Path, default=Path("docs/images"))
    parser.add_argument("--quick", action="store_true")
    arguments = parser.parse_args()
    into = arguments.into
    into.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as playwright:
        path = next(filter(None, map(shutil.which, BROWSERS)))
        browser = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
        served = Served(Path(folder) / "data")
        try:
            desk = browser.new_context(viewport=DESK, locale="en-US", base_url=served.url)
            if arguments.quick:
                draft = json.dumps(json.dumps({"template": "text_to_film", "values": QUICK}))
                desk.add_init_script(f"sessionStorage.setItem('stillmotion.draft', {draft})")
            take_desk(desk.new_page(), served, into)
            phone = browser.new_context(
                viewport=PHONE, locale="zh-CN", color_scheme="dark", is_mobile=True, has_touch=True, base_url=served.url
            )
            take_phone(phone, served, into)
        finally:
            served.close()
            browser.close()


def take_desk(page: Page, served: Served, into: Path) -> None:
    expect.set_options(timeout=1_800_000)  # a busy machine without a GPU
    page.goto(served.url)
    page.wait_for_selector("#sm-make")
    page.wait_for_timeout(1500)
    page.screenshot(path=into / "page_first_visit.png")
    for number, prompt in enumerate(PROMPTS):
        page.fill("#sm-field-prompt textarea", prompt)
        page.click("#sm-make")
        expect(page.locator(".sm-title")).to_have_text(prompt)
        if number == 0:
            expect(page.locator(".sm-now")).to_contain_text("motion")
            page.wait_for_timeout(3000)
            page.screenshot(path=into / "page_working.png")
        if number == 1:  # with the third waiting behind it
            continue
        expect(page.locator("#sm-job video.sm-film")).to_be_visible()
    page.wait_for_timeout(1500)
    page.screenshot(path=into / "page_film.png")
    for view in ("library", "models"):
        page.click(f"#sm-nav [data-view={view}]")
        page.wait_for_timeout(1500)
        page.screenshot(path=into / f"page_{view}.png")
    page.click("#sm-nav [data-view=create]")
    for prompt in PROMPTS[:2]:
        page.fill("#sm-field-prompt textarea", f"{prompt}, moon")
        page.click("#sm-make")
        expect(page.locator(".sm-title")).to_have_text(f"{prompt}, moon")
    page.click("#sm-nav [data-view=queue]")
    page.wait_for_timeout(6000)
    page.screenshot(path=into / "page_queue.png")


def take_phone(context: BrowserContext, served: Served, into: Path) -> None:
    page = context.new_page()
    job = page.request.get("api/jobs?status=succeeded&limit=1").json()["jobs"][0]["id"]
    page.goto(f"{served.url}?job={job}")
    page.wait_for_selector("#sm-make")
    expect(page.locator("#sm-job video.sm-film")).to_be_visible()
    page.wait_for_timeout(1500)
    page.screenshot(path=into / "page_phone.png")


if __name__ == "__main__":
    main()
