"""An operator's own program, run to its end: it leads a process group, which ends with it.

The program cannot hold the daemon up. Its time is limited, it ends when the daemon stops, and of what it
writes only the end is kept.
"""

import os
import selectors
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from tempfile import TemporaryFile
from threading import Event
from typing import IO

import psutil

from daemon.runtime.child_process import Interrupted
from extractors.errors import LearndError

KEPT_BYTES = 4096
"""How much of a program's error output is kept: its end."""
PIECE_BYTES = 2**16
POLL_SECONDS = 0.1
GRACE_SECONDS = 2.0
"""How long a process group has to end after SIGTERM, before it is killed."""


class CommandTimedOut(LearndError):
    """A program did not end in time, and was ended."""


@dataclass(frozen=True)
class CommandEnd:
    """The end of a program: its exit status, and what it complained of."""

    status: int
    """Its exit status; negative for the signal that ended it."""
    complaint: str
    """The end of its error output."""


def run_command(
    command: Sequence[str], *, given: bytes, environment: Mapping[str, str], seconds: float, stop: Event
) -> CommandEnd:
    """Run a program with `given` on its standard input, and return how it ended.

    What it started, and left in its process group, ends with it. Raises OSError where it cannot be started,
    CommandTimedOut after `seconds`, and Interrupted once `stop` is set.
    """
    with TemporaryFile() as file:
        # A file, unlike a pipe, is written before the program reads it.
        file.write(given)
        file.seek(0)
        process = subprocess.Popen(
            command,
            env=environment,
            stdin=file,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            start_new_session=True,
        )
    assert process.stderr is not None  # noqa: S101  # it is a pipe
    with process.stderr, _Tail(process.stderr) as complaint:
        try:
            _wait(process, complaint, time.monotonic() + seconds, stop)
        except TimeoutError:
            raise CommandTimedOut(f"it did not end within {seconds:g} s, and was ended") from None
        finally:
            _end_group(process)
            process.wait()
        return CommandEnd(process.returncode, complaint.read_rest().decode("utf-8", "replace").strip())


class _Tail:
    """The end of what comes through a pipe, which is drained so that nobody waits to write into it."""

    def __init__(self, pipe: IO[bytes]) -> None:
        self._descriptor = pipe.fileno()
        self._kept = b""
        self._open = True
        os.set_blocking(self._descriptor, False)

    def __enter__(self) -> "_Tail":
        self._selector = selectors.DefaultSelector()
        self._selector.register(self._descriptor, selectors.EVENT_READ)
        return self

    def __exit__(self, *_: object) -> None:
        self._selector.close()

    def drain(self, seconds: float) -> None:
        """Read what comes within `seconds`, one piece at most."""
        if not self._open:
            time.sleep(seconds)
        elif self._selector.select(seconds):
            self._read_piece()

    def read_rest(self) -> bytes:
        """Return the end of everything that was written until now."""
        for _ in range(PIECE_BYTES // 4096):  # as much as a pipe holds, and not what others go on writing
            if not self._open or not self._selector.select(0):
                break
            self._read_piece()
        return self._kept

    def _read_piece(self) -> None:
        piece = os.read(self._descriptor, PIECE_BYTES)
        self._open = bool(piece)
        self._kept = (self._kept + piece)[-KEPT_BYTES:]


def _wait(process: "subprocess.Popen[bytes]", output: _Tail, deadline: float, stop: Event) -> None:
    """Return when the program has ended. Raises TimeoutError and Interrupted."""
    while process.poll() is None:
        if stop.is_set():
            raise Interrupted("stopping; the command is run again after the next start")
        if time.monotonic() > deadline:
            raise TimeoutError
        output.drain(POLL_SECONDS)


def _end_group(process: "subprocess.Popen[bytes]") -> None:
    """End everything in the program's process group: politely, and after a while by force."""
    deadline, name = time.monotonic() + GRACE_SECONDS, signal.SIGTERM
    while True:
        try:
            os.killpg(process.pid, name)
        except ProcessLookupError:
            return
        if name is signal.SIGKILL:
            return
        while time.monotonic() < deadline and _is_alive(process):
            time.sleep(POLL_SECONDS)
        name = signal.SIGKILL


def _is_alive(process: "subprocess.Popen[bytes]") -> bool:
    """Return whether anything is at work in the program's process group."""
    process.poll()  # An ended program counts as one of its group until it is asked for its status.
    return any(
        _find_group(each.pid) == process.pid and each.info["status"] != psutil.STATUS_ZOMBIE
        for each in psutil.process_iter(["status"])
    )


def _find_group(process_id: int) -> int | None:
    try:
        return os.getpgid(process_id)
    except (ProcessLookupError, PermissionError):
        return None
