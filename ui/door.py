"""What passes to Gradio: the routes that the page and `gradio_client` use, and no address of another server in place of a file.

Gradio fetches such addresses before any code of ours runs, as large as they are, and some of its routes write to the disk for anybody.
"""

from __future__ import annotations

import json
import re
from typing import Any

from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from api.comfy_context import Outside
from api.error_answers import NotFound, answer
from errors import InputError, StillmotionError

_PREFIX = "/gradio_api/"
_ROUTES = re.compile(
    r"(?:info|app_id|login_check|startup-events|theme\.css|upload|upload_progress|cancel|reset|queue/(?:join|data|status)"
    r"|heartbeat/[^/]+|(?:run|api)/[^/]+|call/(?:v2/)?[^/]+(?:/[^/]+)?|file=.*)/?",
    re.DOTALL,
)
_ADDRESS = re.compile(r"\s*https?:", re.IGNORECASE)


class GradioDoor:
    """Wraps an app in which Gradio is mounted at "/". What is asked of it stands in the scope, as `gradio.asked`."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        path = path_below(scope)
        if scope["type"] != "http" or not path.startswith(_PREFIX):
            await self.app(scope, receive, send)
            return
        try:
            _check_route(path.removeprefix(_PREFIX))
            if scope["method"] == "POST" and not path.startswith(f"{_PREFIX}upload"):
                scope["gradio.asked"], receive = await _checked(scope, receive)
        except StillmotionError as error:
            await answer(error)(scope, receive, send)
            return
        await self.app(scope, receive, send)


def path_below(scope: Scope) -> str:
    """Below the path under which a proxy shows us, which Gradio's routes leave out too."""
    path, root = scope.get("path", ""), scope.get("root_path", "")
    return path.removeprefix(root) if path.startswith(f"{root}/") else path


def _check_route(route: str) -> None:
    """Raises NotFound."""
    if not _ROUTES.fullmatch(route):
        raise NotFound(f"There is nothing at {_PREFIX}{route[:200]}.", "/docs lists what there is.")


async def _checked(scope: Scope, receive: Receive) -> tuple[Any, Receive]:
    """What it says, and the same body once more. Raises Outside if it names a file by an address, InputError if nobody can tell."""
    body, document = await Request(scope, receive).body(), None
    try:
        document = json.loads(body)
        check_files(document)
    except RecursionError as error:
        raise InputError("The body is nested too deeply.") from error
    except ValueError:
        pass  # Gradio reads it in the same way, and says so
    given = [{"type": "http.request", "body": body, "more_body": False}]

    async def again() -> Message:
        return given.pop() if given else await receive()

    return document, again


def check_files(document: Any) -> None:
    """Raises Outside if a file in it has an address as its path."""
    rest = [document]
    while rest:
        one = rest.pop()
        if isinstance(one, dict):
            path = one.get("path")
            if isinstance(path, str) and _ADDRESS.match(path):
                raise Outside("Files of other servers are not fetched here.", "Fetch it yourself, and send it.")
            rest.extend(one.values())
        elif isinstance(one, list):
            rest.extend(one)
