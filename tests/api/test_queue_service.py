"""The queue protocol as its own clients speak it: the SDK that users have, unchanged, against a real server on a real port."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import uvicorn
from fastapi import FastAPI

from api.queue_service import queue_routes
from errors import InputError
from jobs.queues import Queues


def serve(app) -> Iterator[str]:
    server = uvicorn.Server(uvicorn.Config(app, host="127.0.0.1", port=0, log_level="warning", lifespan="off"))
    thread = threading.Thread(target=server.run)
    thread.start()
    while not server.started:
        time.sleep(0.005)
    try:
        yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join()


@pytest.fixture
def queues(tmp_path: Path) -> Iterator[Queues]:
    queues = Queues(tmp_path / "queues.db")
    yield queues
    queues.close()


def refuse(task_id, workflow, tags, owner):
    raise InputError("no")


@pytest.fixture
def server(queues):
    app = FastAPI()
    app.include_router(queue_routes(queues, refuse))
    yield from serve(app)


def test_shipped(server):
    from eas_prediction import test_queue_client as shipped
    import unittest

    shipped.QueueEndpoint = server
    s = unittest.defaultTestLoader.loadTestsFromTestCase(shipped.QueueClientTestCase)
    import sys

    for t in s:
        t0 = time.time()
        r = unittest.TestResult()
        t.run(r)
        print(t.id(), time.time() - t0, r, *[e[1] for e in r.errors + r.failures], file=sys.stderr)
