"""What a provider needs to work, whether it is there, and what to do where it is not."""

import asyncio
from dataclasses import dataclass
from typing import final
from urllib.parse import urlsplit

from triptych.providers.account import Account

__all__ = ["Finding", "key_lacking", "reached"]

PATIENCE = 4.0  # seconds that a host has to answer


@final
@dataclass(frozen=True, slots=True)
class Finding:
    """what: a key, a connection, a device, weights; good: None where it is neither good nor bad; advice: what to do."""

    what: str
    good: bool | None
    told: str
    advice: str = ""


def key_lacking(account: Account) -> str:
    """Which key is missing, in words; "" where there is one, or none is wanted."""
    spec = account.spec
    return f"needs {' or '.join(spec.keys)}" if account.key is None and spec.keys else ""


async def reached(account: Account) -> Finding:
    """Whether the vendor's address answers at all; the key stays here, and nothing is asked that could cost."""
    import httpx

    host = urlsplit(account.base_url).hostname or account.base_url
    if urlsplit(account.base_url).scheme not in ("http", "https"):
        return Finding("address", False, "no base URL", f"set base_url in [{account.spec.name}] of config.toml")
    try:
        async with httpx.AsyncClient(timeout=PATIENCE, proxy=account.proxy) as client:
            await asyncio.wait_for(client.head(account.base_url), 2 * PATIENCE)
    except (httpx.HTTPError, TimeoutError, ValueError, ImportError) as problem:
        told = f"{host} does not answer ({type(problem).__name__})"
        return Finding("connection", False, told, "look at the network, the proxy and the base URL")
    return Finding("connection", True, f"{host} answers")
