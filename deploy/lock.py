"""`make lock`: what exactly is installed, with hashes, and under which licences. Needs uv, a recent pip and the package index.

requirements.lock       all that requirements.txt brings, for Python 3.11 to 3.13 on every system
requirements-cuda.lock  the same with xFormers
requirements-mcp.lock   the same with what `serve --mcp` wants
requirements-ray.lock   the same with what `--executor ray` wants
requirements-cpu.lock   the same without PyTorch and what only its CUDA build needs; its CPU build has an index of its own
docs/licences.md        what the packages say of themselves
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
_ENTRY = re.compile(r"^([a-z0-9._-]+)==([^ ;\\]+)", re.MULTILINE)
_ALWAYS = re.compile(r"^([a-z0-9._-]+)==([^ ;\\]+) \\$", re.MULTILINE)
_ONLY_CUDA = re.compile(r"(torch|triton|nvidia-.*|cuda-.*)==.*")
_PYTHONS = ("3.12", "3.13", "3.11")  # where one is not to be had, the next is asked
_PLATFORMS = ("manylinux2014_x86_64", *(f"manylinux_2_{number}_x86_64" for number in range(5, 40)), "win_amd64")
_HEAD = """# Licences of what Stillmotion is built on

Written by `make lock` from what the locked packages say of themselves. Stillmotion itself is under
[Apache-2.0](../LICENSE).

- `imageio-ffmpeg` brings a build of FFmpeg, which is under the GPL. It is run as a program of its own, never linked. Whoever passes on an
  image of a container passes it on too.
- NVIDIA's libraries (`nvidia-*`, `cuda-*`) are not free software; their licences allow to pass them on as part of an application. They
  are not in `requirements-cpu.lock`.
- CLIP's vocabulary in `assets/clip_tokenizer` is under the MIT licence. The demo checkpoints were trained by the scripts in `training/`,
  on pictures that these draw, and are under Apache-2.0 as all else.
- Other people's checkpoints have licences of their own, which often bind what you do with the films. Read them before you use one.

| package | version | licence |
| --- | --- | --- |
"""


def main(options: list[str]) -> None:
    """`options` go to uv: without any, versions that are locked already stay."""
    for name in ("requirements", "requirements-cuda", "requirements-mcp", "requirements-ray"):
        fixed = ("--no-config", "--quiet", "--universal", "--python-version", "3.11", "--generate-hashes", "--no-emit-index-url")
        told = ("--custom-compile-command", "make lock", f"{name}.txt", "-o", f"{name}.lock")
        subprocess.run([sys.executable, "-m", "uv", "pip", "compile", *fixed, *told, *options], cwd=ROOT, check=True)
    whole = (ROOT / "requirements.lock").read_text()
    (ROOT / "requirements-cpu.lock").write_text("".join(block for block in blocks(whole) if not _ONLY_CUDA.match(block)))
    every = "".join((ROOT / f"requirements-{name}.lock").read_text() for name in ("cuda", "mcp", "ray"))
    (ROOT / "docs" / "licences.md").write_text(_HEAD + licence_table(every))


def blocks(lock: str) -> Iterator[str]:
    """The lines about one package, all together."""
    yield from re.split(r"^(?=[a-z0-9])", lock, flags=re.MULTILINE)


def licence_table(lock: str) -> str:
    """Raises LookupError for a package of which nothing is to be had."""
    wanted, found = {f"{name}=={version}" for name, version in _ENTRY.findall(lock)}, {}
    always = {f"{name}=={version}" for name, version in _ALWAYS.findall(lock)}
    found |= metadata_of(always, _PYTHONS[0])
    for python in _PYTHONS:  # those of one Python or system alone, one by one
        for one in sorted(wanted - found.keys()):
            found |= metadata_of({one}, python)
    if missing := sorted(wanted - found.keys()):
        raise LookupError(f"nothing is known of {', '.join(missing)}")
    return "".join(f"| {one.replace('==', ' | ')} | {licence(metadata)} |\n" for one, metadata in sorted(found.items()))


def metadata_of(wanted: set[str], python: str) -> dict[str, dict[str, Any]]:
    """All of them, or none if one has nothing for this Python. By pip's own means, which hardly fetches more than the metadata."""
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder, "report.json")
        where = [part for platform in _PLATFORMS for part in ("--platform", platform)]
        only = ("--dry-run", "--quiet", "--ignore-installed", "--no-deps", "--only-binary", ":all:", "--python-version", python)
        command = [sys.executable, "-m", "pip", "install", *only, *where, "--target", folder, "--report", str(report), *sorted(wanted)]
        if subprocess.run(command, check=False, capture_output=True).returncode:
            return {}
        found = [item["metadata"] for item in json.loads(report.read_text())["install"]]
        return {f"{re.sub('[-_.]+', '-', one['name']).lower()}=={one['version']}": one for one in found}


def licence(metadata: dict[str, Any]) -> str:
    """In the words of the package."""
    if expression := metadata.get("license_expression"):
        return expression
    names = [line.rpartition(" :: ")[2] for line in metadata.get("classifier", ()) if line.startswith("License :: ")]
    first = (metadata.get("license") or "").strip().partition("\n")[0][:80]
    return (
        ", ".join(filter(None, [first if len(first) < 60 else "", *(name for name in names if name != "OSI Approved")]))
        or "see the package"
    )


if __name__ == "__main__":
    main(sys.argv[1:])
