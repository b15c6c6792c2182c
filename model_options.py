"""The options of `models` and `download`, and where the hub is: as everywhere, HF_ENDPOINT, HF_TOKEN and HF_HUB_OFFLINE say it."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from errors import InputError, UnreadableFileError
from pipelines.fetch import FOLDERS, Wanted
from pipelines.hub import USUAL_ENDPOINT, HubSettings
from workflows.known_models import find_known, known_models

_TRUE = ("1", "true", "yes", "on")


@dataclass(frozen=True)
class ModelsCommand:
    data_dir: Path
    is_json: bool


@dataclass(frozen=True)
class DownloadCommand:
    data_dir: Path
    hub: HubSettings
    wanted: Wanted
    is_json: bool
    is_quiet: bool


def add_models(models: argparse.ArgumentParser) -> None:
    models.description = "What model files there are, what they serve, and what is known by name."
    models.add_argument("--json", action="store_true", dest="is_json", help="JSON instead of a table")


def add_download(download: argparse.ArgumentParser) -> None:
    download.description = (
        "Fetch a model from the Hugging Face Hub into DATA_DIR/models. One that was broken off goes on. HF_ENDPOINT names a mirror, "
        "HF_TOKEN a token for files whose licence was accepted, HF_HUB_OFFLINE=1 forbids it."
    )
    names = ", ".join(known_models())
    download.add_argument("name", metavar="NAME", help=f"{names}; or OWNER/REPOSITORY/FILE.safetensors")
    download.add_argument("--folder", choices=FOLDERS, help="where it goes (default: checkpoints)")
    download.add_argument("--as", default="", dest="file_name", metavar="FILE", help="what to call it there")
    download.add_argument("--json", action="store_true", dest="is_json", help="end with one line of JSON")
    download.add_argument("--quiet", action="store_true", dest="is_quiet", help="no progress bar")


def models_command(options: argparse.Namespace, environment: Mapping[str, str], data_dir: Path) -> ModelsCommand:
    return ModelsCommand(data_dir, options.is_json)


def download_command(options: argparse.Namespace, environment: Mapping[str, str], data_dir: Path) -> DownloadCommand:
    """Raises InputError."""
    wanted = _wanted(options.name)
    wanted = replace(wanted, folder=options.folder or wanted.folder, name=options.file_name or wanted.name).checked()
    return DownloadCommand(data_dir, hub_settings(environment), wanted, options.is_json, options.is_quiet)


def hub_settings(environment: Mapping[str, str]) -> HubSettings:
    """The token is that of HF_TOKEN, or of the file in which `hf auth login` keeps it. Raises UnreadableFileError, InputError."""
    endpoint = environment.get("HF_ENDPOINT", "").strip().rstrip("/") or USUAL_ENDPOINT
    if not endpoint.startswith(("http://", "https://")):
        raise InputError(f"HF_ENDPOINT is {endpoint!r}, which is no address.", f"Use one such as {USUAL_ENDPOINT}.")
    is_offline = any(environment.get(name, "").strip().lower() in _TRUE for name in ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE"))
    return HubSettings(endpoint, environment.get("HF_TOKEN", "").strip() or _kept_token(environment), is_offline)


def _kept_token(environment: Mapping[str, str]) -> str:
    cache = environment.get("XDG_CACHE_HOME") or Path(environment.get("HOME", "/nonexistent"), ".cache")
    home = environment.get("HF_HOME") or Path(cache, "huggingface")
    path = Path(environment.get("HF_TOKEN_PATH") or Path(home, "token"))
    try:
        return path.read_text(encoding="utf-8").strip()
    except FileNotFoundError:
        return ""
    except (OSError, ValueError) as error:
        if "HF_TOKEN_PATH" not in environment:
            return ""
        raise UnreadableFileError(f"The token of the hub, {path}, cannot be read.", "Set HF_TOKEN instead.") from error


def _wanted(name: str) -> Wanted:
    """Raises UnknownNameError, InputError."""
    parts = name.split("/", 2)
    return Wanted("/".join(parts[:2]), parts[2]) if len(parts) == 3 else find_known(name).wanted
