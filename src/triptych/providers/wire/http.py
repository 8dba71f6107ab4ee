"""HTTP as every vendor needs it: a paid request is sent once, everything else as often as it takes, and keys stay home.

No vendor knows an idempotency key. A paid request is therefore sent again only where it certainly was not taken in: the
connection was refused, or the answer is 429. Where it was cut, timed out or answered by a 5xx, it is in doubt.
"""

import asyncio
import random
import re
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import aclosing, asynccontextmanager, suppress
from dataclasses import dataclass, field, replace
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any, Self, final
from urllib.parse import urljoin, urlsplit

import httpx

from triptych.errors import (
    BadAnswer,
    Expired,
    FileProblem,
    InDoubt,
    NotSetUp,
    ProviderError,
    RateLimited,
    RequestError,
    Unreachable,
)
from triptych.providers.wire import partial, replies
from triptych.providers.wire.account import Account, bare, leads
from triptych.providers.wire.vendor import Part, Reply

__all__ = ["Pace", "Wire", "ask_once"]

UNSENT = (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout, httpx.ProxyError)
UNSENDABLE = (httpx.UnsupportedProtocol, httpx.LocalProtocolError)  # found out before the first byte
PASSING = (408, 409, 425, 429, 500, 502, 503, 504)  # of what may be asked again
GONE = (400, 401, 403, 404, 410)  # of a result's URL; what is signed and expired is a 400 at some
SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*:")
REDIRECTS = 5
SOON = 30.0  # seconds for an answer that somebody waits for


@final
@dataclass(frozen=True, slots=True)
class Pace:
    """How often and how long: seconds. wait: sleeps, or returns early where the event is set."""

    tries: int = 5
    first: float = 0.5
    most: float = 8.0
    patience: float = 120.0  # the longest Retry-After that is waited for
    poll: float = 1.0  # before the first look at a ticket, growing to `most`
    wait: Callable[[float, asyncio.Event | None], Awaitable[None]] = field(default=lambda s, e: _wait(s, e))

    def between(self, attempt: int) -> float:
        """Before the try after this one, counted from 0; jittered, so that many do not come at once."""
        return min(self.first * 2.0**attempt, self.most) * random.uniform(0.5, 1.0)


async def _wait(seconds: float, stop: asyncio.Event | None) -> None:
    if stop is None:
        await asyncio.sleep(seconds)
        return
    with suppress(TimeoutError):
        await asyncio.wait_for(stop.wait(), seconds)


