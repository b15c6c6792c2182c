"""What a node that writes files is told of its job."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

from pipelines.filenames import GivenName, NumberedName, Style, next_name
from workflows.folders import Folders


def unheard(part: Path, target: Path) -> None:
    """For jobs whose files nobody keeps account of."""


@dataclass(frozen=True)
class JobContext:
    """`graph` is the workflow as it is run; `extra` what its files are to carry besides (ComfyUI's extra_pnginfo). `told(part, target)` is
    called before a finished file gets its name."""

    folders: Folders
    graph: Mapping[str, Any]
    extra: Mapping[str, Any] = field(default_factory=dict)
    now: datetime = field(default_factory=datetime.now)
    keeps_metadata: bool = True
    told: Callable[[Path, Path], None] = unheard

    def metadata(self, *, keep: bool = True) -> dict[str, Any] | None:
        """What goes into a file; with None nothing does."""
        return {"prompt": self.graph, **self.extra} if keep and self.keeps_metadata else None

    def name(self, prefix: str, style: Style, width: int, height: int, kind: str = "output") -> NumberedName:
        """The next free name with this prefix in the user's folder `kind`: output or temp. Raises InputError, StorageError."""
        folder = self.folders.of(kind)
        return next_name(folder, prefix, style=style, width=width, height=height, now=self.now, told=self.told)

    def beside(self, path: Path) -> GivenName:
        """The path, which belongs to a file that this job has numbered."""
        return GivenName(path, self.told)

    def entry(self, path: Path, kind: str = "output") -> dict[str, str]:
        """A file as ComfyUI tells it."""
        subfolder = path.parent.relative_to(self.folders.of(kind)).as_posix()
        return {"filename": path.name, "subfolder": "" if subfolder == "." else subfolder, "type": kind}
