"""Bytes of the hub's files: the first of one, or large ones whole, put into huggingface_hub's cache as it names them.

Its own download cannot be stopped, tells how far it is only to a terminal, and begins anew each time. What is put among
the blobs of its cache here it finds there, and gives its name. What has come of a file stays beside them for the next
time, and is checked against the file's SHA-256 when it is whole.
"""

import errno
import hashlib
import re
import shutil
from collections.abc import Callable, Generator, Iterator, Mapping
from concurrent.futures import Future, wait
from contextlib import ExitStack, closing, contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from threading import Event, Thread
from typing import TYPE_CHECKING, final

from triptych.errors import WeightsError

if TYPE_CHECKING:
    from httpx2 import Response

__all__ = ["Share", "begin", "download"]

EVERY = 0.2  # seconds between looks at how far it is
PATIENCE = 1.0  # seconds that a download which is to stop is waited for; it ends when the network answers or does not
PAUSE = 1.0  # seconds before a connection that broke is made again
TRIES = 5  # times that it may break without a new byte: gigabytes seldom come in one piece
DIGEST = re.compile(r"[0-9a-f]{64}")  # the tag of a large file is its SHA-256


@final
@dataclass(frozen=True, slots=True)
class Share:
    """How much of a fetch is here. file: that comes now; done, total: bytes of all files that were not."""

    file: str
    done: int
    total: int


@final
@dataclass(frozen=True, slots=True)
class Wanted:
    """A file that is to come: where from, what its bytes are called among the blobs, how many they are."""

    name: str
    url: str
    blob: Path
    size: int

    @property
    def part(self) -> Path:
        """What has come so far."""
        return self.blob.with_name(f"{self.blob.name}.triptych.incomplete")

    @property
    def here(self) -> int:
        """Bytes of it."""
        for path in (self.part, self.blob):  # the one becomes the other, perhaps just now
            with suppress(FileNotFoundError):
                return path.stat().st_size
        return 0


def begin(url: str, count: int) -> tuple[bytes, int]:
    """The first `count` bytes of a file, fewer where it is shorter, and how many it has."""
    found = bytearray()
    with _opened(url, f"bytes=0-{count - 1}") as response:
        told = response.headers.get("Content-Range") or response.headers.get("Content-Length") or ""
        for chunk in response.iter_bytes():
            found += chunk
            if len(found) >= count:  # of a server that sends it all the rest is not waited for
                break
    return bytes(found[:count]), int(told.rpartition("/")[2] or len(found))


def download(repository: str, urls: Mapping[str, str], found: Callable[[str], Path]) -> Iterator[Share]:
    """Fetches files by their names, telling how far it is; left early, it stops.

    found: has huggingface_hub find a file, which is now among its blobs, or small enough to be left to it; where it is.

    Raises what huggingface_hub raises, OSError, and WeightsError where a file came damaged.
    """
    wanted = [file for name, url in urls.items() if (file := _wanted(repository, name, url))]
    files = list({file.blob: file for file in wanted}.values())  # the same bytes come once
    total, before = sum(file.size for file in files), 0
    _make_room(files)
    for file in files:
        with closing(_beside(partial(_complete, file))) as looks:
            for _ in looks:
                yield Share(file.name, before + file.here, total)
        before += file.size
    places = [found(name) for name in urls]
    if not all(place.is_symlink() for place in places):  # some systems cannot link, and then there are copies
        for file in files:
            file.blob.unlink(missing_ok=True)


def _wanted(repository: str, name: str, url: str) -> Wanted | None:
    from huggingface_hub import constants, get_hf_file_metadata
    from huggingface_hub.file_download import repo_folder_name

    told = get_hf_file_metadata(url)
    if told.size is None or told.etag is None or not DIGEST.fullmatch(told.etag):
        return None
    folder = Path(constants.HF_HUB_CACHE) / repo_folder_name(repo_id=repository, repo_type="model")
    return Wanted(name, url, folder / "blobs" / told.etag, told.size)


