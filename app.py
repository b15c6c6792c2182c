"""Stillmotion's command line: settings -> server, worker or film. `python app.py --help` says what it can do."""

from __future__ import annotations

import dataclasses
import json
import logging
import signal
import sys
from collections.abc import Sequence

import settings
from errors import Canceled, InputError, StillmotionError
from job_options import JobsCommand, SubmitCommand, UsageCommand
from making import film, run
from model_options import DownloadCommand, ModelsCommand
from run_options import BackupCommand, KeepCommand, ReindexCommand, RestoreCommand, RunCommand
from server_options import ServeCommand, WorkCommand
from starting import serve, work
from terminal import is_utf8, password, say


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit code. One line on standard error tells what went wrong."""
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s %(name)s: %(message)s")
    command = None
    try:
        command = settings.parse(sys.argv[1:] if argv is None else argv)
        for name in ("SIGTERM", "SIGHUP"):  # a polite kill or a closed terminal ends like Ctrl-C: nothing half-written stays
            number = getattr(signal, name, None)
            if number is not None and signal.getsignal(number) != signal.SIG_IGN:  # as nohup sets it
                signal.signal(number, signal.default_int_handler)
        match command:
            case settings.ReadCommand():
                return read(command)
            case settings.DoctorCommand():
                return doctor(command)
            case settings.FilmCommand():
                return film(command)
            case RunCommand():
                return run(command)
            case ServeCommand():
                return serve(command)
            case WorkCommand():
                return work(command)
            case _:
                return manage(command)
    except StillmotionError as error:
        print(f"error: {error}", file=sys.stderr)
        if "--json" in (sys.argv[1:] if argv is None else argv):
            say(json.dumps({"error": {"code": error.code, "message": error.message, "hint": error.hint}}))
        return error.exit_code
    except KeyboardInterrupt:
        if isinstance(command, ServeCommand | WorkCommand):
            return 0  # asked to end before it has begun: it ends as it does later
        print("Canceled.", file=sys.stderr)
        return Canceled.exit_code


def read(command: settings.ReadCommand) -> int:
    from pipelines.metadata import read_settings

    found = read_settings(command.path)
    settings_first = dict(sorted(found.items(), key=lambda item: item[0] != "stillmotion"))  # the workflow after what people look for
    say(json.dumps(settings_first, indent=2, ensure_ascii=not is_utf8()))
    return 0


def doctor(command: settings.DoctorCommand) -> int:
    settings.quiet_environment(command.data_dir)
    from pipelines.doctor import examine

    findings = []
    for finding in examine(command.data_dir):
        findings.append(finding)
        mark = {"ok": "ok", "note": "--", "bad": "BAD"}[finding.level]
        say(f"{mark:<4} {finding.subject}: {finding.found}" + (f"\n     {finding.advice}" if finding.advice else ""))
    if command.is_json:
        say(json.dumps([dataclasses.asdict(finding) for finding in findings]))
    return InputError.exit_code if any(finding.level == "bad" for finding in findings) else 0


def manage(command: settings.Command) -> int:
    """Jobs, usage, users and models: done and said at once, or with a bar."""
    import commands

    match command:
        case JobsCommand():
            say(commands.jobs(command))
        case SubmitCommand():
            say(commands.submit(command))
        case UsageCommand():
            say(commands.usage(command))
        case KeepCommand():
            say(commands.keep(command))
        case ReindexCommand():
            say(commands.reindex(command))
        case BackupCommand():
            say(commands.backup(command))
        case RestoreCommand():
            say(commands.restored(command))
        case ModelsCommand():
            say(commands.models(command))
        case DownloadCommand():
            say(commands.download(command))
        case _:
            say(commands.user(command, password))
    return 0


if __name__ == "__main__":
    sys.exit(main())
