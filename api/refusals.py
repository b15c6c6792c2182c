"""What the door says when it says no.

    Refusal                  an HTTP status, headers, and what every error here has: message, hint, code
    ├── BadRequest           400  bad_request         the request contradicts itself
    ├── Unauthorized         401  unauthorized        nobody has shown who he is
    ├── ForbiddenHost        403  forbidden_host      this server does not answer to that name
    ├── ForbiddenOrigin      403  forbidden_origin    a page of another site is asking
    ├── AdminsOnly           403  admins_only         a user asks for what concerns everybody
    ├── BodyTooLarge         413  body_too_large
    ├── TooManyAttempts      429  too_many_attempts   passwords are being guessed
    ├── HeadersTooLarge      431  headers_too_large
    └── Unexpected           500  internal            a mistake of ours; the log knows more than the answer

Each is raised inside and translated once, in `api/access.py`.
"""

from __future__ import annotations

import math
import secrets
from collections.abc import Mapping

from starlette.responses import JSONResponse

from errors import StillmotionError

_ASK = {"WWW-Authenticate": 'Bearer realm="Stillmotion"'}  # Basic works too, but naming it makes browsers open their own dialog


class Refusal(StillmotionError):
    """`error_id` stands in the answer and in the log, so that one can be found from the other."""

    status = 400
    code = "bad_request"

    def __init__(self, message: str, hint: str = "", headers: Mapping[str, str] | None = None) -> None:
        super().__init__(message, hint)
        self.headers = dict(headers or {})
        self.error_id = secrets.token_hex(4)

    def answer(self, *, is_websocket: bool = False) -> JSONResponse:
        """The error as JSON. A WebSocket that may not be opened gets 403 where a request gets 401, as its clients expect."""
        said = {"code": self.code, "message": self.message, "hint": self.hint, "id": self.error_id}
        status = 403 if is_websocket and self.status == 401 else self.status
        return JSONResponse({"error": said}, status, self.headers | {"Cache-Control": "no-store"})


class BadRequest(Refusal):
    pass


class Unauthorized(Refusal):
    status = 401
    code = "unauthorized"

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message, hint, _ASK)


class ForbiddenHost(Refusal):
    status = 403
    code = "forbidden_host"


class ForbiddenOrigin(Refusal):
    status = 403
    code = "forbidden_origin"


class AdminsOnly(Refusal):
    status = 403
    code = "admins_only"


class BodyTooLarge(Refusal):
    status = 413
    code = "body_too_large"

    def __init__(self, limit_bytes: int) -> None:
        super().__init__(f"The body is larger than {limit_bytes} bytes.", "Send less at once.")


class TooManyAttempts(Refusal):
    status = 429
    code = "too_many_attempts"

    def __init__(self, wait_seconds: float) -> None:
        seconds = max(1, math.ceil(wait_seconds))
        super().__init__("Too many failed attempts from this address.", f"Try again in {seconds} s.", {"Retry-After": str(seconds)})


class HeadersTooLarge(Refusal):
    status = 431
    code = "headers_too_large"


class Unexpected(Refusal):
    status = 500
    code = "internal"

    def __init__(self) -> None:
        super().__init__("Something went wrong on our side.", "The log of the server tells more under this id.")
