"""How the command line speaks: lines, bars, passwords, the log."""

from __future__ import annotations

import getpass
import logging
import os
import sys
from typing import TYPE_CHECKING

from errors import InputError, StorageError

if TYPE_CHECKING:
    from pipelines.progress import Progress


def say(text: str) -> None:
    """Print to standard output, whatever its encoding. Whoever reads it may have seen enough, as `| head` does."""
    try:
        print(text.encode(sys.stdout.encoding or "utf-8", "backslashreplace").decode(sys.stdout.encoding or "utf-8"), flush=True)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except OSError as error:
        raise StorageError(f"The output could not be written: {error.strerror}.", "Everything else was done.") from error


def is_utf8() -> bool:
    return (sys.stdout.encoding or "").lower().replace("-", "") == "utf8"


def password() -> str:
    """Asked for twice at a terminal; otherwise the first line of standard input. Raises InputError."""
    if not sys.stdin.isatty():
        return sys.stdin.readline().rstrip("\r\n")
    first = getpass.getpass("Password: ")
    if getpass.getpass("The same again: ") != first:
        raise InputError("The two passwords differ.", "Try again.")
    return first


def log_for_servers() -> None:
    """What happens, with the time; the access log's lines, which are JSON, as they are."""
    logging.getLogger("stillmotion").setLevel(logging.INFO)
    for handler in logging.getLogger().handlers:
        handler.setFormatter(ServerFormatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))


class ServerFormatter(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        text = record.getMessage()
        return text if text.startswith('{"method"') else super().format(record)


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
