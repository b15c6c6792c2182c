"""Who may enter: one layer in front of everything, the page, the WebSockets, the files and the API.

A request passes in turn: the size of its headers, what the proxy says of it, Host, Origin, credentials, the size of its body. Behind
this layer `scope["user"]` is a `User`. Without a token and without users everybody is the same user, called "", who may do everything, if
`everybody_is_admin`; with `everybody_is_apart` each browser is a user of its own.

Start the server with SERVER_OPTIONS.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable

from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from api.access_log import Record, security_headers
from api.access_settings import SERVER_OPTIONS, AccessSettings, Credentials, entry_address, startup_credentials
from api.credentials import Credential, Doorkeeper, missing, read_authorization
from api.forwarded import TrustedProxies, checked_root_path
from api.limits import Attempts, BodyLimit
from api.login import LoginPages, local_target, login_address
from api.origins import HostRule, OriginRule
from api.refusals import Refusal, TooManyAttempts, Unauthorized, Unexpected
from api.sessions import Sessions, read_key
from api.users import Login, User, Users, UsersFile
from api.visit import Visit
from api.visitors import Visitors

__all__ = ["SERVER_OPTIONS", "Access", "AccessSettings", "Credentials", "User", "entry_address", "startup_credentials"]

log = logging.getLogger("stillmotion.access")

_HEALTH = frozenset({"/healthz", "/readyz"})
_PAGES = frozenset({"/login", "/logout"})
_EVERYBODY = User("", is_admin=True)
_NOBODY = User("", is_admin=False)


class Access:
    """Wraps an ASGI app. `now` is the wall clock of the cookies, `clock` that of the limits."""

    def __init__(
        self, app: ASGIApp, settings: AccessSettings, now: Callable[[], float] = time.time, clock: Callable[[], float] = time.monotonic
    ) -> None:
        """Raises InputError for settings that contradict each other, UnreadableFileError or StorageError for their files."""
        settings.check()
        self.app, self.settings = app, settings
        self._hosts = HostRule.of(settings.listen_host, settings.allowed_hosts, has_credentials=settings.has_credentials)
        self._origins = OriginRule.of(settings.allowed_origins)
        self._proxies, self._root = TrustedProxies(settings.trusted_proxies), checked_root_path(settings.root_path)
        self._headers = security_headers(may_be_framed=settings.may_be_framed)
        self._door = _door(settings, now, clock) if settings.has_credentials else None
        self._visitors = _visitors(settings, now) if settings.everybody_is_apart and not self._door else None
        self._pages = LoginPages(self._door, has_names=settings.users_path is not None) if self._door else None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self.app(scope, receive, send)
            return
        record = Record(scope, send, self._headers)
        body = BodyLimit(receive, self.settings.body_limit_bytes)
        try:
            await self._serve(Visit(scope), receive, record, body)
        finally:
            record.write()

    async def _serve(self, visit: Visit, receive: Receive, record: Record, body: BodyLimit) -> None:
        """Our answer or the app's; and of what goes wrong, one that tells only what it may."""
        try:
            answer = await self._answer(visit, record, body)
            if answer is None:
                await self._pass_on(visit, receive, record, body)
        except Exception as error:
            if record.is_started and body.refusal is None:
                raise
            is_gone = record.is_started or isinstance(error, ClientDisconnect)
            answer = None if is_gone else self._refuse(visit, body.refusal or error, record)
        if answer is not None and visit.is_websocket and "websocket.http.response" not in (visit.scope.get("extensions") or {}):
            await record.send({"type": "websocket.close", "code": 1008})  # this server can only say no
        elif answer is not None:
            await answer(visit.scope, receive, record.send)

    async def _pass_on(self, visit: Visit, receive: Receive, record: Record, body: BodyLimit) -> None:
        async def send(message: Message) -> None:
            if body.refusal and not record.is_started:
                raise body.refusal  # or else the app's own idea of a body that breaks off would go out
            await record.send(message)

        visit.scope.setdefault("state", {})
        await self.app(visit.scope, receive if visit.is_websocket else body.receive, send)
        if body.refusal and not record.is_started:
            raise body.refusal

    def _refuse(self, visit: Visit, error: Exception, record: Record) -> Response:
        refusal = error if isinstance(error, Refusal) else Unexpected()
        record.error_id = refusal.error_id
        if refusal is error:
            log.info("error %s is %s: %s", refusal.error_id, refusal.code, refusal.message)
        else:
            log.error("error %s", refusal.error_id, exc_info=error)
        if visit.wants_page and self._pages:
            if visit.path == "/login" and isinstance(refusal, Unauthorized | TooManyAttempts):
                return self._pages.form(Request(visit.scope), refusal)
            if isinstance(refusal, Unauthorized) and visit.method in ("GET", "HEAD"):
                return RedirectResponse(login_address(visit.root, visit.target), 303, {"Cache-Control": "no-store"})
        return refusal.answer(is_websocket=visit.is_websocket)

    async def _answer(self, visit: Visit, record: Record, body: BodyLimit) -> Response | None:
        """The way in, step by step. An answer of ours, or None: go on to the app. Raises Refusal."""
        visit.scope["user"] = _NOBODY
        # 1. what is it?
        visit.read(self._proxies, self._root, takes_token=self._door is not None)
        if visit.path in _HEALTH and visit.method in ("GET", "HEAD"):
            return None  # probes use whatever name they like
        # 2. where does it come from?
        if preflight := self._check_place(visit, record):
            return preflight
        # 3. who is it? Those who sign in are asked by the page
        login, is_named = None, False
        if self._visitors is not None:
            visit.scope["user"], cookie = self._visitors.of(visit)
            record.add_headers(cookie)
        elif self._door is None:
            visit.scope["user"] = _EVERYBODY if self.settings.everybody_is_admin else _NOBODY
        elif visit.path not in _PAGES or visit.is_websocket:
            login, is_named = await self._identify(self._door, visit)
            visit.scope["user"] = login.user
        if visit.can_write and visit.header("origin") == "null" and not is_named:
            self._origins.check_null()
        # 4. how much does it bring?
        if not visit.is_websocket:
            body.limit_bytes = self.settings.body_limit(visit.path)
            body.check_announced(visit.header("content-length"))
        # 5. is it for us?
        if visit.path in _PAGES and not visit.is_websocket:
            return await self._page(Request(visit.scope, body.receive), visit)
        if login and visit.token and visit.wants_page:
            answer = RedirectResponse(visit.root + local_target(visit.target), 303)
            return self._pages.signed_in(answer, login, Request(visit.scope))
        return None

    def _check_place(self, visit: Visit, record: Record) -> Response | None:
        """Host and Origin; the answer to a browser that asks on behalf of a page elsewhere whether it may."""
        self._hosts.check(visit.host)
        if visit.asked_host:
            self._hosts.check(visit.asked_host)
            visit.replace_host()
        origin = visit.header("origin")
        if origin and visit.can_write:
            self._origins.check(origin, visit.asked_host or visit.host, visit.scheme)
        if origin and self._origins.allows(origin):
            record.add_headers({b"access-control-allow-origin": origin.encode("latin-1"), b"vary": b"Origin"})
            if visit.method == "OPTIONS" and (asked := visit.header("access-control-request-method")):
                wanted = visit.header("access-control-request-headers")
                allowed = {"Access-Control-Allow-Methods": asked, "Access-Control-Allow-Headers": wanted, "Access-Control-Max-Age": "600"}
                return Response(status_code=204, headers=allowed)
        return None

    async def _identify(self, door: Doorkeeper, visit: Visit) -> tuple[Login, bool]:
        """Who it is, and whether more than a cookie shows it, for cookies come by themselves.

        With a good cookie, wrong credentials do no harm: browsers send us what a proxy in between asked them for. Raises Unauthorized.
        """
        by_cookie = door.by_cookie(visit.cookies.get(door.sessions.cookie_name, ""))
        header = visit.header("authorization").strip()
        if by_cookie and visit.token is None and (not header or header.lower().startswith("basic ")):
            return by_cookie, False
        if visit.token is None and not header:
            raise missing()
        try:
            given = read_authorization(header) if header else Credential(visit.token)
            return await door.identify(given, visit.client), True
        except Refusal:
            if by_cookie:
                return by_cookie, False
            raise

    async def _page(self, request: Request, visit: Visit) -> Response:
        if self._pages is not None:
            return await self._pages.login(request) if visit.path == "/login" else self._pages.logout(request)
        return JSONResponse({"success": True}) if visit.method == "POST" else RedirectResponse(f"{visit.root}/", 303)


def _visitors(settings: AccessSettings, now: Callable[[], float]) -> Visitors:
    return Visitors(Sessions(read_key(settings.key_path), now), may_be_framed=settings.may_be_framed)


def _door(settings: AccessSettings, now: Callable[[], float], clock: Callable[[], float]) -> Doorkeeper:
    sessions, attempts = Sessions(read_key(settings.key_path), now), Attempts(clock=clock)
    if settings.users_path is not None:
        return Doorkeeper(UsersFile(settings.users_path).current, sessions, attempts)
    only = Users.of_token(settings.token)
    return Doorkeeper(lambda: only, sessions, attempts)
