"""How much memory a device has left for a model."""

import re
from pathlib import Path

import psutil

from triptych.errors import InvalidField

__all__ = ["available", "parsed"]

SHARE = 0.9  # of what is free, that is made use of
KEPT = 0.05  # of what a process may take: libraries and allocators take more than what is counted
UNITS = {"": 1, "k": 2**10, "m": 2**20, "g": 2**30, "t": 2**40}
FORM = re.compile(r"\s*(\d+(?:\.\d+)?)\s*([kmgt]?)i?b?\s*", re.IGNORECASE)
GROUP = Path("/sys/fs/cgroup")  # where Linux tells a container how much it may use


def parsed(text: str) -> int:
    """Bytes of "8GB", "8 GiB", "8g" or "8192MB", each in powers of 1024. Raises InvalidField."""
    found = FORM.fullmatch(text)
    if found is None or not (size := int(float(found[1]) * UNITS[found[2].lower()])):
        raise InvalidField("memory", text, "auto, or a size like 8GB or 6500MB")
    return size


def available(device: str, limit: str | None = None) -> int:
    """Bytes that can still be taken on the device; limit: what the process may take there altogether, or "auto".

    Raises InvalidField.
    """
    import torch

    most = None if limit in (None, "auto") else parsed(str(limit))
    kind = torch.device(device).type
    if kind == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        ours = torch.cuda.memory_allocated(device)
        free += torch.cuda.memory_reserved(device) - ours
    elif kind == "mps":
        ours = torch.mps.driver_allocated_memory()
        free = torch.mps.recommended_max_memory() - ours
    else:
        ours = psutil.Process().memory_info().rss
        free = min([psutil.virtual_memory().available, *_allotted()])
    return int(SHARE * free) if most is None else min(int(most * (1 - KEPT)) - ours, free)


def _allotted() -> list[int]:
    """What is left of what a container was given, if it was given a bound."""
    try:
        most, used = ((GROUP / name).read_text().strip() for name in ("memory.max", "memory.current"))
        told = dict(line.split() for line in (GROUP / "memory.stat").read_text().splitlines())
    except (OSError, ValueError):
        return []
    return [] if most == "max" else [int(most) - int(used) + int(told.get("inactive_file", 0))]
