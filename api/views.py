"""`/view`: a user's files, whole, in part (Range), or as a smaller picture. Nothing outside his folders, and nothing that a browser would
run: what is neither picture, film nor plain text is only ever downloaded."""

from __future__ import annotations

import re
import stat
from collections.abc import Iterator, Mapping
from dataclasses import replace
from email.utils import formatdate
from pathlib import Path, PurePosixPath
from urllib.parse import quote

from starlette.responses import FileResponse, Response

from api.comfy_context import Call, Missing, Outside
from api.previews import Wish, converted
from errors import InputError, UnknownNameError
from workflows.folders import inside

KINDS = ("output", "input", "temp")
_ANNOTATED = re.compile(r"(?P<name>.*?) \[(?P<kind>input|output|temp)\]")
_INLINE = {
    ".png": "image/png", ".jpg": "image/jpeg", ".jpeg": "image/jpeg", ".webp": "image/webp", ".gif": "image/gif", ".avif": "image/avif",
    ".bmp": "image/bmp", ".mp4": "video/mp4", ".webm": "video/webm", ".json": "application/json", ".txt": "text/plain; charset=utf-8",
}  # fmt: skip
_WHOLE = Wish()
_TIFF = {".tif": "image/tiff", ".tiff": "image/tiff", ".ppm": "image/x-portable-pixmap"}  # browsers do not show these


def view(call: Call) -> Response:
    """Raises Missing, Outside, InputError, UnreadableFileError for a preview of what is no picture."""
    path = find(call)
    return sent(path, call.request.headers, _wish(call))


def sent(path: Path, asked: Mapping[str, str], wish: Wish = _WHOLE) -> Response:
    """`asked`: the headers of the request. Raises Missing, UnreadableFileError for a preview of what is no picture."""
    try:
        state = path.stat()
    except OSError as error:
        raise _missing(path.name) from error
    tag = f'"{state.st_mtime_ns:x}-{state.st_size:x}{wish.tag}"'
    modified = formatdate(int(state.st_mtime), usegmt=True)
    headers = {
        "Content-Disposition": disposition(path.name), "ETag": tag, "Last-Modified": modified, "Cache-Control": "private, no-cache",
        "X-Content-Type-Options": "nosniff",
    }  # fmt: skip
    if _is_known(asked, tag, modified):
        return Response(status_code=304, headers=headers)
    if wish.is_file:
        return FileResponse(path, headers=headers, media_type=content_type(path.name), stat_result=state)
    picture, kind = converted(path, wish)
    return Response(picture, headers=headers, media_type=kind)


def find(call: Call) -> Path:
    """The user's file, or to an admin anybody's. Raises Missing, Outside, InputError."""
    kind, subfolder, name = _asked(call)
    place = PurePosixPath(subfolder, name)
    found = list(_found(call, kind, place))
    others = [path for path, is_own in found if not is_own]
    if own := [path for path, is_own in found if is_own]:
        return own[0]
    if len(others) > 1:
        raise InputError(f"Several users have a file {str(place)!r}.", 'Say whose is meant with "&owner=".')
    if not others:
        raise _missing(name)
    return others[0]


def _found(call: Call, kind: str, place: PurePosixPath) -> Iterator[tuple[Path, bool]]:
    owners = [call.user.name]
    if call.user.is_admin:
        subfolder = "" if str(place.parent) == "." else str(place.parent)
        owners += sorted(call.store.owners_of(place.name, subfolder, kind) - set(owners))
    wanted = call.query.get("owner")
    for owner in owners:
        if wanted in (None, owner):
            path = _inside(replace(call.folders, owner=owner).of(kind), place)
            if is_file(path):
                yield path, owner == call.user.name


def _asked(call: Call) -> tuple[str, str, str]:
    """Kind, folder and name."""
    name = call.query.get("filename", "")
    if not name:
        raise Missing("No filename was given.", "Add ?filename=...")
    annotated = _ANNOTATED.fullmatch(name)
    kind, name = (annotated["kind"], annotated["name"]) if annotated else (call.query.get("type", "output"), name)
    if kind not in KINDS:
        raise UnknownNameError("type", kind, KINDS)
    if name.startswith("/") or ".." in PurePosixPath(name).parts or "\0" in name:
        raise InputError(f"{name[:200]!r} leads out of the folder.", "Use a name inside it.")
    return kind, call.query.get("subfolder", ""), name


def _inside(folder: Path, place: PurePosixPath) -> Path:
    try:
        path = inside(folder, str(place))
    except InputError as error:
        raise Outside(f"{str(place)[:200]!r} leads out of the folder.", "Use a folder inside it.") from error
    except (OSError, RuntimeError) as error:  # a link that leads to itself
        raise _missing(place.name) from error
    if any(part.startswith(".") for part in path.relative_to(folder).parts if part != ".."):
        raise _missing(place.name)  # half-written files are hidden
    return path


def is_file(path: Path) -> bool:
    try:
        return stat.S_ISREG(path.stat().st_mode)
    except OSError:  # also a name that is too long
        return False


def content_type(name: str) -> str:
    suffix = PurePosixPath(name).suffix.lower()
    return _INLINE.get(suffix) or _TIFF.get(suffix, "application/octet-stream")


def disposition(name: str) -> str:
    """Shown, or only downloaded."""
    way = "inline" if PurePosixPath(name).suffix.lower() in _INLINE else "attachment"
    is_plain = name.isascii() and name.isprintable() and not set(name) & set('"\\')
    return f'{way}; filename="{name}"' if is_plain else f"{way}; filename*=utf-8''{quote(name, safe='')}"


def _wish(call: Call) -> Wish:
    channel = call.query.get("channel", "rgba")
    if channel not in ("rgba", "rgb", "a"):
        raise UnknownNameError("channel", channel, ("rgba", "rgb", "a"))
    preview = call.query.get("preview")
    if not preview:
        return Wish(channel=channel)
    form, _, quality = preview.partition(";")
    is_jpeg = form == "jpeg" and "a" not in call.query.get("channel", "")
    return Wish("jpeg" if is_jpeg else "webp", min(_number(quality, 90), 100), channel, _number(call.query.get("size", ""), 0))


def _number(text: str, otherwise: int) -> int:
    return int(text) if text.isascii() and text.isdecimal() and len(text) < 5 else otherwise


def _is_known(asked: Mapping[str, str], tag: str, modified: str) -> bool:
    if (known := asked.get("if-none-match")) is not None:
        return known.strip() == "*" or tag in [one.strip().removeprefix("W/") for one in known.split(",")]
    return asked.get("if-modified-since") == modified


def _missing(name: str) -> Missing:
    return Missing(f"There is no file {name[:200]!r}.", "It may have been removed.")
