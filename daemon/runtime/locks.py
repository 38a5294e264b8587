"""Locks between processes of one machine, held by open files, so that a kill -9 releases them."""

import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from daemon.runtime.paths import daemon_lock_file, promotion_lock_file, snapshot_lock_file
from extractors.errors import LearndError


class Locked(LearndError):
    """Another process holds the lock."""


def try_lock(path: Path) -> int | None:
    """Return a file descriptor that holds an exclusive lock on `path`, or None if another process holds it.

    Closing the descriptor releases the lock; a child that inherits it holds the lock as well.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        return None
    return descriptor


@contextmanager
def hold_lock(path: Path, what_to_do: str, wait_seconds: float = 0) -> Iterator[None]:
    """Hold a lock on `path` during the block.

    Raises Locked, whose message ends in `what_to_do`, if another process still holds it after
    `wait_seconds`.
    """
    deadline = time.monotonic() + wait_seconds
    while (descriptor := try_lock(path)) is None and time.monotonic() < deadline:
        time.sleep(0.1)
    if descriptor is None:
        raise Locked(f"{path} is held by process {_holder(path)}; {what_to_do}")
    try:
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, str(os.getpid()).encode(), 0)
        yield
    finally:
        os.close(descriptor)


@contextmanager
def daemon_lock(data_dir: Path) -> Iterator[None]:
    """Hold the lock of a data directory: one daemon, or one `learnd once`, works on it. Raises Locked."""
    with hold_lock(daemon_lock_file(data_dir), "stop it; to have it start a cycle, `learnd cycles start`"):
        yield


SNAPSHOT_PATIENCE = 60.0
"""Seconds in which a snapshot is written, and in which unused ones are removed."""


@contextmanager
def snapshot_lock(data_dir: Path, target: str) -> Iterator[None]:
    """Hold the lock for snapshots of a target. Raises Locked after `SNAPSHOT_PATIENCE`.

    A cycle holds it from writing its snapshot until the store names it, so that nobody takes the snapshot
    for an unused one in between and removes it.
    """
    lock = snapshot_lock_file(data_dir, target)
    with hold_lock(lock, "snapshots are being removed; try again when that is done", SNAPSHOT_PATIENCE):
        yield


@contextmanager
def promotion_lock(data_dir: Path, target: str, wait_seconds: float = 0) -> Iterator[None]:
    """Hold the lock for changes of what a target's replicas load. Raises Locked after `wait_seconds`."""
    lock = promotion_lock_file(data_dir, target)
    with hold_lock(lock, "another promotion is under way; try again when it is done", wait_seconds):
        yield


def _holder(path: Path) -> str:
    return path.read_text(errors="replace").strip() or "unknown"
