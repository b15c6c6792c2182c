"""Every error of the job API on the wire: `{"error": {"code", "message", "hint", "id"}}` with a fitting status. Translated only here.

The id stands in the log too. Of what we did not expect the answer tells no more than that.
"""

from __future__ import annotations

import logging
import secrets
from collections.abc import Mapping
from typing import Any

from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, Field
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from api.plain_json import plain_json
from api.refusals import Refusal, Unexpected
from errors import InputError, StillmotionError

log = logging.getLogger("stillmotion.api")

RETRY_SECONDS = 5
STATUS = {
    "unknown_job": 404, "wrong_state": 409, "canceled": 409, "too_large": 413, "queue_full": 429, "encoding": 500, "error": 500,
    "out_of_memory": 503, "storage": 507,
}  # fmt: skip
_MEANINGS = {
    400: "A value is wrong; the message says which.", 401: "Credentials are missing or wrong.", 403: "Not from here.",
    404: "There is no such thing, or not for you.", 409: "The job is not in a state for that.", 413: "More than is taken at once.",
    429: "The queue is full; try again later.", 507: "The disk of the server is full or cannot be written.",
}  # fmt: skip


class ErrorBody(BaseModel):
    code: str = Field(description="Stable, for programs.", examples=["bad_input"])
    message: str = Field(description="What is wrong, and which value.", examples=["steps is 0, but must be 1 to 10 000."])
    hint: str = Field(description="What to do.", examples=["Use 1."])
    id: str = Field(description="Stands in the log of the server too.", examples=["5f1c2a44"])
    fields: dict[str, str] | None = Field(None, description="Of a film: what is wrong with which field.")
    rows: dict[str, str] | None = Field(None, description="Of several films: what is wrong with which line.")


class ErrorAnswer(BaseModel):
    error: ErrorBody
    node_errors: dict[str, Any] | None = Field(None, description="Of a workflow: what is wrong with which node, in ComfyUI's words.")


def documented(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """For OpenAPI: these and those that every route may answer."""
    return {status: {"model": ErrorAnswer, "description": _MEANINGS[status]} for status in sorted({400, 401, 403, 507, *statuses})}


def answer(error: StillmotionError, headers: Mapping[str, str] | None = None) -> Response:
    if isinstance(error, Refusal):
        log.info("error %s is %s: %s", error.error_id, error.code, error.message)
        return error.answer()
    status, error_id = STATUS.get(error.code, 400), secrets.token_hex(4)
    log.log(logging.ERROR if status >= 500 else logging.INFO, "error %s is %s: %s", error_id, error.code, error)
    said = {"code": error.code, "message": error.message, "hint": error.hint, "id": error_id}
    said |= {name: getattr(error, name) for name in ("fields", "rows") if getattr(error, name, None)}
    document = {"error": said} | ({"node_errors": error.node_errors} if getattr(error, "node_errors", None) else {})
    retry = {"Retry-After": str(RETRY_SECONDS)} if status in (429, 503) else {}
    return plain_json(document, status, {**retry, "Cache-Control": "no-store", **(headers or {})})


class NotFound(Refusal):
    status = 404
    code = "not_found"


class WrongMethod(Refusal):
    status = 405
    code = "wrong_method"


def translate_errors(app: FastAPI) -> None:
    """From here on nothing but such answers leaves the app."""

    async def of_ours(request: Request, error: Exception) -> Response:
        return answer(error)

    async def of_values(request: Request, error: Exception) -> Response:
        return answer(_bad_values(error))

    async def of_routes(request: Request, error: Exception) -> Response:
        return answer(_no_route(request, error))

    app.add_exception_handler(StillmotionError, of_ours)
    app.add_exception_handler(RequestValidationError, of_values)
    app.add_exception_handler(HTTPException, of_routes)
    app.add_middleware(_Unexpected)


class _Unexpected:
    """What nobody foresaw: its traceback goes to the log, its number to the client."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        is_started = False

        async def sent(message: Message) -> None:
            nonlocal is_started
            is_started = True
            await send(message)

        try:
            await self.app(scope, receive, sent)
        except Refusal:
            raise  # of the layer in front: a body that is too long
        except Exception:
            if is_started:
                raise
            refusal = Unexpected()
            log.exception("error %s at %s %s", refusal.error_id, scope["method"], scope["path"])
            await refusal.answer()(scope, receive, send)


def _bad_values(error: RequestValidationError) -> StillmotionError:
    """The first of them."""
    first = error.errors()[0]
    place = [str(part) for part in first["loc"] if part not in ("body", "query", "path", "header")]
    if first["type"] == "json_invalid":
        return InputError(f"The body is no valid JSON: {first.get('ctx', {}).get('error', '')}.".replace(": .", "."), "See /docs.")
    name = ".".join(place) or "The body"
    shown = "" if first["type"] == "missing" or not place else f" {str(first.get('input'))[:100]!r}"
    return InputError(f"{name} is wrong{':' if shown else ''}{shown}. {first['msg']}.", "/docs says what is taken.")


def _no_route(request: Request, error: HTTPException) -> StillmotionError:
    if error.status_code == 404:
        return NotFound(f"There is nothing at {request.url.path[:200]}.", "/docs lists what there is.")
    if error.status_code == 405:
        return WrongMethod(f"{request.method} does not work at {request.url.path[:200]}.", "/docs says what does.", error.headers)
    return InputError(f"{error.detail}", "/docs says what is taken.")
