"""The first stage of a job: what it needs and lies on a hub only is fetched."""

import threading
import time
from collections.abc import Iterator
from contextlib import closing

from triptych import families
from triptych.errors import Cancelled
from triptych.types import Card, Progress, Request
from triptych.weights.download import Share

__all__ = ["fetching"]

UNITS = {"GB": 1e9, "MB": 1e6, "kB": 1e3, "bytes": 1.0}  # as the hub counts


def fetching(card: Card, request: Request, stop: threading.Event) -> Iterator[Progress]:
    """Fetches the weights of the model and of all that the request adds to it; the fraction is that of one of them.

    Raises WeightsError; Cancelled within a second or two of `stop` being set, and what has come of a file stays.
    """
    for source in families.sources(card, request):
        began, first = time.monotonic(), None
        with closing(families.fetch(source)) as shares:
            for share in shares:
                first = share.done if first is None else first
                speed = (share.done - first) / max(time.monotonic() - began, 1e-9)
                yield Progress(share.done / max(share.total, 1), _told(share, speed))
                if stop.is_set():
                    raise Cancelled("stopped on request; what has come of the weights stays in the cache.")


def _told(share: Share, speed: float) -> str:
    """What comes, how much of it is here; speed: bytes a second."""
    folder, _, file = share.file.rpartition("/")
    return f"fetching {folder or file} {_plain(share.done, share.total)} of {_plain(share.total)}, {_plain(speed)}/s"


def _plain(size: float, like: float | None = None) -> str:
    """Bytes for people; like: beside how many, whose unit is theirs too and need not be said twice."""
    unit = next((unit for unit, one in UNITS.items() if (like or size) >= one), "bytes")
    number = f"{size / UNITS[unit]:.0f}" if unit == "bytes" else f"{size / UNITS[unit]:.1f}"
    return number if like else f"{number} {unit}"
