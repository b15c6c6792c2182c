from __future__ import annotations

import copy
import itertools

from workflows.seeds import with_new_seeds
from workflows.templates import find_template


def test_every_seed_that_is_written_down_is_another_and_all_else_stays() -> None:
    workflow = dict(find_template("text_to_film").workflow)
    workflow["90"] = {"class_type": "KSamplerAdvanced", "inputs": {"noise_seed": 5, "steps": 3}}
    workflow["91"] = {"class_type": "KSampler", "inputs": {"seed": ["90", 0]}}
    before, numbers = copy.deepcopy(workflow), itertools.count(100)
    found = with_new_seeds(workflow, lambda: next(numbers))
    assert workflow == before
    assert sorted(found[node]["inputs"][name] for node, name in (("3", "seed"), ("13", "seed"), ("90", "noise_seed"))) == [100, 101, 102]
    assert found["91"] == before["91"]
    assert {node: found[node] for node in found if node not in ("3", "13", "90")} == {
        node: before[node] for node in before if node not in ("3", "13", "90")
    }


def test_what_is_no_workflow_is_left_to_those_who_check_it() -> None:
    assert with_new_seeds({"1": "x", "2": {"inputs": 3}}) == {"1": "x", "2": {"inputs": 3}}
