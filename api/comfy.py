"""ComfyUI's HTTP and WebSocket protocol: all its routes, each also under `/api`, and those that the clients of PAI-EAS call also under
`/api/predict/{service}`. What is done better than there is listed in `docs/comfyui-differences.md`.

    comfy_queue.py      /prompt /queue /interrupt         comfy_messages.py   a job in ComfyUI's words
    comfy_history.py    /history                          comfy_events.py     what happens to jobs, in these words
    comfy_info.py       /object_info /models ...          websocket.py        /ws
    views.py            /view, with previews.py           uploads.py          /upload/image, /upload/mask
"""

from __future__ import annotations

from fastapi import APIRouter

from api import comfy_history, comfy_info, comfy_queue
from api.comfy_context import ComfyContext, Endpoint, answering
from api.uploads import upload_image, upload_mask
from api.views import view
from api.websocket import Sockets

__all__ = ["ComfyContext", "comfy_routes"]

_METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")  # so that a wrong one is answered here, not by the page
_SERVICE = "/api/predict/{service}"

_OF_CLIENTS: dict[str, dict[str, Endpoint]] = {
    "/prompt": {"GET": comfy_queue.read_prompt, "POST": comfy_queue.submit},
    "/queue": {"GET": comfy_queue.read_queue, "POST": comfy_queue.change_queue},
    "/interrupt": {"POST": comfy_queue.interrupt},
    "/history": {"GET": comfy_history.read_all, "POST": comfy_history.change},
    "/history/{prompt_id:path}": {"GET": comfy_history.read_one},
    "/view": {"GET": view},
    "/object_info": {"GET": comfy_info.nodes},
    "/object_info/{name}": {"GET": comfy_info.node},
    "/upload/image": {"POST": upload_image},
}
_OTHERS: dict[str, dict[str, Endpoint]] = {
    "/upload/mask": {"POST": upload_mask},
    "/models": {"GET": comfy_info.model_folders},
    "/models/{folder}": {"GET": comfy_info.models},
    "/view_metadata/{folder}": {"GET": comfy_info.model_metadata},
    "/embeddings": {"GET": comfy_info.nothing_listed},
    "/extensions": {"GET": comfy_info.nothing_listed},
    "/features": {"GET": comfy_info.features},
    "/system_stats": {"GET": comfy_info.system},
    "/users": {"GET": comfy_info.users},
    "/settings": {"GET": comfy_info.settings},
    "/free": {"POST": comfy_info.free},
}


def comfy_routes(context: ComfyContext) -> APIRouter:
    """All the routes. From now on they listen to `context.board`. Raises StorageError."""
    router, sockets = APIRouter(), Sockets(context)
    for path, endpoints in (_OF_CLIENTS | _OTHERS).items():
        answer = answering(context, endpoints)
        for prefix in ("", "/api", *([_SERVICE] if path in _OF_CLIENTS else [])):
            router.add_route(prefix + path, answer, methods=list(_METHODS))
    for prefix in ("", "/api", _SERVICE):
        router.add_websocket_route(f"{prefix}/ws", sockets.serve)
    return router