def _make_room(files: list[Wanted]) -> None:
    """Makes the folder where they go. Raises OSError where the disk has too little room for them."""
    for file in files:
        file.blob.parent.mkdir(parents=True, exist_ok=True)
    lacking = sum(max(file.size - file.here, 0) for file in files)
    if files and shutil.disk_usage(files[0].blob.parent).free < lacking:
        raise OSError(errno.ENOSPC, f"{lacking} bytes are to come")


def _beside(work: Callable[[Event], None]) -> Generator[None, None, None]:
    """Does the work in a thread, and comes by again and again meanwhile; left early, the work is told that it may end.

    A read from a network that does not answer cannot be stopped, only left.
    """
    gone, end = Event(), Future[None]()

    def run() -> None:
        try:
            work(gone)
            end.set_result(None)
        except BaseException as problem:  # it crosses the thread and is raised by whoever looks
            end.set_exception(problem)

    Thread(target=run, daemon=True).start()
    try:
        while not end.done():
            yield
            wait([end], EVERY)
        end.result()
    finally:
        gone.set()
        wait([end], PATIENCE)


def _complete(file: Wanted, gone: Event) -> None:
    """Fetches what is missing of a file, unless another process does, and gives it its name."""
    with _alone(file, gone):
        most, tries = file.here, 0
        while not (gone.is_set() or file.blob.exists()):
            problem = _go_on(file, gone) if file.here < file.size else None
            if file.here >= file.size:
                _settle(file)
            elif file.here > most:
                most, tries = file.here, 0
            elif tries == TRIES:
                raise problem or OSError(f"{file.name} ends after {file.here} of {file.size} bytes")
            else:
                tries += 1
                gone.wait(PAUSE)


@contextmanager
def _alone(file: Wanted, gone: Event) -> Iterator[None]:
    """Holds the lock that huggingface_hub holds while it fetches the same bytes."""
    from huggingface_hub.utils import WeakFileLock  # type: ignore[attr-defined]  # told to import, not to mypy

    folder = file.blob.parents[1]
    lock = folder.parent / ".locks" / folder.name / f"{file.blob.name}.lock"
    lock.parent.mkdir(parents=True, exist_ok=True)
    with ExitStack() as stack:
        held = False
        while not (held or gone.is_set()):
            try:
                stack.enter_context(WeakFileLock(lock, timeout=EVERY))
                held = True
            except TimeoutError:  # somebody else holds it
                continue
        yield


def _go_on(file: Wanted, gone: Event) -> Exception | None:
    """Appends what comes to what is here; what broke the connection, None where nothing did."""
    from huggingface_hub.errors import HfHubHTTPError, HTTPError  # type: ignore[attr-defined]  # of its client

    try:
        with file.part.open("ab") as part, _opened(file.url, f"bytes={part.tell()}-") as response:
            if response.status_code != PARTIAL:
                part.truncate(0)
            for chunk in response.iter_bytes():
                part.write(chunk)
                if gone.is_set():
                    break
    except HfHubHTTPError:  # an answer
        raise
    except HTTPError as problem:
        return problem
    return None


PARTIAL = 206  # the status of an answer that begins where it was asked to


def _settle(file: Wanted) -> None:
    """Gives a whole file its name. Raises WeightsError where it is not what it should be."""
    with file.part.open("rb") as part:
        digest = hashlib.file_digest(part, "sha256").hexdigest()
    if digest != file.blob.name:
        file.part.unlink()
        raise WeightsError(f"{file.name} came damaged: its SHA-256 is not the one that the hub tells. Fetch it again.")
    file.part.replace(file.blob)


@contextmanager
def _opened(url: str, span: str) -> "Iterator[Response]":
    """The answer to a request for some bytes of a file, from whoever the hub sends us to."""
    from huggingface_hub import constants, get_session
    from huggingface_hub.utils import build_hf_headers, hf_raise_for_status  # type: ignore[attr-defined]  # as above

    headers = {**build_hf_headers(), "Range": span, "Accept-Encoding": "identity"}
    timeout = constants.HF_HUB_DOWNLOAD_TIMEOUT
    with get_session().stream("GET", url, headers=headers, timeout=timeout) as response:
        hf_raise_for_status(response)
        yield response
