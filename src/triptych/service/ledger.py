"""The ledger: one line for every call that costs something, in one SQLite file that many threads and processes share.

A call is reserved before it is sent, in the same transaction that checks the budgets; so jobs side by side cannot spend
together what none of them could alone. Then it is settled, released (nothing was paid), or in doubt.
Amounts are US dollars, kept as whole billionths.
"""

import json
import sqlite3
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final, Literal, final

from triptych.errors import FileProblem, RequestError, UnknownName
from triptych.service.budgets import Budgets, Span, Standing, amount
from triptych.types import Price, dollars

__all__ = ["Call", "Ledger", "Line", "LineState", "Source"]

LineState = Literal["reserved", "settled", "released", "in_doubt"]
Source = Literal["usage", "list", "estimate", "electricity"]
WAIT = 60.0  # seconds that one waits for others to have written
BILLION = 1_000_000_000
LONGEST = 120  # characters that are kept of a prompt

MIGRATIONS: Final = (  # the n-th brings a file of version n to n + 1; an empty one has version 0
    (
        "CREATE TABLE calls (job TEXT PRIMARY KEY, began TEXT NOT NULL, provider TEXT NOT NULL, model TEXT NOT NULL, "
        "what TEXT NOT NULL, project TEXT NOT NULL, state TEXT NOT NULL, least INTEGER, most INTEGER, cost INTEGER, "
        "source TEXT, seconds REAL, ticket TEXT, files TEXT NOT NULL DEFAULT '[]')",
        "CREATE INDEX calls_began ON calls (began)",
    ),
)
FORMAT = len(MIGRATIONS)
SENT = "state IN ('reserved', 'in_doubt')"
UNTOLD = "(state != 'settled' OR cost IS NULL)"
OPEN = f"({UNTOLD} OR source = 'estimate')"  # what a better word may still change


@final
@dataclass(frozen=True, slots=True)
class Call:
    """Who is asked for what. what: the prompt; project: whatever the user sums by."""

    job: str
    provider: str
    model: str
    what: str = ""
    project: str = ""


@final
@dataclass(frozen=True, slots=True)
class Line:
    """A line of the ledger. price: before, None if unknown; cost: after, None until it is known, and if it never is.

    source: who says the cost: the vendor's answer, its price list, an estimate, the wattage. seconds: of work.
    """

    call: Call
    began: datetime  # UTC
    state: LineState
    price: Price | None
    cost: float | None
    source: Source | None
    seconds: float | None
    ticket: Mapping[str, Any] | None
    files: tuple[str, ...]

    @property
    def most(self) -> float | None:
        """What it cost, or may yet; None where nothing says so."""
        if self.state == "released":
            return 0.0
        bound = self.price.most if self.price else None
        return bound if self.cost is None else self.cost


