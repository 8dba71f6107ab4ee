"""Noise by seed: what torch draws, per sample, whatever the batch, the device and the dtype."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from triptych.engine.noise import SeededNoise


@given(seed=st.integers(0, 2**32 - 1), shape=st.lists(st.integers(1, 9), min_size=1, max_size=4))
@settings(max_examples=50, deadline=None)
def test_a_seed_draws_what_torch_draws_and_goes_on(seed, shape):
    generator = torch.Generator("cpu").manual_seed(seed)
    noise = SeededNoise([seed])
    first = noise.draw(shape)
    assert first.dtype == torch.float32
    assert torch.equal(first[0], torch.randn(tuple(shape), generator=generator))
    for _ in range(2):
        assert torch.equal(noise(first)[0], torch.randn(tuple(shape), generator=generator))


def test_a_batch_is_its_samples_side_by_side():
    together = SeededNoise(range(5, 9))
    apart = [SeededNoise([seed]) for seed in range(5, 9)]
    x = together.draw((4, 7, 3))
    assert torch.equal(x, torch.cat([noise.draw((4, 7, 3)) for noise in apart]))
    assert torch.equal(together(x), torch.cat([noise(x[:1]) for noise in apart]))


def test_it_is_the_noise_that_diffusers_draws_from_a_list_of_generators():
    from diffusers.utils.torch_utils import randn_tensor

    generators = [torch.Generator("cpu").manual_seed(seed) for seed in (3, 4)]
    noise = SeededNoise([3, 4])
    first = noise.draw((4, 8, 8))
    assert torch.equal(first, randn_tensor((2, 4, 8, 8), generator=generators))
    assert torch.equal(noise(first), randn_tensor((2, 4, 8, 8), generator=generators))
    assert torch.equal(SeededNoise([3]).draw((4, 8, 8)), randn_tensor((1, 4, 8, 8), generator=torch.manual_seed(3)))


def test_the_numbers_do_not_depend_on_the_dtype_that_is_asked():
    x = torch.zeros(1, 4, 8, dtype=torch.float64)
    assert torch.equal(SeededNoise([1])(x), SeededNoise([1])(x.float()).double())


def test_a_batch_of_another_size_is_refused():
    with pytest.raises(ValueError, match="3 samples given, noise was seeded for 2"):
        SeededNoise([1, 2])(torch.zeros(3, 4))


def test_the_global_generator_is_left_alone():
    before = torch.random.get_rng_state()
    SeededNoise([1, 2]).draw((3, 3))
    assert torch.equal(before, torch.random.get_rng_state())
