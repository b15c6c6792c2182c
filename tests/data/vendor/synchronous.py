# ruff: noqa: PTH123, T201
"""A film by the synchronous service: send the workflow, ask until it is done, fetch the files."""

import json
import time

import requests

service_url = "<service_url>"
token = "<token>"

with open("workflow.json", encoding="utf-8") as file:
    workflow = json.load(file)
session = requests.Session()
session.headers["Authorization"] = token

answer = session.post(f"{service_url}/prompt", json={"prompt": workflow})
answer.raise_for_status()
prompt_id = answer.json()["prompt_id"]
print("prompt_id:", prompt_id)

while not (history := session.get(f"{service_url}/history/{prompt_id}").json()):
    time.sleep(0.2)
print("status:", history[prompt_id]["status"]["status_str"])

for outputs in history[prompt_id]["outputs"].values():
    for found in outputs.get("images", []) + outputs.get("gifs", []):
        where = {"filename": found["filename"], "subfolder": found["subfolder"], "type": found["type"]}
        film = session.get(f"{service_url}/view", params=where)
        film.raise_for_status()
        with open(found["filename"], "wb") as file:
            file.write(film.content)
        print("saved:", found["filename"])