@final
class Ledger:
    """The ledger in this file, which need not exist yet. Every method raises FileProblem where it cannot be used."""

    def __init__(self, path: Path, now: Callable[[], datetime] = lambda: datetime.now(UTC)) -> None:
        """now: the present, with its time zone."""
        self._path, self._now = path, now

    def reserve(self, call: Call, price: Price | None, budgets: Budgets) -> None:
        """Writes down that this is about to be sent, at the most that it could cost. Raises OverBudget instead.

        A job that was reserved before is an error, lest it be sent twice, unless nothing was paid for it then.
        """
        bounds = (None, None) if price is None else (_whole("price", _least(price)), _whole("price", price.most))
        with self._writing() as connection:
            known = connection.execute("SELECT state FROM calls WHERE job = ?", (call.job,)).fetchone()
            if known and known["state"] != "released":
                raise RequestError(f"job {call.job} is in the ledger as {_said(known['state'])}; it is not sent again.")
            now = self._now()
            budgets.check(call.model, price, now, lambda span: _standing(connection, span))
            _add(connection, call, now, {"state": "reserved", "least": bounds[0], "most": bounds[1]})

    def record(self, call: Call, cost: float, source: Source, seconds: float | None = None) -> None:
        """Writes down what is over already and was never reserved, such as a local run. The first time stands."""
        whole = _whole("cost", cost)
        with self._writing() as connection:
            if connection.execute("SELECT 1 FROM calls WHERE job = ?", (call.job,)).fetchone() is None:
                values = {"state": "settled", "cost": whole, "source": source, "seconds": seconds}
                _add(connection, call, self._now(), values)

    def note_ticket(self, job: str, handle: Mapping[str, Any]) -> None:
        """Keeps the provider's own word for a job that it took in: plain data. Raises UnknownName."""
        self._change(job, {"ticket": json.dumps(dict(handle))})

    def settle(self, job: str, cost: float | None, source: Source | None, seconds: float | None = None) -> None:
        """The job is over and cost this much; None: nobody can tell. source: None is nobody's word, an estimate.

        A second word changes nothing, unless the first told no cost or was an estimate. Raises UnknownName.
        """
        values: dict[str, Any] = {"state": "settled"} | ({} if seconds is None else {"seconds": seconds})
        if cost is None:
            self._change(job, values, SENT)
            return
        values |= {"cost": _whole("cost", cost), "source": source or "estimate"}
        self._change(job, values, UNTOLD if values["source"] == "estimate" else OPEN)

    def release(self, job: str) -> None:
        """Nothing was paid, nor will be; what is settled stays. Raises UnknownName."""
        self._change(job, {"state": "released"}, "state != 'settled'")

    def doubt(self, job: str) -> None:
        """Nobody knows whether it was taken in; it counts in full until `clear` says. Raises UnknownName."""
        self._change(job, {"state": "in_doubt"}, "state = 'reserved'")

    def clear(self, job: str, cost: float) -> None:
        """A person's word for what a call cost: one in doubt, of a job that is lost, or of unknown cost.

        Raises UnknownName, and RequestError where the vendor has told the cost.
        """
        values = {"state": "settled", "cost": _whole("cost", cost), "source": "estimate"}
        if not self._change(job, values, OPEN):
            line = self.line(job)
            told = f"{dollars(line.cost or 0.0)}, by {line.source}"
            raise RequestError(f"job {job} is settled at {told}; only what is in doubt or not known can be cleared.")

    def filed(self, job: str, paths: Iterable[Path]) -> None:
        """Adds where the results lie. A job that has no line, as one that costs nothing, gets none."""
        added = [str(path.absolute()) for path in paths]
        with self._writing() as connection:
            row = connection.execute("SELECT files FROM calls WHERE job = ?", (job,)).fetchone()
            if row is not None:
                files = json.dumps(list(dict.fromkeys([*json.loads(row["files"]), *added])))
                connection.execute("UPDATE calls SET files = ? WHERE job = ?", (files, job))

    def line(self, job: str) -> Line:
        """The job's line. Raises UnknownName."""
        with self._opened() as connection:
            row = connection.execute("SELECT * FROM calls WHERE job = ?", (job,)).fetchone()
            if row is None:
                raise _unknown(connection, job)
        return _line(row)

    def lines(self, span: Span | None = None) -> list[Line]:
        """All that began within the span, the oldest first."""
        if not self._path.exists():
            return []
        where, values = _within(span) if span else ("1", ())
        with self._opened() as connection:
            rows = connection.execute(f"SELECT * FROM calls WHERE {where} ORDER BY began, job", values).fetchall()
        return [_line(row) for row in rows]

    def standing(self, span: Span) -> Standing:
        """What counts against a budget of this span."""
        if not self._path.exists():
            return Standing()
        with self._opened() as connection:
            return _standing(connection, span)

    def _change(self, job: str, values: Mapping[str, Any], where: str = "1") -> bool:
        """Sets columns of the job's line where the condition holds; whether it did. Raises UnknownName."""
        assigned = ", ".join(f"{name} = :{name}" for name in values)
        with self._writing() as connection:
            if connection.execute("SELECT 1 FROM calls WHERE job = ?", (job,)).fetchone() is None:
                raise _unknown(connection, job)
            update = f"UPDATE calls SET {assigned} WHERE job = :job AND ({where})"
            return connection.execute(update, {**values, "job": job}).rowcount == 1

    @contextmanager
    def _writing(self) -> Iterator[sqlite3.Connection]:
        """A transaction that nobody else writes beside; kept when the block ends well."""
        with self._opened() as connection, _transaction(connection):
            yield connection

    @contextmanager
    def _opened(self) -> Iterator[sqlite3.Connection]:
        """The file, brought to this version. Raises FileProblem."""
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            with closing(sqlite3.connect(self._path, timeout=WAIT, isolation_level=None)) as connection:
                connection.row_factory = sqlite3.Row
                self._migrate(connection)
                yield connection
        except (OSError, sqlite3.Error) as problem:
            advice = "Nothing is paid for that cannot be written down: make room, or mend or move the file"
            raise FileProblem(f"the ledger {self._path} cannot be used: {problem}. {advice}.") from problem

    def _migrate(self, connection: sqlite3.Connection) -> None:
        """Makes the tables of a new file, and brings an older one up to date. Raises FileProblem for a newer one."""
        if (version := _version(connection)) == FORMAT:
            return
        if version > FORMAT:
            raise FileProblem(
                f"the ledger {self._path} is of version {version}, this triptych reads up to {FORMAT}. Use the newer "
                "triptych that wrote it: pip install --upgrade triptych"
            )
        with suppress(sqlite3.OperationalError):  # others have it open; without, reading waits for writing, that is all
            connection.execute("PRAGMA journal_mode = WAL")
        with _transaction(connection):
            for version in range(_version(connection), FORMAT):
                for statement in MIGRATIONS[version]:
                    connection.execute(statement)
                connection.execute(f"PRAGMA user_version = {version + 1}")


