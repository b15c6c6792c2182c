from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from workflows.folders import Folders
from workflows.graph import Workflow
from workflows.nodes import catalog
from workflows.playing import length
from workflows.templates import fill, find_template


@pytest.mark.parametrize(
    ("template", "values", "told"),
    [
        ("text_to_film", {}, (14, 2.0)), ("text_to_film", {"frames": 25, "frame_rate": 10}, (25, 2.5)),
        ("text_to_film", {"frames": 14, "pingpong": True, "loop_count": 1}, (14, round(52 / 7, 3))),
        ("still_to_film", {"frames": 7}, (7, 1.0)), ("text_to_still", {}, (None, None)), ("extend_film", {}, (None, None)),
    ],
)  # fmt: skip
def test_frames_and_seconds(template: str, values: dict[str, Any], told: tuple[Any, Any], tmp_path: Path) -> None:
    (tmp_path / "input").mkdir()
    for name in ("still.png", "film.mp4"):
        (tmp_path / "input" / name).touch()
    folders = Folders(tmp_path)
    assert length(Workflow.parse(fill(find_template(template), values), catalog(), folders), folders) == told
