"""How often a request wants the deep part of a network computed: told as such, or by what it may cost."""

from dataclasses import replace

from triptych.engine.denoiser import NetworkDenoiser
from triptych.engine.nets.fast import Fast, whole
from triptych.errors import InvalidField
from triptych.model import Model
from triptych.types import Card, Request

__all__ = ["every", "hastened"]


def every(card: Card, request: Request) -> int:
    """At every how manieth step: the request's `fast`, or the largest whose drift, as measured, is within `max_drift`.

    The card's settings hold what was measured: `drift`, pairs of n and the decibels (PSNR) that are kept against n = 1
    by nine in ten. Raises InvalidField where both are told.
    """
    fast, bound = request.options["fast"], request.options.get("max_drift")
    if bound is None:
        return int(fast)
    if fast != 1:
        raise InvalidField("fast", fast, "1 with max_drift", "Tell one of them: max_drift chooses fast.")
    return max((n for n, kept in card.settings["drift"] if kept >= bound), default=1)


def hastened(model: Model, request: Request) -> Model:
    """The model whose network, all of which counts as deep, is computed as often as the request wants."""
    n, was = every(model.card, request), model.denoiser
    if n == 1:
        return model
    assert isinstance(was, NetworkDenoiser), "a network on a path"
    return replace(model, denoiser=NetworkDenoiser(Fast(whole(was.network), n), was.path, was.target, was.timestep))
