"""Conditionings along the batch."""

from dataclasses import fields, replace

import pytest
import torch

from triptych.engine.conditioning import Conditioning, concatenate


def full(seed: int = 0, **changes) -> Conditioning:
    generator = torch.Generator().manual_seed(seed)

    def randn(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator)

    cond = Conditioning(
        tokens=randn(2, 3, 4),
        mask=randn(2, 3) > 0,
        vector=randn(2, 5),
        concat=randn(2, 1, 6, 6),
        references=(randn(2, 3, 6, 6), randn(2, 3, 7)),
        scalars={"fps": randn(2), "seconds": randn(2)},
        later=((0.5, Conditioning(vector=randn(2, 5))),),
    )
    return replace(cond, **changes)


def test_every_route_is_joined_along_the_batch():
    first, second = full(1), full(2)
    joined = concatenate(first, second)
    assert joined is not None
    for name in ("tokens", "mask", "vector", "concat"):
        assert torch.equal(getattr(joined, name), torch.cat([getattr(first, name), getattr(second, name)]))
    for a, b, both in zip(first.references, second.references, joined.references, strict=True):
        assert torch.equal(both, torch.cat([a, b]))
    assert joined.scalars.keys() == first.scalars.keys()
    for name, both in joined.scalars.items():
        assert torch.equal(both, torch.cat([first.scalars[name], second.scalars[name]]))


@pytest.mark.parametrize("route", [field.name for field in fields(Conditioning)])
def test_a_route_that_only_one_has_needs_two_calls(route):
    empty = getattr(Conditioning(), route)
    assert concatenate(full(), full(**{route: empty})) is None
    assert concatenate(full(**{route: empty}), full()) is None
    assert concatenate(full(1, **{route: empty}), full(2, **{route: empty})) is not None


@pytest.mark.parametrize(
    "changes",
    [
        {"tokens": torch.zeros(2, 4, 4)},
        {"tokens": torch.zeros(2, 3, 4, dtype=torch.float16)},
        {"references": (torch.zeros(2, 3, 6, 6),)},
        {"references": (torch.zeros(2, 3, 6, 6), torch.zeros(2, 3, 8))},
        {"scalars": {"fps": torch.zeros(2)}},
        {"scalars": {"fps": torch.zeros(2), "other": torch.zeros(2)}},
    ],
)
def test_other_shapes_dtypes_or_names_need_two_calls(changes):
    assert concatenate(full(), full(**changes)) is None


def test_what_comes_later_is_joined_where_it_comes_at_the_same_time():
    first, second = full(1), full(2)
    joined = concatenate(first, second)
    (time, cond), = joined.later  # fmt: skip
    assert time == 0.5
    assert torch.equal(cond.vector, torch.cat([first.later[0][1].vector, second.later[0][1].vector]))
    assert joined.at(torch.tensor([[0.5]])) is cond
    assert joined.at(torch.tensor(0.6)) is joined
    assert concatenate(first, full(2, later=((0.4, Conditioning(vector=torch.zeros(2, 5))),))) is None
    assert concatenate(first, full(2, later=((0.5, Conditioning(vector=torch.zeros(2, 6))),))) is None


def test_scalars_are_matched_by_name_not_by_order():
    other = full(2)
    turned = replace(other, scalars=dict(reversed(other.scalars.items())))
    joined = concatenate(full(1), turned)
    assert torch.equal(joined.scalars["fps"][2:], other.scalars["fps"])


def test_nothing_joined_to_nothing_is_nothing():
    joined = concatenate(Conditioning(), Conditioning())
    assert joined is not None
    assert joined.tokens is None
    assert joined.references == ()
    assert dict(joined.scalars) == {}


def test_a_conditioning_is_known_by_identity():
    assert full() != full()
    assert len({full(), full()}) == 2
