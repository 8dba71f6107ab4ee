"""The service over every provider there is: the one place that names them."""

from collections.abc import Callable
from functools import partial

from triptych.catalogue import use
from triptych.providers import Provider
from triptych.providers.bfl import BFL
from triptych.providers.compatible import Compatible
from triptych.providers.elevenlabs import ElevenLabs
from triptych.providers.fal import Fal
from triptych.providers.google import Google
from triptych.providers.huggingface import HuggingFace
from triptych.providers.local import Local
from triptych.providers.openai import OpenAI
from triptych.providers.remote import Remote
from triptych.providers.replicate import Replicate
from triptych.providers.stability import Stability
from triptych.providers.vertex import Vertex
from triptych.providers.wire import tables
from triptych.providers.wire.account import Account
from triptych.providers.wire.vendor import Vendor
from triptych.service.config import Config, config
from triptych.service.jobs import Store
from triptych.service.ledger import Ledger
from triptych.service.purse import Purse
from triptych.service.service import Service

__all__ = ["default"]


def default(settings: Config | None = None) -> Service:
    """This user's."""
    chosen = settings or config()
    use(chosen.catalogue)
    own = chosen.settings
    local = Local(chosen.latents, chosen.drift, chosen.cache)
    purse = Purse(Ledger(chosen.ledger), own.budgets, own.electricity, own.project)
    return Service([local, *_vendors(chosen)], Store(chosen.jobs, chosen.inputs), purse)


def _vendors(chosen: Config) -> list[Provider]:
    """Those that an interface reaches, each with the user's account."""

    def account(name: str) -> Callable[[], Account]:
        return partial(chosen.settings.account, tables.spec(name))

    vendors: list[Vendor] = [OpenAI(), Google(), Vertex(), BFL(), Stability(), ElevenLabs(), Compatible()]
    vendors += [Fal(account("fal")), Replicate(account("replicate")), HuggingFace(account("huggingface"))]
    return [Remote(one, account(one.name), chosen.remote) for one in vendors]
