"""What a provider needs to work, whether it is there, and what to do where it is not."""

import asyncio
from dataclasses import dataclass
from typing import final
from urllib.parse import urlsplit

from triptych.errors import NotSetUp
from triptych.providers.wire.account import Account

__all__ = ["Finding", "Lack", "lacking", "reached", "ready"]

PATIENCE = 4.0  # seconds that a host has to answer


@final
@dataclass(frozen=True, slots=True)
class Finding:
    """what: a key, a connection, a device, weights; good: None where it is neither good nor bad; advice: what to do."""

    what: str
    good: bool | None
    told: str
    advice: str = ""


@final
@dataclass(frozen=True, slots=True)
class Lack:
    """what: is missing, in few words; way: how it is set."""

    what: str
    way: str


def lacking(account: Account) -> list[Lack]:
    """What must be set before the vendor can be asked."""
    spec, found = account.spec, list[Lack]()
    file = f"[{spec.name}] of config.toml"
    if not account.base_url:
        found.append(Lack("the address of a server", f"set {' or '.join(spec.base_urls)}, or base_url in {file}"))
    if account.key is None and spec.keys and not spec.keyless:
        ways = [f"set {' or '.join(spec.keys)}", f"key in {file}", f"`keyring set triptych {spec.name}`"]
        ways += [f"have `{' '.join(spec.command)}` print one"] if spec.command else []
        where = f". Keys are made at {spec.page}" if spec.page else ""
        found.append(Lack(" or ".join(spec.keys), f"{', or '.join(ways)}{where}"))
    for name in spec.needs if account.own else ():
        if name not in account.settings:
            found.append(Lack(name, f"set {' or '.join([*spec.settings[name], f'{name} in {file}'])}"))
    return found


def ready(account: Account) -> None:
    """Raises NotSetUp that says what is missing and how it is set."""
    for lack in lacking(account):
        raise NotSetUp(f"{account.spec.title} needs {lack.what}: {lack.way}.")
    if account.key is not None:
        account.key.reveal()  # where a program prints it, it does so before anything is sent


async def reached(account: Account) -> Finding:
    """Whether the vendor's address answers at all; the key stays here, and nothing is asked that could cost."""
    import httpx

    host = urlsplit(account.base_url).hostname or account.base_url
    if urlsplit(account.base_url).scheme not in ("http", "https"):
        return Finding("address", False, "no base URL", f"set base_url in [{account.spec.name}] of config.toml")
    try:
        async with httpx.AsyncClient(timeout=PATIENCE, proxy=account.proxy) as client:
            await asyncio.wait_for(client.head(account.base_url), 2 * PATIENCE)
    except (httpx.HTTPError, httpx.InvalidURL, TimeoutError, ValueError, ImportError) as problem:
        told = f"{host} does not answer ({type(problem).__name__})"
        return Finding("connection", False, told, "look at the network, the proxy and the base URL")
    return Finding("connection", True, f"{host} answers")
