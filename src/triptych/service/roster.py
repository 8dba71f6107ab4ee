"""Who runs what somebody names: a card's name, what people call it, a vendor's prefix, a place where weights lie."""

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from datetime import date
from difflib import get_close_matches
from typing import final

from triptych.catalogue import entries
from triptych.catalogue.lifecycle import alive, refuse, stale, successors, warning, why
from triptych.catalogue.names import meant
from triptych.errors import Gone, UnknownName
from triptych.providers import Finding, Provider
from triptych.types import Card

__all__ = ["Roster"]


@final
class Roster:
    """The providers there are, by name."""

    def __init__(self, providers: Mapping[str, Provider]) -> None:
        self._providers = providers

    def cards(self) -> Mapping[str, Card]:
        """Every model that can be asked for, by name."""
        return {name: card for provider in self._providers.values() for name, card in provider.cards().items()}

    def lacks(self, name: str) -> str:
        """What is missing for a model to be asked now: a key, weights; "" where nothing is. Asks no network."""
        entry = entries().get(name)
        provider = self._providers.get(entry.provider) if entry is not None else None
        if provider is None or entry is None:
            return "nobody here runs it"
        return provider.lacks(name)

    async def check(self) -> Mapping[str, Sequence[Finding]]:
        """What each provider needs and has. May take seconds."""
        found = await asyncio.gather(*(provider.check() for provider in self._providers.values()))
        return dict(zip(self._providers, found, strict=True))

    def successor(self, model: str) -> Card:
        """The card of what comes closest to a model that is gone, and can be asked today; the model's own where it is
        not gone. Raises UnknownName, Gone where nothing does."""
        entry = meant(model)
        if entry is None or (entry.provider in self._providers and alive(entry, date.today())):
            return self.found(model)[1]
        for one in successors(entry, date.today()):
            if one.provider in self._providers:
                return self._providers[one.provider].card(one.name)
        raise Gone(f"{entry.title} is gone, and nothing is known in its place. See: triptych models --alive")

    def found(self, model: str) -> tuple[Provider, Card]:
        """By a provider's prefix, a card's name, a name in the catalogue, a place. Raises UnknownName, Gone."""
        prefix, colon, _ = model.partition(":")
        if colon and prefix in self._providers:
            return self._providers[prefix], self._providers[prefix].card(model)
        for provider in self._providers.values():
            if model in provider.cards():
                return provider, provider.card(model)
        entry = meant(model)
        if entry is not None and entry.provider in self._providers:
            return self._providers[entry.provider], self._providers[entry.provider].card(entry.name)
        if entry is not None:
            refuse(entry, date.today())
        for provider in self._providers.values():
            with suppress(UnknownName):
                return provider, provider.card(model)
        problem = UnknownName("model", model, _nearest(model, [*self.cards(), *entries()]))
        problem.add_note("Those are the nearest; all of them: triptych models")
        raise problem

    def living(self, model: str) -> tuple[Provider, Card, tuple[str, ...]]:
        """As `found`, with what has to be said of its age. Raises Gone too, where nobody can be asked for it."""
        provider, card = self.found(model)
        entry = entries().get(card.name)
        if entry is None or entry.local:
            return provider, card, ()
        if not provider.gateway():
            refuse(entry, date.today())
        gone = (
            ""
            if alive(entry, date.today())
            else f"{entry.title} {why(entry, date.today())}; the base URL is asked for it"
        )
        told = (gone, warning(entry, date.today()), stale(entry, date.today()))
        return provider, card, tuple(filter(None, told))


def _nearest(name: str, known: Iterable[str]) -> list[str]:
    """Those that are written most like it."""
    return get_close_matches(name, sorted(set(known)), n=8, cutoff=0.0)
