"""The house rules: who may import what, and that the README tells the truth about the files."""

from __future__ import annotations

import ast
import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
LAYERS = (
    "errors",
    "pipelines",
    "workflows",
    "jobs",
    "api",
    "ui",
    "model_options",
    "space_options",
    "cluster_options",
    "server_options",
    "job_options",
    "run_options",
    "settings",
    "commands",
    "terminal",
    "making",
    "starting",
    "app",
)
TRACKED = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout.split("\n")
PRODUCT = [ROOT / name for name in TRACKED if re.fullmatch(r"[a-z_]+\.py|(pipelines|workflows|jobs|api|ui)/.*\.py", name)]
HEAVY = {"torch", "diffusers", "transformers", "gradio", "xformers"}


def imports(path: Path, *, only_top: bool = False) -> set[str]:
    """Names of the modules that a file imports; with `only_top` those imported when it is imported itself."""
    tree = ast.parse(path.read_text())
    nodes = tree.body if only_top else ast.walk(tree)
    found = set()
    for node in nodes:
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            found.add(node.module)
    return found


@pytest.mark.parametrize("path", PRODUCT, ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_run_downwards(path: Path) -> None:
    layer = LAYERS.index(path.relative_to(ROOT).parts[0].removesuffix(".py"))
    allowed = {*LAYERS[: layer + 1], *(["pipelines"] if LAYERS[layer] == "settings" else [])}
    used = {name.split(".")[0] for name in imports(path)} & set(LAYERS)
    assert used <= allowed


@pytest.mark.parametrize("path", PRODUCT, ids=lambda path: str(path.relative_to(ROOT)))
def test_heavy_libraries_stay_where_they_belong(path: Path) -> None:
    package = path.relative_to(ROOT).parts[0]
    roots = {name.split(".")[0] for name in imports(path)}
    assert not (roots & {"torch", "diffusers", "transformers", "xformers"}) or package == "pipelines"
    assert "gradio" not in roots or package in ("ui", "app.py")
    assert "sqlite3" not in roots or path.parent.name == "jobs"
    if path.name in (
        "app.py",
        "terminal.py",
        "making.py",
        "starting.py",
        "settings.py",
        "server_options.py",
        "job_options.py",
        "run_options.py",
        "model_options.py",
        "errors.py",
        "parameters.py",
        "progress.py",
    ):
        assert not ({name.split(".")[0] for name in imports(path, only_top=True)} & (HEAVY | {"numpy", "PIL"}))


@pytest.mark.parametrize("path", [p for p in PRODUCT if p.name != "settings.py"], ids=lambda path: str(path.relative_to(ROOT)))
def test_only_settings_reads_argv_and_the_environment(path: Path) -> None:
    text = path.read_text()
    assert "os.environ" not in text
    assert "getenv" not in text
    assert "sys.argv" not in text or path.name == "app.py"


def test_tests_are_no_package() -> None:
    assert not [name for name in TRACKED if re.fullmatch(r"tests/(.*/)?__init__\.py", name)]


def test_the_readme_lists_every_file_with_its_job() -> None:
    tree = (ROOT / "README.md").read_text().split("```tree\n")[1].split("```")[0]
    folder, listed = "", set()
    for line in tree.splitlines():
        name = line.split()[0]
        if not line.startswith("  "):
            folder = name if name.endswith("/") else ""
            listed |= set() if folder else {name}
        else:
            listed.add(folder + name)
        assert len(line.split()) > 2 or name == folder, f"no job said for {name}"
    files = {
        n
        for n in TRACKED
        if re.fullmatch(r"[^/]+\.(py|txt)|Makefile|Dockerfile|(pipelines|workflows(/nodes)?|jobs|api|ui|training|benchmarks)/[^/]+\.py", n)
        and not n.endswith("__init__.py")
    }
    assert listed >= files
    assert all((ROOT / name).exists() for name in listed)


def test_the_readme_names_the_two_commands() -> None:
    text = (ROOT / "README.md").read_text()
    assert "make film" in text
    assert "make test" in text
    assert "make test" in (ROOT / ".ci" / "run").read_text()
