"""A film or a workflow, made here and now: without a queue."""

from __future__ import annotations

import json
import sys
import time
from typing import TYPE_CHECKING

import settings
from errors import UnreadableFileError
from run_options import RunCommand, set_inputs
from terminal import ProgressBar, say

if TYPE_CHECKING:
    from workflows.film import FilmResult


def film(command: settings.FilmCommand) -> int:
    began = time.monotonic()
    settings.quiet_environment(command.data_dir)
    from workflows.cache import Cache
    from workflows.film import Film, make_film

    made = Film(command.still, command.motion, command.file, command.image)
    with ProgressBar(is_shown=not command.is_quiet and sys.stderr is not None) as bar:
        cache = Cache(command.data_dir / "cache", memory_bytes=0)
        result = make_film(made, command.data_dir, command.machine, report=bar.report, cache=cache)
    if command.is_json:
        say(json.dumps(result.document()))
    else:
        say(summary(result, time.monotonic() - began))
    return 0


def summary(result: FilmResult, total_seconds: float) -> str:
    """What a person wants to know: where the files are, the seeds, the time each stage took."""
    stages = ", ".join(f"{stage} {seconds:.1f} s" for stage, seconds in result.seconds.items())
    lines = [f"{kind.upper() if kind != 'settings' else 'JSON':<5} {path}" for kind, path in result.files.items()]
    lines += [f"seed  {', '.join(f'{stage} {seed}' for stage, seed in result.seeds.items())}"]
    lines += [f"note  {note}" for note in result.notes]
    lines += [f"time  {stages}; with the start {total_seconds:.1f} s, on {result.placement['device']}"]
    return "\n".join(lines)


def run(command: RunCommand) -> int:
    began = time.monotonic()
    settings.quiet_environment(command.data_dir)
    from pipelines.progress import Progress
    from workflows.advice import advice
    from workflows.cache import Cache
    from workflows.folders import Folders
    from workflows.graph import Workflow
    from workflows.plugins import all_nodes
    from workflows.run import Engine

    folders = Folders(command.data_dir)
    workflow = Workflow.parse(graph_of(command), all_nodes(command.data_dir, command.has_custom_nodes), folders)
    for entry in workflow.node_errors.values():
        for error in entry["errors"]:
            print(f"left out: {entry['class_type']}: {error['message']}: {error['details']}", file=sys.stderr)
    for line in advice(workflow, folders):
        print(f"note: {line}", file=sys.stderr)
    engine = Engine(command.machine, cache=Cache(command.data_dir / "cache", memory_bytes=0))
    with ProgressBar(is_shown=not command.is_quiet and sys.stderr is not None) as bar:
        tell = lambda event: bar.report(event) if isinstance(event, Progress) else None  # noqa: E731
        done = engine.execute(workflow, folders, tell=tell, keeps_metadata=keeps_metadata(command))
    files = {node: [str(path) for path in paths] for node, paths in done.files.items()}
    if command.is_json:
        told = {"outputs": done.outputs, "files": files, "cached": done.cached, "seconds": done.seconds, "notes": done.notes}
        say(json.dumps(told | done.placement))
    else:
        stages = ", ".join(f"{stage} {seconds:.1f} s" for stage, seconds in done.seconds.items())
        lines = [f"{workflow.nodes[node].node_class.name} {path}" for node, paths in files.items() for path in paths]
        lines += [f"note  {note}" for note in done.notes]
        lines += [f"known {', '.join(done.cached)}"] if done.cached else []
        say("\n".join([*lines, f"time  {stages}; with the start {time.monotonic() - began:.1f} s"]))
    return 0


def keeps_metadata(command: RunCommand) -> bool:
    from workflows.templates import extra_of, find_template

    return not command.template or not extra_of(find_template(command.template, command.data_dir), command.values)


def graph_of(command: RunCommand) -> dict[str, object]:
    """The workflow that is asked for, with its values set."""
    from workflows.graph import bare_graph, read_json
    from workflows.templates import check_said, fill, find_template

    if command.template:
        template = find_template(command.template, command.data_dir)
        graph = fill(template, command.values, is_draft=command.is_draft)
        check_said(template, graph)
        return graph
    try:
        text = command.workflow.read_bytes()
    except OSError as error:
        raise UnreadableFileError(f"{command.workflow} cannot be read: {error.strerror or error}.", "Check the path.") from error
    return set_inputs(bare_graph(read_json(text, str(command.workflow))), command.values)
