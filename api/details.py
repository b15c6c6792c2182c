"""Every setting of a job in words: what it is called where a person sets it, and its value as text.

Texts, since a seed may be larger than any number that a browser knows.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from jobs.job import VERIFIES, Job
from workflows.seeds import SEEDS
from workflows.templates import Template

Title = Mapping[str, str]


@dataclass(frozen=True)
class Setting:
    """`place`: "3.seed". Titles by language, empty where no template names it; `node` is the node's own title."""

    place: str
    name: str
    value: str
    node: str
    kind: str = "setting"  # prompt, seed or setting
    title: Title = field(default_factory=dict)
    group: Title = field(default_factory=dict)


def details(job: Job, templates: Mapping[str, Template]) -> dict[str, Any]:
    """The template (null if it is none of them), what the job verifies, and all settings: prompts, seeds, then in the order of the form."""
    name = job.extra.get("template")
    own = templates.get(name) if isinstance(name, str) else None
    settings = _in_order(_settings(job.workflow, [own] if own else list(templates.values())))
    verified = job.extra.get(VERIFIES)
    return {
        "template": own.id if own else None, "verifies": verified if isinstance(verified, str) else None,
        "settings": [vars(one) for one in settings],
    }  # fmt: skip


def _settings(graph: Mapping[str, Any], templates: list[Template]) -> Iterator[tuple[int, Setting]]:
    """Each with its place in the form."""
    for i, node in graph.items():
        inputs = node.get("inputs") if isinstance(node, Mapping) else None
        for name, value in inputs.items() if isinstance(inputs, Mapping) else ():
            if isinstance(value, str | int | float | bool):
                text = value if isinstance(value, str) else json.dumps(value)
                order, title, group = _titles(f"{i}.{name}", node.get("class_type"), templates)
                yield order, Setting(f"{i}.{name}", name, text, _title_of(node), _kind(node.get("class_type"), name), title, group)


def _titles(place: str, class_type: object, templates: Iterable[Template]) -> tuple[int, Title, Title]:
    """From the first template that has such a node there and shows this input."""
    for template in templates:
        if template.workflow.get(place.split(".", 1)[0], {}).get("class_type") == class_type:
            fields = ((group, one) for group in template.groups for one in group.fields)
            for order, (group, one) in enumerate(fields):
                if place in one.inputs:
                    return order, one.title, group.title
    return 1000, {}, {}


def _title_of(node: Mapping[str, Any]) -> str:
    told = node.get("_meta")
    title = told.get("title") if isinstance(told, Mapping) else None
    return title if isinstance(title, str) and title else str(node.get("class_type"))


def _kind(class_type: object, name: str) -> str:
    if name in SEEDS:
        return "seed"
    return "prompt" if (class_type, name) == ("CLIPTextEncode", "text") else "setting"


def _in_order(found: Iterable[tuple[int, Setting]]) -> list[Setting]:
    kinds = ("prompt", "seed", "setting")
    return [one for _, one in sorted(found, key=lambda pair: (kinds.index(pair[1].kind), pair[0]))]
