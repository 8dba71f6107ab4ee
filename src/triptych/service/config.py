"""Folders and their defaults: the only reader of the environment."""

import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import final

__all__ = ["Config", "config"]


@final
@dataclass(frozen=True, slots=True)
class Config:
    """data: what must not be lost (jobs, inputs, latents, training runs); cache: what can be fetched again."""

    data: Path
    cache: Path

    @property
    def jobs(self) -> Path:
        """One folder a job."""
        return self.data / "jobs"

    @property
    def inputs(self) -> Path:
        """Files that requests brought along, named by their hash."""
        return self.data / "inputs"

    @property
    def latents(self) -> Path:
        """What the local machine has not decoded yet."""
        return self.data / "latents"

    @property
    def training(self) -> Path:
        """One folder a training run."""
        return self.data / "training"

    @property
    def drift(self) -> Path:
        """What `calibrate` measured."""
        return self.data / "drift"

    @property
    def logs(self) -> Path:
        """Tracebacks of what nobody expected."""
        return self.data / "logs"


def config() -> Config:
    """From TRIPTYCH_HOME, or else where the system keeps such things."""
    home = os.environ.get("TRIPTYCH_HOME")
    if home:
        base = Path(home).expanduser().absolute()
        return Config(base / "data", base / "cache")
    if sys.platform == "win32":
        base = Path(os.environ.get("LOCALAPPDATA", Path.home() / "AppData" / "Local")) / "triptych"
        return Config(base / "data", base / "cache")
    if sys.platform == "darwin":
        library = Path.home() / "Library"
        return Config(library / "Application Support" / "triptych", library / "Caches" / "triptych")
    data = os.environ.get("XDG_DATA_HOME") or Path.home() / ".local" / "share"
    cache = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Config(Path(data) / "triptych", Path(cache) / "triptych")
