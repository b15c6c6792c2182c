# ruff: noqa: PTH123, T201
"""Films by the asynchronous service, first half: put workflows into the queue."""

import json

import requests

service_url = "<service_url>"
token = "<token>"
headers = {"Authorization": token}

with open("workflow.json", encoding="utf-8") as file:
    workflow = json.load(file)
for number in range(2):
    workflow["3"]["inputs"]["seed"] = number
    answer = requests.post(
        f"{service_url}/api_prompt", params={"task_id": f"film-{number}"}, json=workflow, headers={"Authorization": token}
    )
    answer.raise_for_status()
    print("index:", answer.text)
