"""Where nobody signs in and yet nobody is to see another's work: each browser is somebody of its own, known by a signed cookie.

Whoever loses the cookie loses the way to what was made with it. A program keeps it as a browser does; `gradio_client` does so by itself.
"""

from __future__ import annotations

import secrets

from starlette.responses import Response

from api.sessions import LIFE_SECONDS, Sessions
from api.users import Login, User
from api.visit import Visit

_PROOF = "visitor"  # a cookie that somebody got for a password is no visitor's


class Visitors:
    """`may_be_framed`: our page is shown inside one of another site, where browsers send only cookies that say so."""

    def __init__(self, sessions: Sessions, *, may_be_framed: bool) -> None:
        self._sessions, self._may_be_framed = sessions, may_be_framed

    def of(self, visit: Visit) -> tuple[User, dict[bytes, bytes]]:
        """Who it is, and the headers of the answer: the cookie for who comes anew, and again for whoever opens the page."""
        found = self._sessions.read(visit.cookies.get(self._sessions.cookie_name, ""))
        name = found[0] if found and found[1] == _PROOF else None
        user = User(name or f"visitor-{secrets.token_hex(8)}", is_admin=False)
        return user, {} if name and not visit.wants_page else self._cookie(user, visit)

    def _cookie(self, user: User, visit: Visit) -> dict[bytes, bytes]:
        """Never kept by a cache in between, which would make one of two."""
        is_secure, answer = visit.scheme == "https", Response()
        is_inside = self._may_be_framed and is_secure
        answer.set_cookie(
            self._sessions.cookie_name, self._sessions.issue(Login(user, _PROOF)), LIFE_SECONDS, path=visit.root or "/", secure=is_secure,
            httponly=True, samesite="none" if is_inside else "lax",
        )  # fmt: skip
        cookie = answer.headers["set-cookie"] + ("; Partitioned" if is_inside else "")  # one for each site that shows us
        return {b"set-cookie": cookie.encode(), b"cache-control": b"private, no-store"}