@final
class Wire:
    """Requests of one account, until it is closed. No httpx exception leaves it, and no key enters an error."""

    def __init__(self, account: Account, explain: Callable[[Reply], ProviderError], pace: Pace | None = None) -> None:
        """explain: what an answer that is no success means, in the vendor's words."""
        self.account, self._explain, self._pace = account, explain, pace or Pace()
        self._client: httpx.AsyncClient | None = None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        """Lets go of all connections."""
        if self._client is not None:
            await self._client.aclose()
            self._client = None

    @property
    def pace(self) -> Pace:
        return self._pace

    @property
    def _open(self) -> httpx.AsyncClient:
        if self._client is None:
            timeout = httpx.Timeout(self.account.timeout, connect=min(20.0, self.account.timeout), pool=None)
            agent = {"user-agent": f"triptych/{version('triptych')}"}
            try:
                self._client = httpx.AsyncClient(
                    timeout=timeout, proxy=self.account.proxy, headers=agent, verify=_trusted()
                )
            except (ValueError, httpx.InvalidURL, ImportError) as problem:
                told = f"proxy {bare(str(self.account.proxy))!r} of {self.account.spec.name} cannot be used: {problem}"
                raise NotSetUp(f"{told}. Mend it in config.toml or the environment.") from None
        return self._client

    def url(self, path: str) -> str:
        """A path below the base URL, or a whole URL as it is."""
        return path if SCHEME.match(path) else f"{self.account.base_url.rstrip('/')}/{path.lstrip('/')}"

    async def pay(self, path: str, **said: Any) -> Reply:
        """Sends a request that costs, once. said: json, parts, params, headers.

        Raises InDoubt where it may have been taken in, Unreachable where it was certainly not, and what `explain` says.
        """
        for attempt in range(self._pace.tries):
            last = attempt + 1 == self._pace.tries
            try:
                response = await self._open.send(self._built("POST", **await self._said(path, **said)))
            except UNSENT as problem:
                if last:
                    raise self._unreachable(path, problem) from None
                await self._pace.wait(self._pace.between(attempt), None)
                continue
            except UNSENDABLE as problem:
                raise self._unwritten(problem) from None
            except (httpx.HTTPError, OSError) as problem:
                raise self._doubt(
                    f"{type(problem).__name__}, {self.account.hide(str(problem)) or 'no answer'}"
                ) from None
            reply = replies.reply(response)
            if reply.ok:
                return reply
            if reply.status >= 500 or reply.status == 408:
                raise self._doubt(f"the answer was {reply.status}: {self._told(reply)}")
            await self._again_or_raise(reply, attempt, last)
        raise AssertionError("the last try returns or raises")

    async def ask(
        self, path: str, *, method: str = "GET", takes: Callable[[Reply], bool] = lambda reply: reply.ok, **said: Any
    ) -> Reply:
        """Sends a request that costs nothing, again where that may help, with the key; follows the vendor's own
        redirects and no others. takes: what is an answer, where a vendor tells more by other statuses than that it
        failed. Raises BadAnswer where it leads to a stranger, Unreachable, and what `explain` says."""
        url, hops = self.url(path), 0
        attempt = 0
        while True:
            last = attempt + 1 >= self._pace.tries
            try:
                response = await self._open.send(self._built(method, **await self._said(url, **said)))
            except (httpx.HTTPError, OSError) as problem:
                if last:
                    raise self._unanswered(url, problem) from None
                await self._pace.wait(self._pace.between(attempt), None)
                attempt += 1
                continue
            reply = replies.reply(response)
            if takes(reply):
                return reply
            if response.is_redirect and hops < REDIRECTS:
                url, hops = replies.led(url, response), hops + 1
                continue
            if response.is_redirect:
                raise BadAnswer(f"{self.account.spec.title} leads in circles.")
            if last and reply.status >= 500:
                raise Unreachable(self._told(reply))
            if last or reply.status not in PASSING:
                raise self._failed(reply)
            await self._pause(reply, attempt)
            attempt += 1

    async def events(self, path: str, **said: Any) -> AsyncIterator[tuple[str, Mapping[str, Any]]]:
        """(event, data) of a paid request that is answered in server-sent events; sent once. Raises as `pay`."""
        for attempt in range(self._pace.tries):
            last = attempt + 1 == self._pace.tries
            try:
                async with self._streamed("POST", **await self._said(path, **said)) as response:
                    if response.is_success and "json" in response.headers.get("content-type", ""):
                        yield "", replies.reply(response, await response.aread()).json()  # one that does not stream
                        return
                    if response.is_success:
                        async for event in replies.events(response):
                            yield event
                        return
                    reply = replies.reply(response, await response.aread())
            except UNSENT as problem:
                if last:
                    raise self._unreachable(path, problem) from None
                await self._pace.wait(self._pace.between(attempt), None)
                continue
            except UNSENDABLE as problem:
                raise self._unwritten(problem) from None
            except (httpx.HTTPError, OSError) as problem:
                raise self._doubt(f"{type(problem).__name__} while it was streamed") from None
            if reply.status >= 500 or reply.status == 408:
                raise self._doubt(f"the answer was {reply.status}: {self._told(reply)}")
            await self._again_or_raise(reply, attempt, last)

    async def fetch(self, url: str, place: Path, *, keyed: bool = False) -> None:
        """Brings what lies at a URL to a file, whole or not at all, going on where it was cut.

        keyed: whether the vendor wants its key there too; it goes to the vendor's own hosts only. Raises Expired where
        it is no longer there, KeyRefused, Unreachable, FileProblem where it cannot be written.
        """
        url, problem, after = self.url(url), "", 0.0
        for attempt in range(self._pace.tries):
            if attempt:
                await self._pace.wait(after or self._pace.between(attempt - 1), None)
            try:
                async with self._opened(url, partial.here(place), keyed) as response:
                    await self._check_there(response, place)
                    if response.is_success and await partial.received(response, place):
                        return
                    problem, after = f"the answer was {response.status_code}", replies.asked(response) or 0.0
            except (httpx.HTTPError, ssl.SSLError) as cut:
                problem, after = self.account.hide(f"{type(cut).__name__} {cut}".strip()), 0.0
            except OSError as full:
                raise FileProblem(f"cannot write {place}: {full.strerror or full}. It can still be fetched.") from full
            if after > self._pace.patience:
                problem += f", to be asked again in {after:.0f} s"
                break
        host = urlsplit(url).hostname
        raise Unreachable(
            f"the result cannot be fetched from {host}: {problem}. It waits there; go on with triptych resume."
        )

    async def _check_there(self, response: httpx.Response, place: Path) -> None:
        """Raises Expired where nothing is there any longer, KeyRefused where the key is not taken."""
        status = response.status_code
        if status in (401, 403) and self.account.spec.header in response.request.headers:
            raise self._failed(replies.reply(response, await response.aread()))
        if status in GONE or status == 416:  # all of it is here, or something else lies there now
            partial.drop(place)
        if status in GONE:
            told = f"{self.account.spec.title} no longer keeps the result ({status})"
            raise Expired(f"{told}. It was made, and is paid for; ask for it again.")

    @asynccontextmanager
    async def _opened(self, url: str, here: int, keyed: bool) -> AsyncIterator[httpx.Response]:
        """The answer behind all redirects, which may lead anywhere: the key goes along to the vendor's hosts only.

        here: bytes that need not come again.
        """
        for _ in range(REDIRECTS + 1):
            headers = {"accept-encoding": "identity"} | ({"range": f"bytes={here}-"} if here else {})
            if keyed and self.account.belongs(url):
                headers |= await self._key()
            if not leads(url):
                raise BadAnswer("the result's URL is none: it was not followed.")
            async with self._streamed("GET", url, headers=headers) as response:
                if not response.is_redirect:
                    yield response
                    return
                further = replies.led(url, response)
            if urlsplit(url).scheme == "https" and not further.startswith("https:"):
                raise BadAnswer("the result's URL leads from https to something else: it was not followed.")
            url = further
        raise BadAnswer("the result's URL leads in circles: it was not followed.")

    @asynccontextmanager
    async def _streamed(self, method: str, url: str, **told: Any) -> AsyncIterator[httpx.Response]:
        async with aclosing(await self._open.send(self._built(method, url, **told), stream=True)) as response:
            yield response

    def _built(self, method: str, url: str, **told: Any) -> httpx.Request:
        """Raises RequestError where it cannot be written."""
        client = self._open
        try:
            return client.build_request(method, url, **told)
        except (httpx.InvalidURL, ValueError, TypeError, RecursionError) as problem:
            why = problem  # the next error shall not carry this one along: it may hold a header
        raise self._unwritten(why)

    async def _said(
        self, path: str, *, parts: Sequence[Part] = (), headers: Mapping[str, str] | None = None, **rest: Any
    ) -> dict[str, Any]:
        """What httpx is told. Raises BadAnswer where the key would go to a stranger."""
        url = self.url(path)
        if not self.account.belongs(url):
            host = urlsplit(url).hostname if leads(url) else repr(url[:80])
            raise BadAnswer(f"{self.account.spec.title} sent us to {host}, which is not its own: the key was not sent.")
        said: dict[str, Any] = {**rest, "url": url, "headers": {**await self._key(), **(headers or {})}}
        if parts:
            said["files"] = [part.told() for part in parts]
        return {name: value for name, value in said.items() if value is not None}

    async def _key(self) -> dict[str, str]:
        """What goes to the vendor's own hosts only. A program that prints the key holds up nothing else."""
        spec, key, told = self.account.spec, self.account.key, self.account.settings
        also = {header: told[name] for name, header in spec.headers.items() if name in told}
        if key is None:
            return also
        plain = await asyncio.to_thread(key.reveal) if key.old else key.reveal()
        return {spec.header: f"{spec.prefix}{plain}", **also}

    async def _again_or_raise(self, reply: Reply, attempt: int, last: bool) -> None:
        """Waits where the same may be sent once more. Raises what the answer means where not."""
        problem = self._failed(reply)
        if last or reply.status != 429 or not isinstance(problem, RateLimited):
            raise problem
        await self._pause(reply, attempt)

    async def _pause(self, reply: Reply, attempt: int) -> None:
        """As long as the answer asks for. Raises RateLimited where that is too long."""
        asked = reply.after
        if asked is not None and asked > self._pace.patience:
            raise RateLimited(
                f"{self.account.spec.title} wants to be asked again in {asked:.0f} s: {self._told(reply)}"
            )
        await self._pace.wait(self._pace.between(attempt) if asked is None else asked, None)

    def _failed(self, reply: Reply) -> ProviderError:
        """What the answer means, without the key, should the vendor have said it back."""
        body = self.account.hide(reply.body.decode(errors="surrogateescape")).encode(errors="surrogateescape")
        problem = self._explain(replace(reply, body=body))
        problem.args = tuple(self.account.hide(str(one)) for one in problem.args)
        return problem

    def _told(self, reply: Reply) -> str:
        return str(self._failed(reply))

    def _unreachable(self, path: str, problem: Exception) -> Unreachable:
        host = urlsplit(self.url(path)).hostname
        told = self.account.hide(str(problem)) or type(problem).__name__
        return Unreachable(
            f"no connection to {host}: {told}. Nothing was sent; look at the network, proxy and base URL."
        )

    def _unanswered(self, url: str, problem: Exception) -> Unreachable:
        """Of what costs nothing."""
        told = self.account.hide(f"{type(problem).__name__} {problem}".strip())
        what = "connection to" if isinstance(problem, UNSENT) else "answer from"
        return Unreachable(f"no {what} {urlsplit(url).hostname}: {told}. Look at the network, proxy and base URL.")

    def _unwritten(self, problem: Exception) -> RequestError:
        told = self.account.hide(str(problem)) if not isinstance(problem, httpx.LocalProtocolError) else "a header"
        return RequestError(
            f"{self.account.spec.title} cannot be asked: {told or type(problem).__name__}. Nothing was sent; look for "
            "letters that are none in what is asked for, in the base URL and in the vendor's settings."
        )

    def _doubt(self, told: str) -> InDoubt:
        name = self.account.spec.title
        why = f"{name} was asked and did not answer as it should ({told})"
        return InDoubt(f"{why}. It may have been made and charged: see your account there before you ask again.")


