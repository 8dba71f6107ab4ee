"""`triptych models --refresh`: what others' lists say of our models, compared with what is known, and kept."""

import asyncio
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING, final

from triptych.catalogue import kept, refresh
from triptych.catalogue.entries import Entry
from triptych.catalogue.kept import Found
from triptych.catalogue.known import entries, use
from triptych.errors import BadAnswer, FileProblem, ProviderError
from triptych.media import files
from triptych.providers.wire import lists, tables
from triptych.providers.wire.account import Account
from triptych.service.config import Config

if TYPE_CHECKING:
    from triptych.providers.wire.http import Pace

__all__ = ["Report", "accounts", "refreshed"]


@final
@dataclass(frozen=True, slots=True)
class Report:
    """changes: what differs from what was known; asked: whose list answered, with how many of our models it has.

    left: whose list was not asked, and why; failed: whose did not answer as it should, and how.
    """

    changes: tuple[refresh.Change, ...]
    asked: Mapping[str, int]
    left: Mapping[str, str]
    failed: Mapping[str, str]


@final
@dataclass(slots=True)
class _Round:
    """What has come so far."""

    known: Mapping[str, Entry]
    today: date
    found: dict[str, Found] = field(default_factory=dict)
    changes: list[refresh.Change] = field(default_factory=list)
    asked: dict[str, int] = field(default_factory=dict)

    def add(self, name: str, news: tuple[dict[str, Found], list[refresh.Change]]) -> None:
        found, changes = news
        self.found = refresh.joined(self.found, found)
        self.changes += changes
        self.asked[name] = len(found)


def accounts(settings: Config) -> list[Account]:
    """The user's, with those whose lists are asked. Raises FileProblem, InvalidField."""
    specs = [*(tables.spec(vendor) for vendor in refresh.VENDORS), lists.PRICES]
    return [settings.settings.account(spec) for spec in specs]


def refreshed(place: Path, whose: Sequence[Account], today: date, pace: "Pace | None" = None) -> Report:
    """Asks all that can be asked and keeps at `place` what they said. What failed leaves what was known as it was.

    Raises FileProblem where that cannot be written.
    """
    try:
        before = kept.read(place)
        use(place)
    except FileProblem:  # broken: it is made anew
        before = {}
        use(None)
    news = _Round(entries(), today)
    left = {account.spec.name: why for account in whose if (why := _why_not(account))}
    going = [account for account in whose if account.spec.name not in left]
    failed = asyncio.run(_all(news, going, pace))
    if news.found:
        told = kept.told(today, refresh.joined(before, news.found))
        place.parent.mkdir(parents=True, exist_ok=True)
        files.write(place, json.dumps(told, indent=1).encode())
    use(place)
    return Report(tuple(news.changes), news.asked, left, failed)


async def _all(news: _Round, whose: Sequence[Account], pace: "Pace | None") -> dict[str, str]:
    """By name, what went wrong."""
    said = await asyncio.gather(*(_one(news, account, pace) for account in whose))
    return {account.spec.name: problem for account, problem in zip(whose, said, strict=True) if problem}


async def _one(news: _Round, account: Account, pace: "Pace | None") -> str:
    """What went wrong, if anything did."""
    name = account.spec.name
    try:
        if name == lists.PRICES.name:
            answer = await lists.prices(account, pace)
            news.add(name, refresh.priced(answer, news.known, news.today, account.base_url))
        else:
            pages = await lists.models(account, pace)
            news.add(name, refresh.listed(name, refresh.models(name, pages), news.known, news.today))
    except ProviderError as problem:
        return str(problem)
    except (KeyError, TypeError, ValueError, AttributeError) as problem:
        return str(BadAnswer(f"{account.spec.title} answered with something else than its list: {problem!r}."))
    return ""


def _why_not(account: Account) -> str:
    spec = account.spec
    if spec.keys and account.key is None:
        return f"no key: set {' or '.join(spec.keys)}"
    if spec.name in refresh.VENDORS and not account.own:
        return f"its base URL is a gateway's ({account.base_url}), whose list says nothing of the vendor"
    return ""
