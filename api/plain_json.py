"""JSON in ASCII: a workflow may hold half of a surrogate pair, which JSON lets through and no encoding takes."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from starlette.responses import Response


def plain_json(document: Any, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    return Response(json.dumps(document), status, headers, "application/json")
