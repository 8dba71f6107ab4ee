"""A ticket's book: what was sent to a vendor, what it answered and what was fetched, one folder a ticket.

It is written before a paid request is sent and again the moment that it is answered, so that whatever happens to this
process, what was paid for is found again.
"""

import json
import shutil
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal, final

from triptych.errors import FileProblem
from triptych.media import files
from triptych.providers.wire.vendor import Answer, Data
from triptych.types import Progress, Request, TicketState

__all__ = ["Book", "Leaf", "Sent", "recovered"]

FORMAT = 1
NOTHING: Mapping[str, str] = MappingProxyType({})
OVER = ("succeeded", "failed", "moderated", "cancelled", "expired")
Sent = Literal["no", "sending", "yes", "doubt"]


@final
@dataclass(frozen=True, slots=True)
class Leaf:
    """One request to the vendor. first, count: which samples of the whole it makes. links: results not fetched yet,
    each with whether the key is wanted there; files: those that are here."""

    first: int
    count: int
    sent: Sent = "no"
    state: TicketState = "queued"
    handle: Mapping[str, Any] = field(default_factory=dict)
    links: tuple[tuple[str, bool], ...] = ()
    files: tuple[str, ...] = ()
    fraction: float | None = None
    status: str = ""
    reason: str = ""
    kind: str = ""  # of the error that ended it
    cost: float | None = None
    told: Mapping[str, Any] = field(default_factory=dict)

    @property
    def over(self) -> bool:
        """Nothing more is to be asked: it failed, or all that it made is here."""
        return self.state in OVER and not (self.state == "succeeded" and self.links)

    @property
    def made(self) -> bool:
        return self.state == "succeeded" and bool(self.files) and not self.links


