"""Philox against its authors' known answers, its normal numbers against those that graphics cards draw."""

import numpy as np
import pytest
import torch
from scipy import stats

from triptych.engine.noise import SOURCES, SeededNoise, cpu, gpu, slerp
from triptych.engine.philox import Philox, philox

ONES = 0xFFFFFFFF


@pytest.mark.parametrize(
    ("counter", "key", "expected"),
    [  # kat_vectors of Random123, philox4x32 with ten rounds
        ((0, 0, 0, 0), (0, 0), (0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8)),
        ((ONES,) * 4, (ONES,) * 2, (0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD)),
        (
            (0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344),
            (0xA4093822, 0x299F31D0),
            (0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1),
        ),
    ],
)
def test_blocks_are_the_authors_known_answers(counter, key, expected):
    words = philox(tuple(np.array([word], dtype=np.uint64) for word in counter), key[0] + (key[1] << 32))
    assert tuple(int(word[0]) for word in words) == expected


def test_numbers_are_those_of_the_web_uis_own_generator():
    """What modules/rng_philox.py says that it gives for seed 0, which torch.randn(device="cuda") gives too."""
    expected = [
        [-0.92466259, -0.42534415, -2.6438457, 0.14518388],
        [-0.12086647, -0.57972564, -0.62285122, -0.32838709],
        [-1.07454231, -0.36314407, -1.67105067, 2.26550497],
    ]
    torch.testing.assert_close(Philox(0)((3, 4)), torch.tensor(expected), atol=1e-7, rtol=0)


def test_every_draw_is_a_counter_further():
    """The generator on a card goes on by four words a draw, which is one block, whatever the shape."""
    one, other = Philox(5), Philox(5)
    first, second = one((2, 3)), one((4,))
    assert torch.equal(other((7,))[:6].reshape(2, 3), first)
    assert torch.equal(other((9, 9)).flatten()[:4], second)
    assert not torch.equal(first.flatten()[:4], second)


def test_seeds_have_64_bits():
    high = Philox(2**32 + 1)((4,))
    assert not torch.equal(high, Philox(1)((4,)))
    assert torch.equal(Philox(2**64 + 1)((4,)), Philox(1)((4,)))
    assert torch.equal(Philox(-1)((4,)), Philox(2**64 - 1)((4,)))
    assert torch.equal(cpu(-1)((4,)), cpu(2**64 - 1)((4,)))


def test_numbers_are_normal():
    numbers = Philox(3)((100, 100)).flatten().numpy()
    assert numbers.dtype == np.float32
    assert stats.kstest(numbers, "norm").pvalue > 0.01


@pytest.mark.parametrize("source", SOURCES)
def test_a_batch_is_its_samples_side_by_side(source):
    both = SeededNoise([4, 9], SOURCES[source])
    alone = SeededNoise([9], SOURCES[source])
    for _ in range(3):
        assert torch.equal(both.draw((2, 3))[1:], alone.draw((2, 3)))


def test_slerp_keeps_the_length_and_turns_by_the_share():
    low, high = gpu(1)((2, 64, 5)), gpu(2)((2, 64, 5))
    low, high = low / low.norm(dim=1, keepdim=True), high / high.norm(dim=1, keepdim=True)
    turned = slerp(low, high, 0.25)
    torch.testing.assert_close(turned.norm(dim=1), torch.ones(2, 5))
    angle, part = ((low * x).sum(1).acos() for x in (high, turned))
    torch.testing.assert_close(part, angle / 4, atol=1e-4, rtol=0)
    torch.testing.assert_close(slerp(low, high, 0.0), low)
    torch.testing.assert_close(slerp(low, high, 1.0), high)


def test_slerp_of_what_is_alike_is_the_web_uis():
    """rng.py: low val + high (1 - val) where their mean cosine is above 0.9995."""
    low = gpu(1)((2, 64, 5))
    high = low * 1.5
    torch.testing.assert_close(slerp(low, high, 0.25), 0.25 * low + 0.75 * high)