@contextmanager
def _transaction(connection: sqlite3.Connection) -> Iterator[None]:
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield
    except BaseException:
        if connection.in_transaction:  # a full disk may have ended it already
            connection.execute("ROLLBACK")
        raise
    connection.execute("COMMIT")


def _version(connection: sqlite3.Connection) -> int:
    return int(connection.execute("PRAGMA user_version").fetchone()[0])


def _unknown(connection: sqlite3.Connection, job: str) -> UnknownName:
    """Names the jobs of which there is still something to say."""
    newest = "ORDER BY began DESC LIMIT 20"
    rows = connection.execute(f"SELECT job FROM calls WHERE {OPEN} AND state != 'released' {newest}")
    return UnknownName("call of the ledger", job, [row["job"] for row in rows])


def _add(connection: sqlite3.Connection, call: Call, now: datetime, values: Mapping[str, Any]) -> None:
    """A new line, in place of one that was released."""
    told = {"job": call.job, "began": _text(now), "provider": call.provider, "model": call.model}
    told |= {"what": _shortened(call.what), "project": call.project, **values}
    names, marks = ", ".join(told), ", ".join(f":{name}" for name in told)
    connection.execute(f"INSERT OR REPLACE INTO calls ({names}) VALUES ({marks})", told)


def _standing(connection: sqlite3.Connection, span: Span) -> Standing:
    """Electricity is on no vendor's bill and counts against no budget."""
    where, values = _within(span)
    counted = f"FROM calls WHERE {where} AND state != 'released' AND source IS NOT 'electricity'"
    part = "CASE WHEN cost IS NOT NULL THEN 'spent' WHEN state = 'reserved' THEN 'reserved' ELSE 'doubt' END"
    rows = connection.execute(
        f"SELECT {part} AS part, SUM(coalesce(cost, most)) AS sum {counted} GROUP BY part", values
    )
    sums = {row["part"]: _dollars(row["sum"] or 0) for row in rows}
    unknown = connection.execute(f"SELECT job {counted} AND coalesce(cost, most) IS NULL ORDER BY began, job", values)
    return Standing(**sums, unknown=tuple(row["job"] for row in unknown))


def _within(span: Span) -> tuple[str, tuple[str, str]]:
    return "began >= ? AND began < ?", (_text(span.begin), _text(span.end))


def _line(row: sqlite3.Row) -> Line:
    price = None if row["most"] is None else Price(_dollars(row["most"]), _dollars(row["least"]))
    return Line(
        call=Call(*(row[name] for name in ("job", "provider", "model", "what", "project"))),
        began=datetime.fromisoformat(row["began"]),
        state=row["state"],
        price=price,
        cost=None if row["cost"] is None else _dollars(row["cost"]),
        source=row["source"],
        seconds=row["seconds"],
        ticket=None if row["ticket"] is None else json.loads(row["ticket"]),
        files=tuple(json.loads(row["files"])),
    )


def _least(price: Price) -> float:
    return price.most if price.least is None else price.least


def _whole(name: str, given: float) -> int:
    """Billionths of a dollar. Raises InvalidField."""
    return round(amount(name, given) * BILLION)


def _dollars(whole: int) -> float:
    return whole / BILLION


def _text(moment: datetime) -> str:
    """Of one length and in one zone, so that texts sort as moments do."""
    return moment.astimezone(UTC).isoformat(timespec="microseconds")


def _shortened(text: str) -> str:
    line = "".join(letter for letter in " ".join(text.split()) if letter.isprintable())
    return line if len(line) <= LONGEST else f"{line[: LONGEST - 1]}…"


def _said(state: str) -> str:
    return state.replace("_", " ")
