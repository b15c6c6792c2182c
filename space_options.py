"""What Hugging Face Spaces asks of a server: where to listen, who comes by, and where to keep what it makes.

A Space says that it is one by SPACE_ID. Whatever is set by hand, on the command line or in the environment, counts more.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

PERSISTENT = Path("/data")  # only where the Space has storage
PORT = 7860


def is_space(environment: Mapping[str, str]) -> bool:
    return bool(environment.get("SPACE_ID"))


def is_zero(environment: Mapping[str, str]) -> bool:
    """Whether the Space's GPU is lent for each film alone (ZeroGPU)."""
    return environment.get("SPACES_ZERO_GPU", "").lower() in ("1", "t", "true")


def space_environment(environment: Mapping[str, str], *, has_credentials: bool = False) -> Mapping[str, str]:
    """The environment, with what a Space needs. `has_credentials`: the command line says who may enter.

    Nobody but the proxy of Spaces reaches the port, and it finds a Space by its name: any name that arrives is right, an owner's own
    domain and a probe's address among them. A Space without a token is open to all whom Hugging Face lets see it, each browser for
    itself; unless NO_AUTH is set by hand, what concerns everybody is nobody's there: fetching models, pausing the queue.
    """
    if not is_space(environment):
        return environment
    usual = {"LISTEN": "0.0.0.0", "PORT": str(PORT), "ALLOWED_HOSTS": "*", "TRUSTED_PROXIES": "*"}
    if not has_credentials and not any(environment.get(f"STILLMOTION_{name}") for name in ("TOKEN", "USERS")):
        usual["NO_AUTH"] = "true"
    if PERSISTENT.is_dir() and os.access(PERSISTENT, os.W_OK):
        usual["DATA_DIR"] = str(PERSISTENT)
    return {f"STILLMOTION_{name}": value for name, value in usual.items()} | dict(environment)


def space_notices(environment: Mapping[str, str], data_dir: Path, *, no_auth: bool, are_apart: bool) -> tuple[str, ...]:
    """What people have to know before they use it: keys of the page's texts, after "notice."."""
    if not is_space(environment):
        return ()
    is_kept = data_dir.resolve().is_relative_to(PERSISTENT.resolve())
    return (*(() if is_kept else ("space_temporary",)), *(("space_apart" if are_apart else "space_open",) if no_auth else ()))
