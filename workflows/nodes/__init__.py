"""The nodes there are, one file a family. A new one is one function in one of them, and its name in the list below."""

from __future__ import annotations

from workflows.declare import Catalog
from workflows.nodes import conditioning, images, loaders, sampling, video


def catalog() -> Catalog:
    """All nodes of this program."""
    return Catalog.of((*loaders.NODES, *conditioning.NODES, *sampling.NODES, *images.NODES, *video.NODES))
