"""The login page: one small HTML page in English or Chinese, without scripts and without anything from outside.

gradio_client's `auth=(name, password)` posts the same form to the same place and takes the cookie: it gets JSON instead of a page.
"""

from __future__ import annotations

import html
from string import Template
from urllib.parse import parse_qs, quote, urlencode, urlsplit

from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, RedirectResponse, Response

from api.credentials import Credential, Doorkeeper
from api.limits import BodyLimit
from api.refusals import Refusal
from api.sessions import LIFE_SECONDS
from api.users import Login

FORM_BYTES = 8 * 1024
_POLICY = "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'self'"
_TEXTS = {
    "en": {
        "lang": "en", "other": "zh", "other_name": "中文", "in": "Sign in", "out": "Sign out", "name": "Name", "password": "Password",
        "token": "Access token", "token_help": "It was printed when the server started.",
        "unauthorized": "That was not right. Please try again.", "too_many_attempts": "Too many failed attempts. Please wait a little.",
    },
    "zh": {
        "lang": "zh-CN", "other": "en", "other_name": "English", "in": "登录", "out": "退出登录", "name": "用户名", "password": "密码",
        "token": "访问令牌", "token_help": "服务器启动时会显示该令牌。",
        "unauthorized": "输入有误，请重试。", "too_many_attempts": "失败次数过多，请稍后再试。",
    },
}  # fmt: skip
_PAGE = Template("""<!doctype html>
<html lang="$lang"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark"><title>$title - Stillmotion</title>
<style>
body { font: 16px/1.5 system-ui, sans-serif; max-width: 21rem; margin: 15vh auto 0; padding: 0 1rem }
label, input, button { display: block; width: 100%; box-sizing: border-box; font: inherit }
label { margin-top: 1rem } input, button { padding: .6rem; margin-top: .25rem } button { margin-top: 1.5rem; cursor: pointer }
small { opacity: .75 } .wrong { color: #c22; margin: 1rem 0 0 } nav { float: right }
</style></head>
<body><nav><a href="$switch">$other_name</a></nav><h1>Stillmotion</h1>$wrong
<form method="post" action="$action">$fields<button>$title</button></form></body></html>
""")


class LoginPages:
    """`has_names`: whether there are users with names and passwords, or just the one token."""

    def __init__(self, door: Doorkeeper, *, has_names: bool) -> None:
        self._door, self._has_names = door, has_names

    async def login(self, request: Request) -> Response:
        """GET shows the form; POST takes it, and goes on to `next`. Raises Unauthorized, TooManyAttempts or BodyTooLarge."""
        if request.method != "POST":
            return self.form(request)
        fields = await _read_form(request)
        given = Credential(fields.get("password", "").encode("utf-8", "replace"), fields.get("username", ""))
        login = await self._door.identify(given, request.client.host if request.client else "")
        return self.signed_in(_done(request, local_target(request.query_params.get("next", ""))), login, request)

    def logout(self, request: Request) -> Response:
        """Only a POST signs out: a link or a picture on a foreign page cannot."""
        if request.method != "POST":
            return _page(request, "/logout", "out", "")
        answer = _done(request, "/login")
        answer.delete_cookie(self._door.sessions.cookie_name, path=_root(request) or "/", httponly=True, samesite="lax")
        return answer

    def signed_in(self, answer: Response, login: Login, request: Request) -> Response:
        """The answer, with the cookie."""
        sessions, is_secure = self._door.sessions, request.scope.get("scheme") == "https"
        path = _root(request) or "/"
        answer.set_cookie(sessions.cookie_name, sessions.issue(login), LIFE_SECONDS, None, path, None, is_secure, True, "lax")
        answer.headers["Cache-Control"] = "no-store"
        return answer

    def form(self, request: Request, refusal: Refusal | None = None) -> Response:
        """The page, and why the last attempt failed."""
        texts = _TEXTS[_language(request)]
        field = '<label>{0}<input name="{1}" type="{2}" autocomplete="{3}" required></label>'.format
        if self._has_names:
            fields = field(texts["name"], "username", "text", "username")
            fields += field(texts["password"], "password", "password", "current-password")
        else:
            fields = field(texts["token"], "password", "password", "current-password") + f"<small>{texts['token_help']}</small>"
        answer = _page(request, "/login", "in", fields, refusal)
        if refusal:
            answer.status_code = refusal.status
            answer.headers.update(refusal.headers)
        return answer


def local_target(text: str) -> str:
    """A path of ours, with its query, or "/": whatever a browser could take for another host is not followed."""
    is_plain = text.isascii() and text.isprintable() and "\\" not in text and " " not in text
    if not is_plain or not text.startswith("/") or text.startswith("//"):
        return "/"
    try:
        parts = urlsplit(text)
    except ValueError:
        return "/"
    return "/" if parts.scheme or parts.netloc or parts.path in ("/login", "/logout") else text


def login_address(root: str, target: str) -> str:
    target = local_target(target)
    return f"{root}/login" + (f"?next={quote(target, safe='/')}" if target != "/" else "")


async def _read_form(request: Request) -> dict[str, str]:
    """Raises BodyTooLarge. Of what is no form, nothing is read."""
    limit = BodyLimit(request.receive, FORM_BYTES)
    body = b"".join([part async for part in Request(request.scope, limit.receive).stream()])
    try:
        fields = parse_qs(body.decode("utf-8", "replace"), keep_blank_values=True, max_num_fields=10)
    except ValueError:  # too many fields
        return {}
    return {name: values[0] for name, values in fields.items()}


def _done(request: Request, target: str) -> Response:
    """People are led on; programs are told."""
    is_page = "text/html" in request.headers.get("accept", "")
    headers = {"Cache-Control": "no-store"}
    return RedirectResponse(_root(request) + target, 303, headers) if is_page else JSONResponse({"success": True}, headers=headers)


def _page(request: Request, path: str, title: str, fields: str, refusal: Refusal | None = None) -> HTMLResponse:
    texts = _TEXTS[_language(request)]
    wrong = ""
    if refusal:
        said = html.escape(texts.get(refusal.code, refusal.message))
        wrong = f'<p class="wrong" role="alert">{said} <small>({refusal.error_id})</small></p>'
    kept = {name: value for name in ("next", "lang") if (value := request.query_params.get(name))}
    kept["next"] = local_target(kept.get("next", ""))
    here = _root(request) + path
    action, switch = (f"{here}?{urlencode(query)}" for query in (kept, kept | {"lang": texts["other"]}))
    values = {"title": texts[title], "wrong": wrong, "fields": fields, "action": html.escape(action), "switch": html.escape(switch)}
    headers = {"Content-Security-Policy": _POLICY, "Cache-Control": "no-store"}
    return HTMLResponse(_PAGE.substitute(texts, **values), headers=headers)


def _root(request: Request) -> str:
    return request.scope["root_path"]


def _language(request: Request) -> str:
    chosen = request.query_params.get("lang", "")
    if chosen in _TEXTS:
        return chosen
    asked = [part.strip()[:2].lower() for part in request.headers.get("accept-language", "").split(",")]
    return next((language for language in asked if language in _TEXTS), "en")
