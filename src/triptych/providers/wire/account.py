"""What a vendor wants of its user: a key that nothing prints, where to send it, how long to wait."""

import base64
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Final, final
from urllib.parse import quote, urlsplit

__all__ = ["Account", "Secret", "Spec", "bare", "leads", "within"]

HIDDEN: Final = "[key]"
FRESH: Final = 240.0  # seconds that a key which a program prints is kept: some print one that has only minutes left
NOTHING: Mapping[str, str] = MappingProxyType({})


@final
class Secret:
    """A key: shown as [key] wherever it is printed, pickled as nothing."""

    __slots__ = ("_asked", "_source", "_value")

    def __init__(self, value: str | Callable[[], str]) -> None:
        """value: the key, or what tells it, for a few minutes at a time."""
        self._source = None if isinstance(value, str) else value
        self._value, self._asked = value if isinstance(value, str) else "", -FRESH

    @property
    def old(self) -> bool:
        """Whether what tells it is asked anew when it is needed, which may take a minute."""
        return self._source is not None and time.monotonic() - self._asked >= FRESH

    def reveal(self) -> str:
        """The key itself: for a header and nothing else. Raises NotSetUp where what tells it does not."""
        if self._source is not None and self.old:
            self._value, self._asked = self._source(), time.monotonic()
        return self._value

    def hide(self, text: str) -> str:
        """The text without the key, however it was written."""
        if not self._value:
            return text
        for form in (self._value, quote(self._value, safe=""), base64.b64encode(self._value.encode()).decode()):
            text = text.replace(form, HIDDEN)
        return text

    def __repr__(self) -> str:
        return HIDDEN

    __str__ = __repr__

    def __reduce__(self) -> tuple[Any, ...]:
        raise TypeError("a key is not written down")


@final
@dataclass(frozen=True, slots=True)
class Spec:
    """How a vendor is reached, out of its table."""

    name: str
    title: str
    base_url: str
    hosts: tuple[str, ...]  # to which, and below which, the key may go
    keys: tuple[str, ...]  # environment names of the key, the first that is set wins
    header: str = "authorization"
    prefix: str = "Bearer "
    base_urls: tuple[str, ...] = ()  # environment names of another base URL
    settings: Mapping[str, tuple[str, ...]] = field(default_factory=dict)  # further ones: environment names of each
    headers: Mapping[str, str] = field(default_factory=dict)  # settings that go wherever the key goes: under which name
    keyless: bool = False  # whether it may want no key
    needs: tuple[str, ...] = ()  # settings without which the vendor's own address takes nothing
    command: tuple[str, ...] = ()  # a program that prints a key, for where none is set
    page: str = ""  # where a key is made
    note: str = ""


@final
@dataclass(frozen=True, slots=True)
class Account:
    """A vendor as this user has set it up. key: None where there is none."""

    spec: Spec
    key: Secret | None
    base_url: str
    timeout: float = 600.0  # seconds between two pieces of an answer
    deadline: float = 3600.0  # seconds that a ticket may take
    proxy: str | None = None
    settings: Mapping[str, str] = field(default_factory=lambda: NOTHING)

    @property
    def own(self) -> bool:
        """Whether it is the vendor's own address: elsewhere a gateway decides what still lives, and what it costs."""
        return self.base_url.rstrip("/") == self.spec.base_url.rstrip("/") or within(self.base_url, self.spec.hosts)

    def belongs(self, url: str) -> bool:
        """Whether the key may go there: to the base URL's own origin, or by https to a host of the vendor's."""
        if not leads(url):
            return False
        return _origin(url) == _origin(self.base_url) or within(url, self.spec.hosts)

    def hide(self, text: str) -> str:
        """The text without the key."""
        return text if self.key is None else self.key.hide(text)


def leads(url: str) -> bool:
    """Whether it is a URL of a host that can be asked."""
    try:
        parts = urlsplit(url)
        return parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0 and url.isprintable()
    except ValueError:  # of the host or the port
        return False


def bare(url: str) -> str:
    """A URL to be shown: without a name and password in it."""
    before, mark, rest = url.partition("://")
    host, slash, path = rest.partition("/")
    return f"{before}{mark}{host.rpartition('@')[2]}{slash}{path}"


def within(url: str, hosts: tuple[str, ...]) -> bool:
    """Whether a URL leads by https to one of these hosts, or below it."""
    parts = urlsplit(url)
    host = (parts.hostname or "").lower()
    return parts.scheme == "https" and any(host == one or host.endswith(f".{one}") for one in hosts)


def _origin(url: str) -> tuple[str, str, int | None]:
    parts = urlsplit(url)
    port = parts.port or {"http": 80, "https": 443}.get(parts.scheme)
    return parts.scheme, (parts.hostname or "").lower(), port
