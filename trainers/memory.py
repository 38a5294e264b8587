"""Memory that a process no longer uses, given back to the device and to the system."""

import ctypes
import gc


def give_back() -> None:
    """Give back what was freed: torch's allocator keeps it on a GPU, glibc's on a CPU."""
    import torch

    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)
