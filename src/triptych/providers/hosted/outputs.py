"""What a host's answer holds: the links and files in it that are of the medium that was asked for."""

import mimetypes
from collections.abc import Iterator, Mapping
from typing import Any
from urllib.parse import urlsplit

from triptych.providers.wire.vendor import Data, Link, decoded
from triptych.types import Medium

__all__ = ["FIRST", "assets", "medium_in", "medium_of"]

MEDIA: tuple[Medium, ...] = ("image", "video", "audio")
FIRST: Mapping[
    Medium, tuple[str, ...]
] = {  # keys under which the result itself lies, before masks, thumbnails and stems
    "image": ("images", "image"),
    "video": ("videos", "video"),
    "audio": ("audios", "audio", "audio_file", "audio_url"),
}


def assets(told: Any, media: Medium) -> tuple[Data | Link, ...]:
    """In order. told: JSON with URLs, data URLs or base64 somewhere in it. Raises BadAnswer where base64 is cut."""
    if isinstance(told, Mapping):
        first = next((told[key] for key in FIRST[media] if told.get(key)), None)
        told = told if first is None else first
    found = list(_links(told, ""))
    same = [asset for asset, medium in found if medium == media]
    return tuple(same or [asset for asset, medium in found if medium is None])


def medium_in(told: Any) -> Medium | None:
    """Of the first asset in it whose medium can be told."""
    return next((medium for _, medium in _links(told, "") if medium is not None), None)


def medium_of(mime: str) -> Medium | None:
    """Of a type such as image/png; None of any other."""
    return next((medium for medium in MEDIA if mime.startswith(f"{medium}/")), None)


def _links(told: Any, mime: str) -> Iterator[tuple[Data | Link, Medium | None]]:
    """Every asset with its medium, where that can be told. mime: as the object around it says."""
    match told:
        case str() if told.startswith("data:"):
            yield decoded(told), medium_of(told[5:])
        case str() if told.startswith(("https://", "http://")):
            guessed = mime or mimetypes.guess_type(urlsplit(told).path)[0] or ""
            yield Link(told), medium_of(guessed)
        case {"b64_json": str(text)}:
            yield decoded(text), None
        case {"url": str(url)}:
            yield from _links(url, str(told.get("content_type") or ""))
        case Mapping():
            for one in told.values():
                yield from _links(one, "")
        case list():
            for one in told:
                yield from _links(one, mime)
