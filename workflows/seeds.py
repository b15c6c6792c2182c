"""The seeds of a workflow: drawn anew, for another film of the same kind."""

from __future__ import annotations

import copy
import secrets
from collections.abc import Callable, Mapping
from typing import Any

from workflows.templates import RANDOM_SEEDS

SEEDS = ("seed", "noise_seed")


def random_seed() -> int:
    return secrets.randbelow(RANDOM_SEEDS)


def with_new_seeds(workflow: Mapping[str, Any], draw: Callable[[], int] = random_seed) -> dict[str, Any]:
    """A copy in which every seed that is written down is another one. Those that are linked stay so."""
    graph = copy.deepcopy(dict(workflow))
    for node in graph.values():
        inputs = node.get("inputs") if isinstance(node, dict) else None
        for name in SEEDS:
            if isinstance(inputs, dict) and isinstance(inputs.get(name), int | str):
                inputs[name] = draw()
    return graph
