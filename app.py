"""Stillmotion's command line: settings -> film -> files. `python app.py --help` says what it can do."""

from __future__ import annotations

import json
import logging
import os
import signal
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

import settings
from errors import Canceled, StillmotionError

if TYPE_CHECKING:
    from pipelines.progress import Progress
    from workflows.film import FilmResult


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit code. One line on standard error tells what went wrong."""
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s %(name)s: %(message)s")
    signal.signal(signal.SIGTERM, _interrupt)
    try:
        command = settings.parse(sys.argv[1:] if argv is None else argv)
        if isinstance(command, settings.ReadCommand):
            return read(command)
        return film(command)
    except StillmotionError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    except BrokenPipeError:  # whoever read our output has seen enough, as `| head` does
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except KeyboardInterrupt:
        print("Canceled.", file=sys.stderr)
        return Canceled.exit_code


def _interrupt(*_: object) -> None:
    """A polite kill ends like Ctrl-C: nothing half-written stays."""
    raise KeyboardInterrupt


def read(command: settings.ReadCommand) -> int:
    from pipelines.metadata import read_settings

    print(json.dumps(read_settings(command.path), indent=2, ensure_ascii=False), flush=True)
    return 0


def film(command: settings.FilmCommand) -> int:
    settings.quiet_environment()
    from workflows.film import Film, make_film

    made = Film(command.still, command.motion, command.file, command.image)
    with ProgressBar(is_shown=not command.is_quiet) as bar:
        result = make_film(made, command.data_dir, device=command.device, attention=command.attention, report=bar.report)
    if command.is_json:
        print(json.dumps(result.document(), ensure_ascii=False))
    else:
        print(summary(result))
    return 0


def summary(result: FilmResult) -> str:
    """What a person wants to know: where the files are, the seeds, the time each stage took."""
    stages = ", ".join(f"{stage} {seconds:.1f} s" for stage, seconds in result.seconds.items())
    lines = [f"{kind.upper() if kind != 'settings' else 'JSON':<5} {path}" for kind, path in result.files.items()]
    lines += [f"seed  {', '.join(f'{stage} {seed}' for stage, seed in result.seeds.items())}"]
    lines += [f"time  {stages}; {sum(result.seconds.values()):.1f} s in all, on {result.placement['device']}"]
    return "\n".join(lines)


class ProgressBar:
    """One bar a stage, on standard error: stage, k/n and the time left."""

    def __init__(self, *, is_shown: bool) -> None:
        self.is_shown, self.stage, self.bar = is_shown, "", None

    def __enter__(self) -> ProgressBar:
        return self

    def __exit__(self, *_: object) -> None:
        if self.bar is not None:
            self.bar.close()

    def report(self, progress: Progress) -> None:
        if not self.is_shown:
            return
        from tqdm import tqdm

        if progress.stage != self.stage:
            self._finish()
            form = "{desc:<9}{bar:24} {n_fmt}/{total_fmt}  {elapsed} gone, {remaining} left"
            self.bar = tqdm(total=progress.total, desc=progress.stage, bar_format=form, file=sys.stderr)
            self.stage = progress.stage
        self.bar.update(progress.step - self.bar.n)

    def _finish(self) -> None:
        """The next stage has begun: what this one was doing is done."""
        if self.bar is not None:
            self.bar.update(min(1, self.bar.total - self.bar.n))
            self.bar.close()


if __name__ == "__main__":
    sys.exit(main())
