"""Memory: how much is free, the peak of this process, releasing what is unused, and out-of-memory errors."""

import ctypes
import errno
import gc
import math
import resource
import sys
from pathlib import Path

CONTROL_GROUPS = Path("/sys/fs/cgroup")
PROCESS = Path("/proc/self")
FILE_CACHE = frozenset({"active_file", "inactive_file"})
"""Lines of `memory.stat`: pages that the kernel takes back when they are needed."""


def measure_free_memory(device: str) -> int:
    """Return the bytes that a training could take now: of the GPU, or of the machine and its containers."""
    if device == "cuda":
        import torch

        return int(torch.cuda.mem_get_info()[0])
    import psutil

    return int(min(psutil.virtual_memory().available, read_cgroup_headroom()))


def read_cgroup_headroom(process: Path = PROCESS, groups: Path = CONTROL_GROUPS) -> float:
    """Return the bytes that the control groups of `process` still allow it (Linux, version 2).

    Infinite without a limit. A limit may be set on any group above the process's own: on a service,
    its slice, or a container.
    """
    try:
        lines = (process / "cgroup").read_text().splitlines()
    except OSError:
        return math.inf
    own = next((line.removeprefix("0::/") for line in lines if line.startswith("0::/")), None)
    if own is None:
        return math.inf
    folder = groups / own
    return min(
        _read_group_headroom(group) for group in (folder, *folder.parents) if group.is_relative_to(groups)
    )


def _read_group_headroom(group: Path) -> float:
    try:
        most, now = (group / "memory.max").read_text().strip(), int((group / "memory.current").read_text())
        stat = (group / "memory.stat").read_text().splitlines()
    except OSError:
        return math.inf
    if most == "max":
        return math.inf
    counters = dict(line.split() for line in stat)
    cache = sum(int(counters.get(name, 0)) for name in FILE_CACHE)
    return max(0.0, float(most) - (now - cache))


def measure_peak_memory(device: str) -> int:
    """Return the peak so far in bytes: of the GPU where `device` is `cuda`, else of the process."""
    if device == "cuda":
        import torch

        return int(torch.cuda.max_memory_allocated())
    try:
        lines = (PROCESS / "status").read_text().splitlines()
    except OSError:
        lines = []
    for line in lines:
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    # For systems without that file. On Linux, it would be the parent's peak where that is higher.
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def release_memory() -> None:
    """Return freed memory to the system: torch's allocator keeps it on a GPU, glibc's on a CPU."""
    import torch

    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)


OUT_OF_MEMORY = ("can't allocate memory", "out of memory", "Cannot allocate memory", "bad_alloc")
"""Messages of torch's allocators, mmap and C++, whose errors have no type of their own."""


def is_out_of_memory(error: BaseException) -> bool:
    """Return True if `error` says that memory ran out, on a GPU or on a CPU."""
    import torch

    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    if isinstance(error, OSError) and error.errno == errno.ENOMEM:
        return True
    return isinstance(error, RuntimeError) and any(words in str(error) for words in OUT_OF_MEMORY)
