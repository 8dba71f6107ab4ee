"""How far from exact each faster way ends and how much faster it is, as measured, and the choice between them by that.

A table is kept by the hashes of a model's weights, so that it holds wherever those lie and whatever they are called.
Where none is kept, what the card's settings say holds: `drift`, pairs of `fast` and the decibels that it keeps.
"""

import hashlib
import json
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, final

from triptych import families
from triptych.errors import FileProblem, InvalidField
from triptych.media import files
from triptych.providers.recipe import describe
from triptych.types import Card, Field, Request

__all__ = ["EXACT", "Row", "Table", "Tables", "fields"]

FORMAT = 1
EXACT: Mapping[str, float] = {"fast": 1, "merge": 0.0}  # the options that make it faster, and where they do not
WALK = ("steps", "sampler", "spacing")  # of a request: what decides most about how much is lost
BOUND = "choose the fastest way of which nine in ten results keep this PSNR in dB against the exact ones, as measured"


@final
@dataclass(frozen=True, slots=True)
class Row:
    """One faster way. Decibels are PSNR against the exact results of the same seeds."""

    options: Mapping[str, float]  # what of the request makes it faster
    times: float  # how many times faster it is
    median: float  # decibels
    kept: float  # decibels that nine in ten results keep


@final
@dataclass(frozen=True, slots=True)
class Table:
    """What was measured. exact: seconds that a result takes; settings: with what all of it was made."""

    rows: tuple[Row, ...]
    exact: float
    settings: Mapping[str, Any]

    def fastest(self, bound: float) -> Mapping[str, float]:
        """The options of the fastest way that keeps so many decibels in nine of ten results."""
        within = [row for row in self.rows if row.kept >= bound and row.times > 1]
        return max(within, key=lambda row: row.times).options if within else {}


@final
class Tables:
    """The tables of one folder."""

    def __init__(self, folder: Path | None) -> None:
        """folder: None where none are kept."""
        self._folder = folder

    def read(self, card: Card) -> Table | None:
        """What was measured of the card's weights, if it was. Raises FileProblem, WeightsError."""
        known = self._folder is not None and any(self._folder.glob("*.json"))
        if not known or not families.here(card):  # nothing is fetched in vain
            return None
        path = self._path(card)
        if not path.exists():
            return None
        try:
            told = json.loads(files.read(path))
            if told["drift"] != FORMAT:
                raise ValueError(f"version {told['drift']!r}, this triptych reads {FORMAT}")
            return Table(tuple(Row(**row) for row in told["rows"]), told["exact"], told["settings"])
        except (ValueError, KeyError, TypeError) as problem:
            advice = f"Measure it again: triptych calibrate {shlex.quote(card.name)}"
            raise FileProblem(f"{path}: this table cannot be read: {problem!r}. {advice}") from problem

    def write(self, card: Card, table: Table) -> Path:
        """Keeps the table in place of an older one, and says where. Raises FileProblem, WeightsError."""
        path = self._path(card)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as problem:
            raise FileProblem(f"cannot make the folder {path.parent}: {problem.strerror}.") from problem
        told = {"drift": FORMAT, "model": card.name, **asdict(table)}
        return files.write(path, json.dumps(told, indent=1).encode())

    def settled(self, card: Card, request: Request) -> tuple[Request, Sequence[str]]:
        """The resolved request, its `max_drift` replaced by the options that this chooses, and warnings.

        Raises InvalidField.
        """
        bound = request.options.get("max_drift")
        if bound is None:
            return request, ()
        for name, exact in EXACT.items():
            if request.options.get(name, exact) != exact:
                advice = f"Tell one of them: max_drift chooses {name}."
                raise InvalidField(name, request.options[name], f"{exact:g} with max_drift", advice)
        table = self.read(card) or _shipped(card)
        if table is None:
            advice = f"Measure it: triptych calibrate {shlex.quote(card.name)}"
            raise InvalidField("max_drift", bound, "none before it is known what the faster ways keep", advice)
        options = {name: value for name, value in request.options.items() if name != "max_drift"}
        return replace(request, options={**options, **table.fastest(bound)}), _warnings(table, request)

    def _path(self, card: Card) -> Path:
        assert self._folder is not None, "a folder to keep tables in"
        weights = families.fingerprint(card)["weights"]
        text = json.dumps(sorted(weights.values()) or card.name)
        return self._folder / f"{hashlib.sha256(text.encode()).hexdigest()[:32]}.json"


def fields(card: Card) -> Mapping[str, Field]:
    """What can be asked of this card besides what it names itself."""
    return {"max_drift": Field("float", minimum=0, maximum=100, help=BOUND)} if "fast" in card.fields else {}


def _shipped(card: Card) -> Table | None:
    """What the card says; a larger `fast` is faster."""
    if "drift" not in card.settings:
        return None
    rows = tuple(Row({"fast": n}, n, kept, kept) for n, kept in card.settings["drift"])
    return Table(rows, 0.0, {name: card.fields[name].default for name in WALK})


def _warnings(table: Table, request: Request) -> list[str]:
    """What has to be said of a walk that is unlike those that were measured."""
    then, now = ([said.get(name) for name in WALK] for said in (table.settings, describe(request)))
    if then == now:
        return []
    was, is_now = ("{} steps of {} ({})".format(*walk) for walk in (then, now))
    advice = f"triptych calibrate {shlex.quote(request.model)} measures it"
    return [f"max_drift went by what was measured at {was}, not at {is_now}: {advice}"]
