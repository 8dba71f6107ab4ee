"""Folders and their defaults; with settings.py the only reader of the environment."""

import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import final

from triptych.service.settings import Settings

__all__ = ["Config", "config"]


@final
@dataclass(frozen=True, slots=True)
class Config:
    """data: what must not be lost (jobs, inputs, latents, training runs); cache: what can be fetched again; file: what
    the user has set up, beside the data unless told."""

    data: Path
    cache: Path
    file: Path | None = None

    @property
    def settings(self) -> Settings:
        """Keys, base URLs, budgets, the price of electricity."""
        return Settings(self.file or self.data.parent / "config.toml")

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
    def remote(self) -> Path:
        """Tickets at vendors, and what they made until it is saved."""
        return self.data / "remote"

    @property
    def training(self) -> Path:
        """One folder a training run."""
        return self.data / "training"

    @property
    def drift(self) -> Path:
        """What `calibrate` measured."""
        return self.data / "drift"

    @property
    def ledger(self) -> Path:
        """What calls cost, see `triptych.service.ledger`."""
        return self.data / "ledger.sqlite"

    @property
    def catalogue(self) -> Path:
        """What `triptych models --refresh` found."""
        return self.data / "catalogue.json"

    @property
    def logs(self) -> Path:
        """Tracebacks of what nobody expected."""
        return self.data / "logs"


def config() -> Config:
    """From TRIPTYCH_HOME, or else where the system keeps such things."""
    home = os.environ.get("TRIPTYCH_HOME")
    if home:
        base = Path(home).expanduser().absolute()
        return Config(base / "data", base / "cache", base / "config.toml")
    if sys.platform == "win32":
        base = Path(os.environ.get("LOCALAPPDATA", Path.home() / "AppData" / "Local")) / "triptych"
        return Config(base / "data", base / "cache", base / "config.toml")
    if sys.platform == "darwin":
        library = Path.home() / "Library"
        support = library / "Application Support" / "triptych"
        return Config(support, library / "Caches" / "triptych", support / "config.toml")
    data = os.environ.get("XDG_DATA_HOME") or Path.home() / ".local" / "share"
    cache = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    settings = os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config"
    return Config(Path(data) / "triptych", Path(cache) / "triptych", Path(settings) / "triptych" / "config.toml")
