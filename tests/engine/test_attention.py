"""Attention against its definition: in every precision, at every length, with scores of every size."""

import math

import pytest
import torch

from triptych.engine.nets.attention import AT_ONCE, LONG, attention, pooled


def drawn(batch, length, keys, width, spread, seed=0):
    """q, k, v whose scores have about this deviation, and keys that lie away from zero, as learned ones do."""
    generator = torch.Generator().manual_seed(seed)
    shapes = [(batch, length, width), (batch, keys, width), (batch, keys, width)]
    q, k, v = (torch.randn(shape, generator=generator) for shape in shapes)
    return q * spread, k + torch.randn(1, 1, width, generator=generator), v


def defined(q, k, v, heads):
    """By its formula, in float64."""
    q, k, v = (x.double().unflatten(2, (heads, -1)).transpose(1, 2) for x in (q, k, v))
    shares = (q @ k.mT / math.sqrt(q.shape[-1])).softmax(-1)
    return (shares @ v).transpose(1, 2).flatten(2)


def error(found, expected):
    return float((found.double() - expected).norm() / expected.norm())


@pytest.mark.parametrize("keys", [7, LONG, LONG + 5])
def test_it_is_its_formula(keys):
    q, k, v = drawn(2, 33, keys, 48, 1.0)
    assert error(attention(q, k, v, 4), defined(q, k, v, 4)) < 1e-6


@pytest.mark.parametrize(("heads", "width"), [(2, 80), (1, 64), (2, 32), (3, 120)])
@pytest.mark.parametrize("spread", [0.1, 1.0, 4.0])
@torch.no_grad()
def test_long_sequences_in_bfloat16_are_as_exact_as_bfloat16_is(heads, width, spread):
    q, k, v = (x.bfloat16() for x in drawn(2, 700, LONG + 96, width, spread))
    expected = defined(q, k, v, heads)
    found = attention(q, k, v, heads)
    assert found.dtype == torch.bfloat16
    assert error(found, expected) < 0.01


@torch.no_grad()
def test_more_queries_than_fit_at_once():
    q, k, v = (x.bfloat16() for x in drawn(1, AT_ONCE // 1024 + 3, 1024, 16, 1.0))
    assert error(attention(q, k, v, 1), defined(q, k, v, 1)) < 0.01


@torch.no_grad()
def test_scores_beyond_all_measure_give_no_infinity():
    q, k, v = (x.bfloat16() for x in drawn(1, 600, LONG, 32, 1.0))
    k[:, 3] *= 3000  # a key that the eighth ones do not tell of
    found = attention(q, k, v, 1)
    assert found.isfinite().all()
    assert error(found, defined(q, k, v, 1)) < 0.01


def test_gradients_flow_through_long_sequences():
    q, k, v = (x.bfloat16().requires_grad_() for x in drawn(1, 8, LONG, 16, 1.0))
    attention(q, k, v, 1).float().sum().backward()
    assert all(x.grad is not None for x in (q, k, v))


def test_what_is_masked_has_no_say():
    q, k, v = drawn(1, 4, LONG, 16, 1.0)
    mask = torch.arange(LONG)[None] < 9
    with torch.no_grad():
        found = attention(q.bfloat16(), k.bfloat16(), v.bfloat16(), 1, mask)
    assert error(found, defined(q, k[:, :9], v[:, :9], 1)) < 0.01


def test_a_pool_is_a_mean_by_softmax():
    torch.manual_seed(0)
    scores, tokens = torch.nn.Linear(8, 2), torch.randn(1, 5, 8)
    mask = torch.tensor([[True, True, True, False, False]])
    shares = scores(tokens[:, :3]).softmax(1)
    expected = torch.cat([shares[0, :, n] @ tokens[0, :3] for n in (0, 1)])
    torch.testing.assert_close(pooled(scores, tokens, mask)[0], expected)
