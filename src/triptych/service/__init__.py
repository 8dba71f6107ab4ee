"""Jobs over providers, whoever makes the thing: names are imported when they are first used, folders cost no more."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from triptych.service.jobs import Job, State
    from triptych.service.service import Service
    from triptych.service.whole import default
    from triptych.types import Price

__all__ = ["Job", "Price", "Service", "State", "default"]

PLACES = {
    "Job": "triptych.service.jobs",
    "Price": "triptych.types",
    "Service": "triptych.service.service",
    "State": "triptych.service.jobs",
    "default": "triptych.service.whole",
}


def __getattr__(name: str) -> Any:
    if name not in PLACES:
        raise AttributeError(f"module 'triptych.service' has no attribute {name!r}")
    return getattr(import_module(PLACES[name]), name)
