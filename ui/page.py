"""The page: its frame, and what the form does. Everything live on it is drawn in the browser from the job API (`assets/page`).

form.py       the fields, from a template's declaration
endpoints.py  what `gradio_client` calls
words.py      what is said, in two languages
sentences.py  what the server says, in Chinese
"""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import gradio as gr
from fastapi import FastAPI
from starlette.responses import JSONResponse, Response
from starlette.staticfiles import StaticFiles

from api.job_context import JobApi
from api.users import User
from ui.create import OWN, Creator
from ui.endpoints import Endpoints
from ui.form import PACES, FormState, draw_fields, given_values, size_names
from ui.sentences import server_words
from ui.theme import THEME
from ui.words import read_texts, say, words

ASSETS = Path(__file__).parent.parent / "assets"
_STYLES = ("page", "queue", "library", "models")
_SESSIONS = 300  # that Gradio remembers: each takes a third of a megabyte, and a quarter more whenever its form is drawn anew
_HEAD = "\n".join([
    *(f'<link rel="stylesheet" href="page/{name}.css">' for name in _STYLES),
    '<script type="module" src="page/main.js"></script>',
])  # fmt: skip
_TOP = """<header id="sm-header"></header><p id="sm-connection" role="status" hidden></p><div id="sm-notices"></div>
<div id="sm-toasts" aria-live="polite"></div>"""
_PANELS = '<section id="sm-queue"></section><section id="sm-library"></section><section id="sm-models"></section>'
_BRIDGE = """
element.addEventListener('stillmotion', (event) => trigger('command', event.detail));
watch('value', () => window.stillmotion.heard(props.value));
"""
_ESTIMATE = '<div id="sm-cost">${value}</div>'
_OUTDATED = "element.addEventListener('stillmotion-outdated', () => trigger('outdated'));"
_AT_START = """async () => {
  const { ready } = await import(new URL("page/main.js", document.baseURI));
  await ready;
  return [stillmotion.language(), sessionStorage.getItem("stillmotion.draft") ?? "", sessionStorage.getItem("stillmotion.folds") ?? ""];
}"""


class _Revalidated(StaticFiles):
    """Browsers ask whether a file has changed before they use what they keep: modules of two versions do not go together."""

    def file_response(self, *arguments: Any, **more: Any) -> Response:
        answer = super().file_response(*arguments, **more)
        answer.headers["Cache-Control"] = "no-cache"
        return answer


def add_page(app: FastAPI, api: JobApi) -> None:
    """The page under "/", and its files."""
    app.add_route(
        "/page/texts.json",
        lambda request: JSONResponse(words() | {"server": server_words(), "durations": read_texts("durations")}),
        methods=["GET"],
    )
    app.mount("/page", _Revalidated(directory=ASSETS / "page"))
    app.mount("/examples", _Revalidated(directory=ASSETS / "examples"))
    logging.getLogger("httpx").setLevel(logging.WARNING)
    endpoints = Endpoints(api)
    endpoints.add_routes(app)  # before Gradio's own
    gr.mount_gradio_app(
        app, make_page(api, endpoints), path="/", theme=THEME, head=_HEAD, run_history=False, enable_monitoring=False, footer_links=[],
        show_error=True, max_file_size="110mb",
    )  # fmt: skip
    mounted = next(route.app for route in app.routes if isinstance(getattr(route, "app", None), gr.routes.App))
    mounted.add_exception_handler(KeyError, endpoints.outdated)


def make_page(api: JobApi, endpoints: Endpoints) -> gr.Blocks:
    creator = Creator(api)
    with gr.Blocks(title="Stillmotion", analytics_enabled=False, delete_cache=(3600, 3600), fill_width=True) as page:
        gr.HTML(_TOP, elem_id="sm-top", apply_default_css=False)
        bridge = gr.HTML(html_template='<div id="sm-bridge"></div>', js_on_load=_BRIDGE, elem_id="sm-bridge-holder")
        state = gr.State(None)
        language, draft, folds = (gr.Textbox(visible=False) for _ in range(3))
        with gr.Row(elem_id="sm-create", equal_height=False):
            with gr.Column(elem_id="sm-form", scale=5, min_width=320):
                _draw_form(creator, state, bridge)
            with gr.Column(elem_id="sm-result", scale=6, min_width=320):
                gr.HTML('<section id="sm-job"></section>', apply_default_css=False)
        gr.HTML(_PANELS, elem_id="sm-panels", apply_default_css=False)
        hidden = {"api_visibility": "private", "show_progress": "hidden"}
        page.load(creator.begin, [language, draft, folds], state, js=_AT_START, **hidden)
        bridge.command(creator.command, [state], [state, bridge], **hidden)  # queued: else a changed state goes unheard
        endpoints.add()
    page.queue(default_concurrency_limit=None, api_open=False)
    page.state_session_capacity = _SESSIONS
    endpoints.make_room(page)
    return page


