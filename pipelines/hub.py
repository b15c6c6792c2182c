"""The Hugging Face Hub, or a mirror of it: what a file is there, and its bytes from any place on.

`look_up` asks which commit, size and SHA-256 a file has; `bytes_from` reads that very commit. Only what is asked for is fetched, and the
token goes to the hub alone, not to the servers of others to which it redirects.

Why not `huggingface_hub`, which is installed: since its version 2 a broken download begins again at the first byte, it compares no
SHA-256, and for a full disk it has only a warning. And we forbid it the network in this process (HF_HUB_OFFLINE), so that no library
ever loads a model that nobody asked for.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, field
from http.client import HTTPException, HTTPResponse
from typing import Any
from urllib.parse import quote, urljoin, urlsplit
from urllib.request import HTTPErrorProcessor, Request, build_opener

from errors import BadDownloadError, HubError, HubMissingError, HubOfflineError, HubRefusedError, InputError

USUAL_ENDPOINT = "https://huggingface.co"
_REDIRECTS, _MOST_REDIRECTS = (301, 302, 303, 307, 308), 8
_PASSING = (408, 429, 500, 502, 503, 504)  # trouble that often is over a moment later
_BLOCK = 2**18
_REPO = re.compile(r"[A-Za-z0-9][\w.-]{0,95}/[A-Za-z0-9][\w.-]{0,95}", re.ASCII)


@dataclass(frozen=True)
class HubSettings:
    """`endpoint`: of the hub or of a mirror. `token`: for files whose licence was accepted by somebody. `is_offline`: never ask."""

    endpoint: str = USUAL_ENDPOINT
    token: str = field(default="", repr=False)
    is_offline: bool = False
    timeout_seconds: float = 20.0

    @property
    def shown(self) -> str:
        """The endpoint as everybody may see it: without the name and the password that may stand in it."""
        scheme, slashes, rest = self.endpoint.rpartition("://")
        host, slash, path = rest.partition("/")
        return f"{scheme}{slashes}{host.rpartition('@')[2]}{slash}{path}"


@dataclass(frozen=True)
class HubFile:
    """A file as it is at one commit."""

    repo: str
    path: str
    commit: str
    size: int
    sha256: str


class Interrupted(HubOfflineError):
    """The connection broke, or the hub is busy: it may work a moment later."""


def check_names(repo: str, path: str) -> None:
    """Raises InputError for what no repository or no file of weights can be called."""
    if not isinstance(repo, str) or not _REPO.fullmatch(repo) or ".." in repo:
        raise InputError(f"{str(repo)[:200]!r} is no repository of the hub.", "Name it as owner/name.")
    if not isinstance(path, str) or not all(is_file_name(part) for part in path.split("/")):
        raise InputError(f"{str(path)[:200]!r} is no file of a repository.", "Name it as it is listed there.")
    if not path.endswith(".safetensors"):
        raise InputError(f"{path[:200]!r} is no .safetensors file.", "Other formats can run code when they are opened.")


def is_file_name(text: str) -> bool:
    """Whether it names something inside a folder, and nothing else."""
    try:
        is_short = len(text.encode()) <= 200
    except UnicodeEncodeError:  # half a surrogate pair
        return False
    return is_short and text not in (".", "..") and re.fullmatch(r"[^/\\\x00-\x1f\x7f]+", text) is not None


def look_up(hub: HubSettings, repo: str, path: str) -> HubFile:
    """Raises InputError, HubOfflineError, HubRefusedError, HubMissingError, HubError."""
    check_names(repo, path)
    url = f"{hub.endpoint.rstrip('/')}/{repo}/resolve/main/{quote(path)}"
    with closing(_ask(hub, "HEAD", url, ends_at="X-Linked-Etag")) as answer:
        _raise_for(hub, repo, path, answer)
        headers = answer.headers
        sha256 = (headers.get("X-Linked-Etag") or headers.get("ETag") or "").removeprefix("W/").strip('"').lower()
        size = headers.get("X-Linked-Size") or headers.get("Content-Length") or ""
        commit = headers.get("X-Repo-Commit") or ""
    if not re.fullmatch("[0-9a-f]{64}", sha256) or not re.fullmatch(r"\d{1,15}", size, re.ASCII):
        problem = f"{hub.shown} does not say the size and the SHA-256 of {repo}/{path}."
        raise HubError(problem, "What cannot be checked is not fetched. Use the hub itself or another mirror: HF_ENDPOINT.")
    return HubFile(repo, path, commit if re.fullmatch("[0-9a-f]{40}", commit) else "main", int(size), sha256)


def bytes_from(hub: HubSettings, file: HubFile, start: int) -> Iterator[bytes]:
    """From this place on. At first an empty one is given if the server begins at the first byte instead, which not all can help.
    Raises Interrupted if the connection breaks, and what `look_up` raises."""
    url = f"{hub.endpoint.rstrip('/')}/{file.repo}/resolve/{file.commit}/{quote(file.path)}"
    with closing(_ask(hub, "GET", url, {"Range": f"bytes={start}-"} if start else {})) as answer:
        if answer.status == 416:
            raise BadDownloadError(f"{file.repo}/{file.path} has fewer than {start} bytes now.", "Try again; it then begins anew.")
        _raise_for(hub, file.repo, file.path, answer)
        if start and not (answer.status == 206 and (answer.headers.get("Content-Range") or "").startswith(f"bytes {start}-")):
            yield b""
        try:
            while block := answer.read1(_BLOCK):
                yield block
        except (OSError, HTTPException) as error:
            raise Interrupted(f"The connection to {_host(url)} broke: {_reason(error)}.", "Resume it later; what came is kept.") from error


def _ask(hub: HubSettings, method: str, url: str, headers: dict[str, str] | None = None, *, ends_at: str = "") -> HTTPResponse:
    """The answer after all redirects, or the first that has the header `ends_at`."""
    if hub.is_offline:
        raise HubOfflineError("Nothing is fetched: HF_HUB_OFFLINE is set.", "Unset it, or copy the file into the folder yourself.")
    for _ in range(_MOST_REDIRECTS):
        answer = _once(hub, method, url, headers or {})
        if answer.status not in _REDIRECTS or (ends_at and ends_at in answer.headers):
            return answer
        answer.close()
        url = _next(url, answer.headers.get("Location") or "")
    raise HubError(f"{hub.shown} redirects without end.", "Check HF_ENDPOINT.")


def _next(url: str, location: str) -> str:
    there = urljoin(url, location)
    try:
        scheme, is_named = urlsplit(there).scheme, bool(urlsplit(there).hostname)
    except ValueError:
        scheme, is_named = "", False
    if not is_named or scheme not in ("http", "https") or (scheme == "http" and urlsplit(url).scheme == "https"):
        raise HubError(f"{_host(url)} redirects to {location[:100]!r}, which is no safe address.", "Check HF_ENDPOINT.")
    return there


class _AllAnswers(HTTPErrorProcessor):
    """Every status is an answer; who asked decides what it means."""

    def http_response(self, request: Request, response: Any) -> Any:
        return response

    https_response = http_response


def _once(hub: HubSettings, method: str, url: str, headers: dict[str, str]) -> HTTPResponse:
    own = {"Authorization": f"Bearer {hub.token}"} if hub.token and _origin(url) == _origin(hub.endpoint) else {}
    try:
        request = Request(url, method=method, headers={"User-Agent": "stillmotion", "Accept-Encoding": "identity", **headers, **own})
        return build_opener(_AllAnswers).open(request, timeout=hub.timeout_seconds)
    except (OSError, HTTPException) as error:
        hint = "Check the connection, or set HF_ENDPOINT to a mirror that can be reached. What came so far is kept."
        raise Interrupted(f"{_host(url)} cannot be reached: {_reason(error)}.", hint) from error
    except ValueError as error:
        raise HubError(f"{url[:200]!r} is no address.", "Check HF_ENDPOINT; it begins with https://.") from error


def _raise_for(hub: HubSettings, repo: str, path: str, answer: HTTPResponse) -> None:
    """What a status means, with the hub's own code for it."""
    status, code = answer.status, answer.headers.get("X-Error-Code") or ""
    page = f"{hub.shown.rstrip('/')}/{repo}"
    if status < 300 or (status in _REDIRECTS and "X-Linked-Etag" in answer.headers):
        return
    if code == "GatedRepo" or (status in (401, 403) and code not in ("RepoNotFound", "EntryNotFound")):
        whose = "of the account whose token HF_TOKEN has" if hub.token else ", make a token there and set HF_TOKEN"
        hint = f"Accept the licence at {page} {whose}, then start again." if hub.token else f"Accept the licence at {page}{whose}."
        raise HubRefusedError(f"{repo} is not open to everybody.", hint)
    if code == "RepoNotFound":
        raise HubMissingError(f"There is no repository {repo}, or it is private.", f"Look at {page}; for a private one set HF_TOKEN.")
    if status == 404:
        raise HubMissingError(f"There is no file {path} in {repo}.", f"{page}/tree/main lists those that are there.")
    if status in _PASSING:
        raise Interrupted(f"{_host(page)} is busy (it answers {status}).", "Try again later; what came so far is kept.")
    raise HubError(f"{_host(page)} answers {status} for {repo}/{path}.", "Check HF_ENDPOINT, or try again later.")


def _origin(url: str) -> tuple[str, str]:
    parts = urlsplit(url)
    return parts.scheme, parts.netloc.lower()


def _host(url: str) -> str:
    return urlsplit(url).hostname or url[:100]


def _reason(error: BaseException) -> str:
    inner = getattr(error, "reason", error)
    return str(getattr(inner, "strerror", None) or inner or type(inner).__name__).rstrip(".")
