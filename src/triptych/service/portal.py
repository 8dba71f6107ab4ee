"""From plain code to the service's event loop, which runs in a thread of its own: works beside a running loop too."""

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from concurrent.futures import Future, TimeoutError
from functools import cache
from typing import Any, Generic, TypeVar, final

from triptych.service.jobs import Job

__all__ = ["Once", "Portal"]

T = TypeVar("T")
LOOK = 0.2  # seconds between looks at signals while waiting: some systems tell of them in no other way


@final
class Portal:
    """An event loop in a daemon thread, started when first needed."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        threading.Thread(target=self._loop.run_forever, daemon=True, name="triptych").start()

    def start(self, work: Coroutine[Any, Any, T]) -> "Future[T]":
        """Sets the work going and does not wait."""
        return asyncio.run_coroutine_threadsafe(work, self._loop)

    def call(self, work: Coroutine[Any, Any, T]) -> T:
        """Waits for the work and gives what it gives."""
        future = self.start(work)
        while True:
            try:
                return future.result(LOOK)
            except TimeoutError:
                if future.done():
                    return future.result()

    def iterate(self, jobs: AsyncIterator[Job]) -> Iterator[Job]:
        """One after the other, as they come."""
        while True:
            job = self.call(_next(jobs))
            if job is None:
                return
            yield job


@final
class Once(Generic[T]):
    """What is made when it is first asked for, and once, however many threads ask at that moment: `cache` alone would
    make one for each of them, and a job that begins in one event loop is not heard of in another."""

    def __init__(self, make: Callable[[], T]) -> None:
        self._make, self._lock = cache(make), threading.RLock()
        self.cache_clear = self._make.cache_clear

    def __call__(self) -> T:
        with self._lock:
            return self._make()


async def _next(jobs: AsyncIterator[Job]) -> Job | None:
    return await anext(jobs, None)
