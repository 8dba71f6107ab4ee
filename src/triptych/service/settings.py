"""What the user has set up: config.toml, the environment, the system's keyring; the environment wins.

project = "shoes"           # what calls are summed up by

[openai]                    # any vendor, by its name
key = "..."                 # or the environment, or the keyring: keyring set triptych openai
base_url = "https://..."    # of a gateway that speaks the same wire
timeout = 600               # seconds between two pieces of an answer
deadline = 3600             # seconds that a job may take
proxy = "http://..."
prices = "list"             # at a gateway: the vendor's list holds there ("list"), or it costs nothing ("free")

[budget]                    # US dollars
call = 0.50
day = 5
month = 50

[electricity]
watts = 300
per_kwh = 0.30
"""

import os
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any, final

from triptych.errors import FileProblem, InvalidField
from triptych.providers.wire.account import Account, Secret, Spec, bare, leads
from triptych.providers.wire.printed import printed
from triptych.service.budgets import Budgets, Electricity

__all__ = ["Settings"]

PLAIN = ("key", "base_url", "timeout", "deadline", "proxy", "prices")
TABLES: Mapping[str, tuple[str, ...]] = {"budget": ("call", "day", "month"), "electricity": ("watts", "per_kwh")}
SERVICE = "triptych"  # in the keyring


@final
@dataclass(frozen=True, slots=True)
class Settings:
    """The file need not exist; it is read when it is asked for."""

    path: Path

    def account(self, spec: Spec) -> Account:
        """The user's account with a vendor. Raises FileProblem, InvalidField."""
        told = self._table(spec.name, (*PLAIN, *spec.settings))
        base_url = str(_environment(spec.base_urls) or told.get("base_url") or spec.base_url).strip().rstrip("/")
        if base_url and not leads(base_url):
            raise InvalidField(f"{spec.name}.base_url", bare(base_url), "http:// or https://, a host, a path")
        given = {name: _environment(names) or told.get(name) for name, names in spec.settings.items()}
        if "prices" in told:
            given["prices"] = _chosen(f"{spec.name}.prices", told["prices"], ("list", "free", "unknown"))
        return Account(
            spec,
            self._key(spec, told),
            base_url,
            timeout=_seconds(f"{spec.name}.timeout", told.get("timeout", 600.0)),
            deadline=_seconds(f"{spec.name}.deadline", told.get("deadline", 3600.0)),
            proxy=told.get("proxy"),
            settings={name: str(value) for name, value in given.items() if value},
        )

    def budgets(self) -> Budgets:
        """What may be spent. Raises FileProblem, InvalidField."""
        told = self._table("budget", TABLES["budget"])
        return Budgets(**{name: _number(f"budget.{name}", name, told) for name in TABLES["budget"]})

    def electricity(self) -> Electricity | None:
        """What this machine draws and what that costs, where it is told. Raises FileProblem, InvalidField."""
        told = self._table("electricity", TABLES["electricity"])
        lacking = [name for name in TABLES["electricity"] if name not in told]
        if len(lacking) == 1:
            raise InvalidField(f"electricity.{lacking[0]}", None, f"a number beside the other one in {self.path}")
        return None if lacking else Electricity(**told)

    def project(self) -> str:
        """What calls are summed up by, where nothing else is told."""
        told = os.environ.get("TRIPTYCH_PROJECT") or self._read().get("project", "")
        if not isinstance(told, str):
            raise InvalidField("project", told, f"a text in {self.path}")
        return told

    def _key(self, spec: Spec, told: Mapping[str, Any]) -> Secret | None:
        found = _environment(spec.keys) or told.get("key") or _from_keyring(spec.name)
        if found is None:
            return printed(spec.command)
        text = str(found).strip()
        if not text.isascii() or not text.isprintable() or not text:
            raise InvalidField(f"{spec.name}.key", "[key]", "letters, digits and signs of ASCII, on one line")
        return Secret(text)

    def _table(self, name: str, known: tuple[str, ...]) -> Mapping[str, Any]:
        told = self._read().get(name, {})
        if not isinstance(told, dict):
            raise InvalidField(name, "[not shown]", f"a table [{name}] in {self.path}")
        for key in told:
            if key not in known:
                raise InvalidField(f"{name}.{key}", "[not shown]", f"in {self.path}: {', '.join(known)}")
        return told

    def _read(self) -> Mapping[str, Any]:
        try:
            return tomllib.loads(self.path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            return {}
        except (OSError, ValueError) as problem:  # a line of it may hold a key: only where it is wrong is told
            where = problem.strerror if isinstance(problem, OSError) else str(problem).rpartition("(")[2].rstrip(")")
            raise FileProblem(f"{self.path} cannot be read: {where}. Mend it, or move it away.") from None


def _environment(names: tuple[str, ...]) -> str | None:
    return next((os.environ[name] for name in names if os.environ.get(name, "").strip()), None)


def _from_keyring(name: str) -> str | None:
    """The key that the system keeps, where the package `keyring` is installed and has one."""
    if find_spec("keyring") is None:
        return None
    keyring = import_module("keyring")
    try:
        found = keyring.get_password(SERVICE, name)
    except Exception:  # whatever a backend raises, without one there is no key
        return None
    return found if isinstance(found, str) else None


def _number(field: str, name: str, told: Mapping[str, Any]) -> float | None:
    text = os.environ.get(f"TRIPTYCH_{field.replace('.', '_').upper()}")
    if text is None:
        return told.get(name)
    try:
        return float(text)
    except ValueError:
        raise InvalidField(f"TRIPTYCH_{field.replace('.', '_').upper()}", text, "US dollars") from None


def _seconds(field: str, given: Any) -> float:
    if isinstance(given, bool) or not isinstance(given, int | float) or not 0 < given <= 86400 * 7:
        raise InvalidField(field, given, "seconds, up to a week")
    return float(given)


def _chosen(field: str, given: Any, choices: tuple[str, ...]) -> str:
    if given not in choices:
        raise InvalidField(field, given, f"one of {', '.join(choices)}")
    return str(given)