def _draw_form(creator: Creator, state: gr.State, bridge: gr.HTML) -> None:
    @gr.render(inputs=[state], triggers=[state.change], show_progress="hidden")
    def form(shown: FormState | None, request: gr.Request) -> None:
        if shown is None:
            return
        _draw(creator, shown, user_of(request), state, bridge)


def _draw(creator: Creator, shown: FormState, user: User, state: gr.State, bridge: gr.HTML) -> None:
    hidden = {"api_visibility": "private", "show_progress": "hidden"}
    at_once = hidden | {"trigger_mode": "multiple"}  # in the browser; else what comes too soon after another is left out
    document, language, is_own = creator.document(shown, user), shown.language, shown.template == OWN
    with gr.Row(elem_id="sm-choose"):
        template = gr.Dropdown(
            creator.choices(shown), value=shown.template, label=say(language, "form.template"), elem_id="sm-template",
            filterable=False, interactive=True,
        )  # fmt: skip
        gr.HTML('<div id="sm-open"></div>', apply_default_css=False, min_width=10)

    if lines := creator.missing_lines(shown):
        gr.HTML(lines, apply_default_css=False)

    def draw_examples(prompt: gr.components.Component) -> None:
        with gr.Row(elem_classes="sm-examples"):
            for key in ("rocket", "boat", "balloon", "train"):
                button = gr.Button(say(language, f"example.{key}"), size="sm", variant="secondary", min_width=20)
                button.click(None, None, prompt, js=f"() => {json.dumps(say('en', f'example.{key}.prompt'))}", **at_once)

    drawn = draw_fields(document, shown, draw_examples)
    if drawn.paces is not None:
        bucket = drawn.fields["motion_bucket_id"]
        drawn.paces.input(None, drawn.paces, bucket, js="(pace) => pace", **at_once)
        named = f"(bucket) => {json.dumps(list(dict(PACES).values()))}.includes(bucket) ? bucket : null"
        bucket.input(None, bucket, drawn.paces, js=named, **at_once)
    if drawn.size is not None:
        sides = [drawn.fields["width"], drawn.fields["height"]]
        drawn.size.input(None, drawn.size, sides, js='(size) => size.split(" x ").map(Number)', **at_once)
        named = f"(...sides) => {json.dumps(size_names())}.find((name) => name === sides.join(' x ')) ?? null"
        gr.on([side.input for side in sides], None, sides, drawn.size, js=named, **at_once)
    kept = given_values(document, shown.values.keys(), shown.values.values(), is_own=is_own)
    line = creator.estimate_line(shown, user, kept)
    estimate = gr.HTML(line, html_template=_ESTIMATE, js_on_load=_OUTDATED, elem_id="sm-estimate", apply_default_css=False)
    make = gr.Button(say(language, creator.verb(shown)), variant="primary", elem_id="sm-make")
    names, components = list(drawn.fields), list(drawn.fields.values())

    def submit(request: gr.Request, *values: Any) -> str:
        return creator.submit(shown, user_of(request), given_values(document, names, values, is_own=is_own))

    def estimated(request: gr.Request, *values: Any) -> str:
        return creator.estimate_line(shown, user_of(request), given_values(document, names, values, is_own=is_own))

    def choose(wanted: str, folds: str, *values: Any) -> FormState:
        if wanted == shown.template:  # Gradio says so whenever the keyboard passes by
            return gr.skip()
        return creator.choose(wanted, shown, dict(zip(names, values, strict=True)), folds)

    make.click(submit, components, bridge, queue=False, **hidden)
    again = {"fn": estimated, "inputs": components, "outputs": estimate, "queue": False, "trigger_mode": "always_last"}
    gr.on([one.change for one in drawn.at_once] + [one.blur for one in drawn.long_texts], **again, **hidden)
    estimate.outdated(**again, **hidden)
    keep = f"(...values) => stillmotion.keep({json.dumps(shown.template)}, {json.dumps(names)}, values)"
    gr.on([one.change for one in components], None, components, None, js=keep, **hidden)
    folds = gr.Textbox(visible=False)
    unfolded = "(wanted, _, ...values) => [wanted, stillmotion.folds(), ...values]"
    template.input(choose, [template, folds, *components], state, js=unfolded, **hidden)
    chosen = f"(chosen, ...values) => stillmotion.keep(chosen, {json.dumps(names)}, values)"
    template.input(None, [template, *components], None, js=chosen, **hidden)


def user_of(request: gr.Request) -> User:
    """Whom the layer in front let in."""
    return request.request.scope["user"]