@final
class Book:
    """The leaves of one ticket. about: what is wanted of its card later, which a host need not be asked for again."""

    def __init__(
        self, folder: Path, model: str, leaves: tuple[Leaf, ...] = (), about: Mapping[str, str] = NOTHING
    ) -> None:
        self.folder, self.model, self.leaves, self.about = folder, model, leaves, about
        self.loose: dict[str, bytes] = {}  # results that no disk took, by name
        self.written = True  # whether the file says what is said here

    @classmethod
    def begun(cls, folder: Path, request: Request, batch: int, about: Mapping[str, str]) -> "Book":
        """A new one, its samples dealt out; written down. Raises FileProblem."""
        dealt = [Leaf(first, min(batch, request.count - first)) for first in range(0, request.count, batch)]
        book = cls(folder, request.model, tuple(dealt), about)
        book.save()
        return book

    @classmethod
    def opened(cls, folder: Path) -> "Book | None":
        """The one in a folder, if there is one. Raises FileProblem where it cannot be read."""
        path = folder / "ticket.json"
        if not path.is_file():
            return None
        try:
            told = json.loads(files.read(path))
            if told["ticket"] != FORMAT:
                raise ValueError(f"version {told['ticket']!r}, this triptych reads {FORMAT}")
            return cls(folder, told["model"], tuple(_leaf(entry) for entry in told["leaves"]), told["about"])
        except (ValueError, KeyError, TypeError) as problem:
            raise FileProblem(f"{path}: this ticket cannot be read: {problem!r}.") from problem

    def save(self) -> None:
        """Raises FileProblem."""
        leaves = [asdict(leaf) for leaf in self.leaves]
        told = {"ticket": FORMAT, "model": self.model, "about": dict(self.about), "leaves": leaves}
        self.written = False
        self._write("ticket.json", json.dumps(told, indent=1).encode())
        self.written = True

    def put(self, number: int, **changes: Any) -> Leaf:
        """Changes one leaf, and writes all down. Raises FileProblem."""
        leaf = replace(self.leaves[number], **changes)
        self.leaves = (*self.leaves[:number], leaf, *self.leaves[number + 1 :])
        self.save()
        return leaf

    def note(self, number: int, **changes: Any) -> Leaf:
        """As `put`, of what has happened: it has, also where it cannot be written down."""
        with suppress(FileProblem):
            self.put(number, **changes)
        return self.leaves[number]

    def take(self, number: int, answer: Answer) -> Leaf:
        """What was answered: results that came along are files before anything else happens, or stay in memory where
        no file can be written."""
        leaf, names, links = self.leaves[number], list[str](), list[tuple[str, bool]]()
        for place, asset in enumerate(answer.assets):
            name = self.name(leaf, place)
            if isinstance(asset, Data):
                self._keep(name, asset.data)
                names.append(name)
            elif (self.folder / name).exists():  # fetched before
                names.append(name)
            else:
                links.append((asset.url, asset.keyed))
        return self.note(
            number,
            sent="yes",
            state=answer.state,
            handle=dict(answer.handle) or leaf.handle,
            links=tuple(links),
            files=tuple(names) or leaf.files,
            fraction=answer.fraction,
            status=answer.status,
            reason=answer.reason,
            cost=_cost(leaf, answer),
            told={**leaf.told, **answer.told},
        )

    def name(self, leaf: Leaf, place: int) -> str:
        """What a result's file is called here."""
        return f"{leaf.first:03}-{place}"

    def handle(self, id: str) -> dict[str, Any]:
        """What its ticket says: enough to go on with, should the file be lost."""
        leaves = [{"first": leaf.first, "count": leaf.count, "handle": dict(leaf.handle)} for leaf in self.leaves]
        return {"id": id, "about": dict(self.about), "leaves": leaves}

    @property
    def state(self) -> TicketState:
        """Of all leaves together: over only when all are."""
        states = [leaf.state for leaf in self.leaves]
        for state in ("running", "queued", "needs_action", "succeeded"):
            if state in states:
                return state
        return states[0]

    @property
    def progress(self) -> Progress:
        """The mean of what the leaves tell; of one that tells nothing, whether it is done."""
        shares = [1.0 if leaf.over else leaf.fraction or 0.0 for leaf in self.leaves]
        words = [leaf.status or leaf.state for leaf in self.leaves if not leaf.over]
        return Progress(sum(shares) / len(shares), words[0].lower() if words else "fetched")

    def data(self, name: str) -> bytes:
        """A result. Raises FileProblem."""
        return self.loose[name] if name in self.loose else files.read(self.folder / name)

    def remove(self) -> None:
        """What was kept goes."""
        with suppress(OSError):
            shutil.rmtree(self.folder)

    def _keep(self, name: str, data: bytes) -> None:
        try:
            self._write(name, data)
        except FileProblem:
            self.loose[name] = data

    def _write(self, name: str, data: bytes) -> None:
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as problem:
            raise FileProblem(f"cannot make the folder {self.folder}: {problem.strerror}.") from problem
        files.write(self.folder / name, data)


def recovered(folder: Path, told: Mapping[str, Any]) -> Leaf:
    """A leaf whose book is gone, as its ticket tells it: asked for again, or what lies in the folder."""
    leaf = Leaf(told["first"], told["count"], "yes", "running", told["handle"])
    if leaf.handle:
        return leaf
    found = [path.name for path in folder.glob(f"{leaf.first:03}-*") if path.name[4:].isdigit()]
    if found:
        return replace(leaf, state="succeeded", files=tuple(sorted(found, key=lambda name: int(name[4:]))))
    reason = f"what was known of it lay in {folder}, and is gone"
    return replace(leaf, sent="doubt", state="failed", kind="InDoubt", reason=reason)


def _cost(leaf: Leaf, answer: Answer) -> float | None:
    """What is told of it; of what made nothing, only if that was told with this answer: a quote came before."""
    if answer.cost is not None and answer.cost >= 0:
        return answer.cost
    return None if answer.state in OVER and answer.state != "succeeded" else leaf.cost


def _leaf(entry: dict[str, Any]) -> Leaf:
    links = tuple((url, keyed) for url, keyed in entry.pop("links"))
    return Leaf(**{**entry, "links": links, "files": tuple(entry["files"])})