@cache
def _trusted() -> ssl.SSLContext:
    """Whose certificates are believed, read once."""
    return httpx.create_ssl_context()


def ask_once(account: Account, url: str) -> Reply:
    """What lies at a URL, asked for by plain code and without a second try; the key goes along to the vendor's own
    hosts only, also where it is led on. Raises Unreachable."""
    headers = {"user-agent": f"triptych/{version('triptych')}"}
    key = {} if account.key is None else {account.spec.header: f"{account.spec.prefix}{account.key.reveal()}"}
    host = urlsplit(url).hostname if leads(url) else url
    try:
        with httpx.Client(
            timeout=min(SOON, account.timeout), proxy=account.proxy, headers=headers, verify=_trusted()
        ) as client:
            for _ in range(REDIRECTS + 1):
                response = client.get(url, headers=key if account.belongs(url) else {})
                if not response.is_redirect:
                    return replies.reply(response)
                url = urljoin(url, response.headers.get("location", ""))
    except (httpx.HTTPError, httpx.InvalidURL, ValueError, ImportError) as problem:
        told = account.hide(str(problem)) or type(problem).__name__
        raise Unreachable(
            f"{host} was asked what it has, and there is no connection: {told}. Nothing was sent that costs; look at "
            "the network, proxy and base URL, or take a model that needs no such question: triptych models."
        ) from None
    raise Unreachable(f"{host} was asked what it has, and leads in circles. Nothing was sent that costs.")
