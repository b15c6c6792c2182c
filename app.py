"""Stillmotion's command line: settings -> film -> files. `python app.py --help` says what it can do."""

from __future__ import annotations

import dataclasses
import json
import logging
import os
import signal
import sys
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING

import settings
from errors import Canceled, InputError, StillmotionError, StorageError

if TYPE_CHECKING:
    from pipelines.progress import Progress
    from workflows.film import FilmResult


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit code. One line on standard error tells what went wrong."""
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s %(name)s: %(message)s")
    try:
        for name in ("SIGTERM", "SIGHUP"):  # a polite kill or a closed terminal ends like Ctrl-C: nothing half-written stays
            number = getattr(signal, name, None)
            if number is not None and signal.getsignal(number) != signal.SIG_IGN:  # as nohup sets it
                signal.signal(number, signal.default_int_handler)
        command = settings.parse(sys.argv[1:] if argv is None else argv)
        match command:
            case settings.ReadCommand():
                return read(command)
            case settings.DoctorCommand():
                return doctor(command)
            case _:
                return film(command)
    except StillmotionError as error:
        print(f"error: {error}", file=sys.stderr)
        if "--json" in (sys.argv[1:] if argv is None else argv):
            say(json.dumps({"error": {"code": error.code, "message": error.message, "hint": error.hint}}))
        return error.exit_code
    except KeyboardInterrupt:
        print("Canceled.", file=sys.stderr)
        return Canceled.exit_code


def say(text: str) -> None:
    """Print to standard output, whatever its encoding. Whoever reads it may have seen enough, as `| head` does."""
    try:
        print(text.encode(sys.stdout.encoding or "utf-8", "backslashreplace").decode(sys.stdout.encoding or "utf-8"), flush=True)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except OSError as error:
        raise StorageError(f"The output could not be written: {error.strerror}.", "Everything else was done.") from error


def read(command: settings.ReadCommand) -> int:
    from pipelines.metadata import read_settings

    found = read_settings(command.path)
    settings_first = dict(sorted(found.items(), key=lambda item: item[0] != "stillmotion"))  # the workflow after what people look for
    say(json.dumps(settings_first, indent=2, ensure_ascii=not is_utf8()))
    return 0


def is_utf8() -> bool:
    return (sys.stdout.encoding or "").lower().replace("-", "") == "utf8"


def doctor(command: settings.DoctorCommand) -> int:
    settings.quiet_environment()
    from pipelines.doctor import examine

    findings = []
    for finding in examine(command.data_dir):
        findings.append(finding)
        mark = {"ok": "ok", "note": "--", "bad": "BAD"}[finding.level]
        say(f"{mark:<4} {finding.subject}: {finding.found}" + (f"\n     {finding.advice}" if finding.advice else ""))
    if command.is_json:
        say(json.dumps([dataclasses.asdict(finding) for finding in findings]))
    return InputError.exit_code if any(finding.level == "bad" for finding in findings) else 0


def film(command: settings.FilmCommand) -> int:
    began = time.monotonic()
    settings.quiet_environment()
    from workflows.film import Film, make_film

    made = Film(command.still, command.motion, command.file, command.image)
    with ProgressBar(is_shown=not command.is_quiet and sys.stderr is not None) as bar:
        result = make_film(made, command.data_dir, command.machine, report=bar.report)
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


class ProgressBar:
    """One bar a stage, on standard error: stage, k/n and the time left."""

    def __init__(self, *, is_shown: bool) -> None:
        self.is_shown, self.stage, self.bar = is_shown, "", None

    def __enter__(self) -> ProgressBar:
        return self

    def __exit__(self, error: object, *_: object) -> None:
        if error is None:
            self._finish()
        elif self.bar is not None:
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
