"""Models on the wire: which files there are and what they serve, and downloads from the hub, which only admins start.

They are below `/api/models/`, since `/api/models` itself is ComfyUI's list of folders.
"""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Path, Query

from api.downloads import Downloads
from api.error_answers import NotFound, documented
from api.job_context import Asking
from api.model_answers import DownloadAnswer, DownloadList, DownloadRequest, ModelsAnswer
from api.refusals import AdminsOnly
from api.users import User
from errors import InputError, UnknownNameError
from pipelines.fetch import Wanted
from workflows.known_models import find_known
from workflows.model_list import ModelList

_ONE = "/api/models/downloads/{download_id}"
DownloadId = Annotated[str, Path(max_length=64, examples=["0f3c5a7b9d1e2f40"])]


def model_routes(models: ModelList, downloads: Downloads) -> APIRouter:
    """All the routes. Every one may raise StorageError."""
    router, routes = APIRouter(), _Models(models, downloads)

    def add(method: str, path: str, endpoint: Any, model: Any, *statuses: int, **more: Any) -> None:
        router.add_api_route(
            path, endpoint, methods=[method], response_model=model, tags=["models"], responses=documented(*statuses),
            operation_id=endpoint.__name__, **more,
        )  # fmt: skip

    add("GET", "/api/models/files", routes.list_models, ModelsAnswer)
    add("GET", "/api/models/downloads", routes.list_downloads, DownloadList)
    add("POST", "/api/models/downloads", routes.start_download, DownloadAnswer, 409, status_code=202)
    add("POST", f"{_ONE}/resume", routes.resume_download, DownloadAnswer, 404, 409, status_code=202)
    add("DELETE", _ONE, routes.cancel_download, DownloadAnswer, 404)
    return router


class _Models:
    def __init__(self, models: ModelList, downloads: Downloads) -> None:
        self.models, self.downloads = models, downloads

    def list_models(self, user: Asking) -> Any:
        """Every model file, what it is and which templates it serves; what templates lack; and models that are known by name."""
        hub = self.downloads.hub
        more = {"can_download": user.is_admin, "is_offline": hub.is_offline, "endpoint": hub.shown}
        return self.models.document(shows_paths=user.is_admin) | more

    def list_downloads(self, user: Asking) -> Any:
        """Those that run or wait, and those that were broken off."""
        return {"downloads": self.downloads.list(shows_paths=user.is_admin)}

    def start_download(self, body: DownloadRequest, user: Asking) -> Any:
        """Fetch a model in the background, or go on with one that was broken off. For admins."""
        _check_admin(user)
        if bool(body.model) == bool(body.repo or body.file):
            raise InputError("Neither a known model nor a file of the hub is named, or both are.", "Give `model`, or `repo` and `file`.")
        wanted = find_known(body.model).wanted if body.model else Wanted(body.repo, body.file, body.folder, body.name)
        return self.downloads.add(wanted)

    def resume_download(self, download_id: DownloadId, user: Asking) -> Any:
        """Go on where it was broken off. For admins."""
        _check_admin(user)
        self._check_there(download_id)
        return self.downloads.resume(download_id)

    def cancel_download(
        self,
        download_id: DownloadId,
        user: Asking,
        delete_part: Annotated[bool, Query(description="Also remove what came so far; else it can be resumed.")] = False,
    ) -> Any:
        """Stop it, or clear it away if it has ended. For admins."""
        _check_admin(user)
        self._check_there(download_id)
        return self.downloads.cancel(download_id, forgets=delete_part)

    def _check_there(self, download_id: str) -> None:
        try:
            self.downloads.find(download_id)
        except UnknownNameError as error:
            raise NotFound(f"There is no download {download_id!r}.", "`GET /api/models/downloads` lists them.") from error


def _check_admin(user: User) -> None:
    if not user.is_admin:
        raise AdminsOnly("Only an admin fetches models.", "Ask one of them.")
