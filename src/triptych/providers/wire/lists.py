"""Lists that others keep of models and prices, as they answer: a vendor's own by its key, the price map by none."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from triptych.providers.wire.account import Account, Spec
from triptych.providers.wire.vendor import Reply, explained

if TYPE_CHECKING:
    from triptych.errors import ProviderError
    from triptych.providers.wire.http import Pace

__all__ = ["PRICES", "models", "prices"]

PRICES = Spec(
    name="prices",
    title="the public price map",
    base_url="https://raw.githubusercontent.com/BerriAI/litellm/main/model_prices_and_context_window.json",
    hosts=("raw.githubusercontent.com",),
    keys=(),
    base_urls=("TRIPTYCH_PRICES_URL",),
)
PATHS: Mapping[str, tuple[str, Mapping[str, str]]] = {  # of a vendor's list, and what it is asked with
    "openai": ("models", {}),
    "google": ("v1/models", {"pageSize": "1000"}),
}
PAGES = 20  # that a list may have


async def models(account: Account, pace: "Pace | None" = None) -> list[dict[str, Any]]:
    """A vendor's own list, its pages one after the other. Raises ProviderError."""
    from triptych.providers.wire.http import Wire

    path, params = PATHS[account.spec.name]
    found: list[dict[str, Any]] = []
    async with Wire(account, lambda reply: _explain(account, reply), pace) as wire:
        token = ""
        while len(found) < PAGES:
            more = {"pageToken": token} if token else {}
            found.append((await wire.ask(path, params={**params, **more})).json())
            token = str(found[-1].get("nextPageToken", ""))
            if not token:
                break
    return found


async def prices(account: Account, pace: "Pace | None" = None) -> dict[str, Any]:
    """The price map, from wherever its URL leads. Raises ProviderError."""
    from triptych.providers.wire.http import Wire

    async with Wire(account, lambda reply: _explain(account, reply), pace) as wire:
        return (await wire.ask(account.base_url)).json()


def _explain(account: Account, reply: Reply) -> "ProviderError":
    return explained(account.spec.title, reply, reply.body[:200].decode(errors="replace"), key=account.spec.page)
