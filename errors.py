"""Every error that a person may see, in one tree.

    StillmotionError             message: what is wrong and which value; hint: what to do; code: stable, for programs
    ├── InputError               a value that was given is wrong                         bad_input
    │   ├── UnknownNameError     a name that does not exist; lists those that do         unknown_name
    │   ├── TooLargeError            more bytes than are taken                           too_large
    │   ├── UnknownJobError      there is no job with this id                            unknown_job
    │   └── JobStateError        the job is not in a state in which this can be done     wrong_state
    ├── UnreadableFileError      a given file is missing, damaged or of another kind     unreadable_file
    ├── CheckpointError          a model file is missing, damaged or does not fit        bad_checkpoint
    ├── QueueFullError           as many jobs wait as may wait                           queue_full
    ├── StorageError             the data directory is full, read-only or not ours       storage
    ├── MemoryExhaustedError     the device, or the machine, has too little memory       out_of_memory
    ├── HubError                 a model cannot be had from the hub                      hub
    │   ├── HubOfflineError      the hub cannot be reached, or must not be               hub_offline
    │   ├── HubRefusedError      a licence has to be accepted, or a token is needed      hub_refused
    │   ├── HubMissingError      there is no such file or repository                     hub_missing
    │   └── BadDownloadError     what came is not what the hub promised                  bad_download
    ├── ClusterError             the machines that do the jobs cannot be had             cluster
    ├── EncodingError            a film could not be written, or did not read back       encoding
    └── Canceled                 somebody asked to stop; nothing is wrong                canceled

`exit_code` is what the command line answers: 2 where the person can mend it, 1 where we failed, 130 after a cancel.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from typing import Any


class StillmotionError(Exception):
    """Base of all. `str(error)` is one line: the message, then the hint."""

    code = "error"
    exit_code = 1
    node = ""  # of the workflow in which it happened

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message if not hint else f"{message} {hint}")
        self.message = message
        self.hint = hint

    def __reduce__(self) -> tuple[Any, ...]:
        """Whole in another process too, whatever its class is made from."""
        return _again, (type(self), self.args, dict(vars(self)))


def _again(kind: type[StillmotionError], args: tuple[Any, ...], known: dict[str, Any]) -> StillmotionError:
    error = kind.__new__(kind, *args)
    vars(error).update(known)
    return error


class InputError(StillmotionError):
    code = "bad_input"
    exit_code = 2


class UnknownNameError(InputError):
    """`kind` says what the name should have named, e.g. "sampler"."""

    code = "unknown_name"

    def __init__(self, kind: str, name: object, known: Iterable[str]) -> None:
        known = list(known)
        near = [one for one in known if one.startswith(f"{name}.")] or difflib.get_close_matches(str(name), known, n=1)
        nearest = f" Did you mean {near[0]!r}?" if near else ""
        super().__init__(f"Unknown {kind} {name!r}.{nearest}", f"Choose one of: {', '.join(known) or '(none)'}.")
        self.kind, self.name, self.known = kind, name, known


class TooLargeError(InputError):
    code = "too_large"


class UnknownJobError(InputError):
    code = "unknown_job"

    def __init__(self, job_id: object) -> None:
        super().__init__(f"There is no job {job_id!r}.", "It may have been removed.")
        self.job_id = job_id


class JobStateError(InputError):
    code = "wrong_state"


class UnreadableFileError(StillmotionError):
    code = "unreadable_file"
    exit_code = 2


class CheckpointError(StillmotionError):
    code = "bad_checkpoint"
    exit_code = 2


class QueueFullError(StillmotionError):
    code = "queue_full"
    exit_code = 2


class StorageError(StillmotionError):
    code = "storage"
    exit_code = 2


class MemoryExhaustedError(StillmotionError):
    code = "out_of_memory"
    exit_code = 2


class HubError(StillmotionError):
    code = "hub"


class HubOfflineError(HubError):
    code = "hub_offline"
    exit_code = 2


class HubRefusedError(HubError):
    code = "hub_refused"
    exit_code = 2


class HubMissingError(HubError):
    code = "hub_missing"
    exit_code = 2


class BadDownloadError(HubError):
    code = "bad_download"


class ClusterError(StillmotionError):
    code = "cluster"


class LentGpuError(StillmotionError):
    code = "gpu_refused"


class EncodingError(StillmotionError):
    code = "encoding"


class Canceled(StillmotionError):
    code = "canceled"
    exit_code = 130

    def __init__(self, message: str = "Canceled.") -> None:
        super().__init__(message)


class blamed_on:
    """An error that leaves this block, of ours or not, says in which node of the workflow it happened."""

    def __init__(self, node: str) -> None:
        self.node = node

    def __enter__(self) -> None: ...

    def __exit__(self, kind: object, error: BaseException | None, _: object) -> None:
        if error is not None and not getattr(error, "node", ""):
            error.node = self.node
