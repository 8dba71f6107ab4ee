"""What an HTTP answer says besides its words: how long to wait, where it leads, and what it streams."""

import time
from collections.abc import AsyncIterator, Mapping
from contextlib import suppress
from datetime import UTC
from email.utils import parsedate_to_datetime
from math import isfinite
from typing import Any
from urllib.parse import urljoin

import httpx

from triptych.providers.wire.vendor import Reply, parsed

__all__ = ["asked", "events", "led", "reply"]


def reply(response: httpx.Response, body: bytes | None = None) -> Reply:
    """body: where it has been read already."""
    content = response.content if body is None else body
    return Reply(response.status_code, {k.lower(): v for k, v in response.headers.items()}, content, asked(response))


def asked(response: httpx.Response) -> float | None:
    """Seconds that the answer asks to wait, as milliseconds, seconds or a date by the vendor's own clock."""
    headers = response.headers
    for name, unit in (("retry-after-ms", 1000.0), ("openai-poll-after-ms", 1000.0), ("retry-after", 1.0)):
        with suppress(KeyError, ValueError):
            seconds = float(headers[name]) / unit
            if isfinite(seconds):
                return max(seconds, 0.0)
    until = _moment(headers.get("retry-after", ""))
    if until is None:
        return None
    now = _moment(headers.get("date", ""))
    return max(until - (time.time() if now is None else now), 0.0)


def _moment(text: str) -> float | None:
    """Seconds since 1970 of a date, which is Greenwich's where it does not say."""
    try:
        date = parsedate_to_datetime(text)
        return (date if date.tzinfo else date.replace(tzinfo=UTC)).timestamp()
    except (ValueError, TypeError, OverflowError, IndexError):
        return None


def led(url: str, response: httpx.Response) -> str:
    """Where a redirect leads; "" where that is no URL."""
    try:
        return str(urljoin(url, response.headers.get("location", "")))
    except ValueError:
        return ""


async def events(response: httpx.Response) -> AsyncIterator[tuple[str, Mapping[str, Any]]]:
    """(event, data) of server-sent events; what is no JSON object is none."""
    name, told = "", list[str]()
    async for line in _lines(response):
        if line.startswith("event:"):
            name = line[6:].strip()
        elif line.startswith("data:"):
            told.append(line[5:].strip())
        elif not line:
            data = _object("\n".join(told))
            if data is not None:
                yield name or str(data.get("type", "")), data
            name, told = "", []


async def _lines(response: httpx.Response) -> AsyncIterator[str]:
    """Those of a stream, and the blank one that ends its last event, which some leave out."""
    async for line in response.aiter_lines():
        yield line
    yield ""


def _object(text: str) -> dict[str, Any] | None:
    """None of what is no JSON object, such as [DONE]."""
    with suppress(ValueError):
        found = parsed(text)
        return found if isinstance(found, dict) else None
    return None
