"""The asynchronous queue protocol of PAI-EAS: what its clients send to `/api/predict/{service}` and `/api/predict/{service}/sink`.

A workflow that is put into the input queue becomes a job, and the job's result comes out of the sink under the same tags. Any name
will do for the service. `/api_prompt` does without one, and what was put there is seen by every service of the same owner.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Awaitable, Callable
from typing import Any
from urllib.parse import parse_qs

from fastapi import APIRouter
from starlette.concurrency import run_in_threadpool
from starlette.requests import ClientDisconnect, HTTPConnection, Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.websockets import WebSocket

from api import queue_watch
from api.dataframes import PROTOBUF, as_json, attributes, frames
from api.queue_query import GROUP_HEADER, PRIORITY_HEADER, UID_HEADER, QueueQuery
from api.queue_requests import Submit, submit_request
from errors import InputError, QueueFullError, StillmotionError, StorageError, TooLargeError
from jobs.consumers import Kind, QueueName
from jobs.queue_items import Entry, Item
from jobs.queues import Queues
from jobs.queues import Request as OpenRequest

Withdraw = Callable[[list[str], str], None]
Endpoint = Callable[["_Service", Request], Awaitable[Response]]

REQUEST_ID_HEADER = "X-Eas-Queueservice-Request-Id"

_STATUS = {"queue_full": 429, "storage": 507, "too_large": 413}
_RETRY_SECONDS = 5
_MAX_FORM_BYTES = 16 * 1024


def queue_routes(queues: Queues, submit: Submit, withdraw: Withdraw | None = None, *, stall_seconds: float = 60.0) -> APIRouter:
    """All the routes. `submit(task_id, workflow, tags, owner)` makes a job whose id is `tags["requestId"]`, in a worker thread.

    If it raises QueueFullError or StorageError, the client is told to come back, and nothing was accepted; any other error comes out
    of the sink, as the result of this request. `withdraw(request_ids, owner)` is told of requests whose owner deleted them from the
    input queue before they had a result. A watcher that takes nothing for `stall_seconds` is let go.
    """
    service = _Service(queues, submit, withdraw, stall_seconds)
    router = APIRouter()
    for path in ("/api_prompt", "/api/predict/{service}/api_prompt"):
        router.add_route(path, service.answer("input", {"POST": _put_request}), methods=["POST"])
    doors: dict[str, Endpoint] = {"GET": _get, "PUT": _commit, "DELETE": _delete}
    kinds: list[tuple[str, Kind, Endpoint]] = [("/sink", "sink", _put), ("", "input", _put_request)]
    for suffix, kind, put in kinds:
        path = "/api/predict/{service}" + suffix
        router.add_route(path, service.answer(kind, {**doors, "POST": put}), methods=[*doors, "POST"])
        router.add_websocket_route(path, functools.partial(service.watch, kind))
    return router


class _Service:
    """What the endpoints share."""

    def __init__(self, queues: Queues, submit: Submit, withdraw: Withdraw | None, stall_seconds: float) -> None:
        self.queues, self.submit, self.withdraw, self.stall_seconds = queues, submit, withdraw, stall_seconds

    def answer(self, kind: Kind, endpoints: dict[str, Endpoint]) -> Callable[[Request], Awaitable[Response]]:
        """Errors are translated for the wire here, and only here."""

        async def answer(request: Request) -> Response:
            request.state.queue = _queue(request, kind)
            try:
                return await endpoints["GET" if request.method == "HEAD" else request.method](self, request)
            except StillmotionError as error:
                return refusal(error)
            except ClientDisconnect:
                return Response(status_code=400)

        return answer

    async def watch(self, kind: Kind, socket: WebSocket) -> None:
        try:
            query = QueueQuery(socket)
            consumer = query.consumer(_queue(socket, kind))
            is_bare = query.has("_index_only_")
        except InputError as error:
            await socket.send_denial_response(refusal(error))
            return
        await socket.accept()
        is_json = "application/json" in socket.headers.get("Accept", "")
        await queue_watch.push(socket, self.queues, consumer, is_bare=is_bare, is_json=is_json, stall_seconds=self.stall_seconds)


def refusal(error: StillmotionError) -> Response:
    status = _STATUS.get(error.code, 400)
    headers = {"Retry-After": str(_RETRY_SECONDS)} if status == 429 else None
    return JSONResponse({"error": {"code": error.code, "message": error.message, "hint": error.hint}}, status, headers)


async def _put_request(service: _Service, request: Request) -> Response:
    entry = QueueQuery(request).entry(await _body(service, request))
    return _accepted(await run_in_threadpool(_accept, service, request.state.queue, entry))


def _accept(service: _Service, queue: QueueName, entry: Entry) -> Item:
    """If this returns, there will be a result, whatever happens; if it raises, nothing was accepted."""
    item = service.queues.accept(queue, entry)
    request = OpenRequest(item.request_id, queue.service, queue.owner, item.tags, entry.priority, entry.data)
    try:
        submit_request(service.queues, service.submit, request)
    except (QueueFullError, StorageError):
        service.queues.forget(request.id)
        raise
    return item


async def _put(service: _Service, request: Request) -> Response:
    entry = QueueQuery(request).entry(await _body(service, request))
    return _accepted(await run_in_threadpool(service.queues.put, request.state.queue, entry))


async def _get(service: _Service, request: Request) -> Response:
    query, queue, queues = QueueQuery(request), request.state.queue, service.queues
    if query.has("_attrs_"):
        return _attributes(request, queue, await run_in_threadpool(queues.attributes, queue))
    if query.has("_count_"):
        return PlainTextResponse(str(await run_in_threadpool(queues.count, queue, query.tags)))
    if query.has("_search_"):
        return await _search(queues, queue, query)
    wanted, is_taken = query.wanted, query.has("_auto_delete_") and request.method == "GET"
    items = await queue_watch.read_when_there(request, queues, queue, wanted, query.wait_seconds, is_taken=is_taken)
    return _items(request, items, is_raw=query.has("_raw_"))


async def _search(queues: Queues, queue: QueueName, query: QueueQuery) -> Response:
    place = await run_in_threadpool(queues.search, queue, query.group, query.index)
    if place is None:
        return PlainTextResponse("no data in stream", 404)  # clients print these very words
    return JSONResponse({"ConsumerId": place.consumer, "IsPending": place.is_pending, "WaitCount": place.waiting})


async def _commit(service: _Service, request: Request) -> Response:
    query, queue = QueueQuery(request), request.state.queue
    if not query.has("_negative_"):
        await run_in_threadpool(service.queues.commit, queue, query.group, query.indexes)
        return PlainTextResponse("OK")
    indexes, form = query.indexes, parse_qs((await _body(service, request)).decode(errors="replace")[:_MAX_FORM_BYTES])
    reason = ": ".join(form.get(name, [""])[0] for name in ("_code_", "_reason_") if name in form)
    await run_in_threadpool(service.queues.refuse, queue, query.group, query.uid, indexes, reason)
    return PlainTextResponse("OK")


async def _delete(service: _Service, request: Request) -> Response:
    query, queue, queues = QueueQuery(request), request.state.queue, service.queues
    if query.has("_trunc_"):
        requests = await run_in_threadpool(queues.truncate, queue, query.index)
    else:
        requests = await run_in_threadpool(queues.delete, queue, query.indexes)
    if requests and service.withdraw is not None:
        await run_in_threadpool(service.withdraw, requests, queue.owner)
    return PlainTextResponse("OK")


def _queue(connection: HTTPConnection, kind: Kind) -> QueueName:
    """The owner is whom the layer in front of us let in; everybody, also an admin, reads his own: to read is to take away."""
    user: Any = connection.scope.get("user")
    return QueueName(connection.path_params.get("service", ""), kind, "" if user is None else user.name)


async def _body(service: _Service, request: Request) -> bytes:
    """Not read further than an entry may be long. Raises TooLargeError then."""
    limit, parts, size = service.queues.limits.max_payload_bytes, [], 0
    async for part in request.stream():
        size += len(part)
        if size > limit:
            raise TooLargeError(f"The data has more than {limit} bytes.", "Send less, or a reference to it.")
        parts.append(part)
    return b"".join(parts)


def _accepted(item: Item) -> Response:
    return PlainTextResponse(str(item.index), headers={REQUEST_ID_HEADER: item.request_id})


def _attributes(request: Request, queue: QueueName, values: dict[str, str]) -> Response:
    values |= {"meta.name": queue.service + ("/sink" if queue.kind == "sink" else ""), "meta.state": "OK"}
    values |= {"meta.header.user": UID_HEADER, "meta.header.group": GROUP_HEADER, "meta.header.priority": PRIORITY_HEADER}
    if _asks_for_protobuf(request):
        return Response(attributes(values), media_type=PROTOBUF)
    return Response(json.dumps(values), media_type="application/json")


def _items(request: Request, items: list[Item], *, is_raw: bool) -> Response:
    if not items:
        return Response(status_code=204)
    if is_raw:
        return Response(items[0].data, media_type="application/octet-stream", headers={REQUEST_ID_HEADER: items[0].request_id})
    if _asks_for_protobuf(request):
        return Response(frames(items), media_type=PROTOBUF)
    return Response(as_json(items), media_type="application/json")


def _asks_for_protobuf(request: Request) -> bool:
    return PROTOBUF in request.headers.get("Accept", "")
