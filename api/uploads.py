"""`/upload/image` and `/upload/mask`: pictures come in. They are written to the disk as they arrive, under a limit, and kept only if they
can be read. The same bytes under the same name are kept once; others get the next free name."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from starlette.concurrency import run_in_threadpool
from starlette.datastructures import FormData, UploadFile
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Message, Receive

from api.comfy_context import Call, ComfyContext, Missing, as_json
from api.previews import check_picture, with_mask
from api.views import KINDS, is_file
from errors import InputError, TooLargeError, UnknownNameError
from pipelines.filenames import publish, storage_error
from workflows.folders import PICTURES, Folders, inside

_NAME_BYTES = 200
_FIELD_BYTES = 64 * 1024
_CHUNK = 1024 * 1024

Write = Callable[[Path], None]


@dataclass(frozen=True)
class _Wish:
    kind: str
    subfolder: str
    name: str
    overwrites: bool

    def document(self, path: Path) -> dict[str, str]:
        return {"name": path.name, "subfolder": self.subfolder, "type": self.kind}


async def upload_image(context: ComfyContext, request: Request) -> Response:
    """Raises InputError, UnreadableFileError, TooLargeError, StorageError."""
    return await _upload(context, request, keep_picture)


async def upload_mask(context: ComfyContext, request: Request) -> Response:
    """Raises as `upload_image`, and Missing if there is no picture to put the mask on."""
    return await _upload(context, request, keep_masked)


async def _upload(context: ComfyContext, request: Request, keep: Callable[[Call, FormData], dict[str, str]]) -> Response:
    limited = Request(request.scope, _limited(request.receive, context.max_upload_bytes))
    try:
        async with limited.form(max_files=1, max_fields=20, max_part_size=_FIELD_BYTES) as form:
            return as_json(await run_in_threadpool(keep, Call(context, request), form))
    except HTTPException as error:
        raise InputError(f"The form cannot be read: {error.detail}") from error


def _limited(receive: Receive, limit: int) -> Receive:
    read = 0

    async def counted() -> Message:
        nonlocal read
        message = await receive()
        read += len(message.get("body", b""))
        if read > limit:
            raise TooLargeError(f"The upload has more than {limit} bytes.", "Send a smaller picture.")
        return message

    return counted


def keep_picture(call: Call, form: FormData) -> dict[str, str]:
    wish, file = _wish(form), form["image"]
    return _kept(call.folders, wish, lambda part: _copy(file, part, wish.name))


def keep_file(folders: Folders, file: Path, name: str) -> str:
    """A picture that has come another way; gives the name under which it is among those that were given. Raises InputError,
    UnreadableFileError, StorageError."""
    wish = _Wish("input", "", _checked_name(name), False)

    def write(part: Path) -> None:
        try:
            shutil.copyfile(file, part)
        except FileNotFoundError as error:
            raise InputError(f"{name!r} is no longer there.", "Send it again.") from error
        check_picture(part, name)

    return _kept(folders, wish, write)["name"]


def keep_masked(call: Call, form: FormData) -> dict[str, str]:
    wish, file = _wish(form), form["image"]
    original = _original(call, form)

    def write(part: Path) -> None:
        mask = part.with_name(part.name + ".mask.part")
        try:
            _copy(file, mask, "The mask")
            with_mask(original, mask, part)
        finally:
            mask.unlink(missing_ok=True)

    return _kept(call.folders, wish, write)


def _kept(folders: Folders, wish: _Wish, write: Write) -> dict[str, str]:
    folder = _folder(folders, wish)
    path = inside(folder, wish.name)
    new = publish(folder / f".{os.urandom(8).hex()}{path.suffix}", path.suffix, write)  # hidden, until it is known what it is
    try:
        if wish.overwrites:
            new.replace(path)
            return wish.document(path)
        number = 0
        while not _is_taken(new, path):
            number += 1
            path = folder / f"{Path(wish.name).stem} ({number}){path.suffix}"
        return wish.document(path)
    except OSError as error:
        raise storage_error(folder, error) from error
    finally:
        new.unlink(missing_ok=True)


def _is_taken(new: Path, path: Path) -> bool:
    """Whether the picture is there under this name now, perhaps since before."""
    try:
        if not os.path.lexists(path):
            publish(path, path.suffix, lambda part: shutil.copyfile(new, part))
            return True
    except InputError:  # somebody else was faster
        pass
    return is_file(path) and _is_same(new, path)


def _copy(file: UploadFile, part: Path, name: str) -> None:
    with part.open("wb") as target:
        shutil.copyfileobj(file.file, target, _CHUNK)
    check_picture(part, name)


def _is_same(one: Path, other: Path) -> bool:
    if one.stat().st_size != other.stat().st_size:
        return False
    with one.open("rb") as first, other.open("rb") as second:
        while chunk := first.read(_CHUNK):
            if chunk != second.read(_CHUNK):
                return False
    return True


def _folder(folders: Folders, wish: _Wish) -> Path:
    root = folders.of(wish.kind)
    folder = inside(root, wish.subfolder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise storage_error(folder, error) from error
    return folder


def _original(call: Call, form: FormData) -> Path:
    """The picture on which a mask is put. Raises InputError, Missing."""
    try:
        told = json.loads(str(form.get("original_ref", "")))
        kind, subfolder, name = (str(told.get(key) or other) for key, other in (("type", "output"), ("subfolder", ""), ("filename", "")))
    except (ValueError, AttributeError, RecursionError) as error:
        raise InputError("original_ref names no picture.", 'Send {"filename": ..., "subfolder": ..., "type": ...} as JSON.') from error
    path = inside(call.folders.of(_checked_kind(kind)), str(PurePosixPath(subfolder, name)))
    if not name or not is_file(path):
        raise Missing(f"There is no file {name[:200]!r}.")
    return path


def _wish(form: FormData) -> _Wish:
    """Raises InputError."""
    file = form.get("image")
    if not isinstance(file, UploadFile):
        raise InputError("No picture was sent.", 'Send a form with a file in the field "image".')
    name = _checked_name(file.filename or "")
    subfolder = "/".join(_checked_part(part) for part in str(form.get("subfolder") or "").replace("\\", "/").split("/") if part)
    if str(form.get("subfolder") or "").startswith(("/", "\\")):
        raise InputError(f"{form['subfolder']!r} leads out of the folder.", "Use a folder inside it.")
    return _Wish(_checked_kind(str(form.get("type") or "input")), subfolder, name, form.get("overwrite") in ("true", "1"))


def _checked_name(name: str) -> str:
    if not name.lower().endswith(PICTURES):
        raise InputError(f"{name[:200]!r} is no name of a picture.", f"It ends in one of {', '.join(PICTURES)}.")
    return _checked_part(name)


def _checked_part(part: str) -> str:
    if part.startswith(".") or set(part) & set("/\\") or not part.isprintable() or len(part.encode()) > _NAME_BYTES:
        hint = f"Use up to {_NAME_BYTES} bytes of printable characters, no slashes, and no dot at the beginning."
        raise InputError(f"{part[:200]!r} cannot be a file or folder name.", hint)
    return part


def _checked_kind(kind: str) -> str:
    if kind not in KINDS:
        raise UnknownNameError("type", kind, KINDS)
    return kind
