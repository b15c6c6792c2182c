# ruff: noqa: T201
"""Films by the asynchronous service, second half: watch the sink, and take away what was dealt with."""

import json

from eas_prediction import QueueClient

domain = "<domain>"
token = "<token>"

sink = QueueClient(domain, "svd/sink")
sink.set_token(token)
sink.init()

watcher = sink.watch(0, 5, auto_commit=False)
waiting = {"film-0", "film-1"}
for entry in watcher.run():
    task_id = entry.tags["task_id"]
    *events, outputs = json.loads(entry.data.decode())
    names = [found["filename"] for shown in outputs.values() for found in shown.get("images", []) + shown.get("gifs", [])]
    print(json.dumps({"task_id": task_id, "events": [event["type"] for event in events], "files": names}))
    sink.commit(entry.index)
    waiting.discard(task_id)
    if not waiting:
        break
watcher.close()
print("left:", sink.attributes()["stream.length"])
