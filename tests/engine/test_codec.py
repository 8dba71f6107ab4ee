"""Codecs: shapes, and tiles that nobody can see."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional

from triptych.engine.codec import Identity, Tiled, latent_shape

CONV = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}


class Local(nn.Module):
    """A convolutional codec whose output depends on latents at most two away."""

    def __init__(self, rank: int, factor: int = 2, channels: int = 4) -> None:
        super().__init__()
        torch.manual_seed(rank)
        conv = CONV[rank]
        self.rank, self.factor, self.channels = rank, factor, channels
        self.down = conv(2, channels, factor, stride=factor)
        self.mix = conv(channels, channels, 3, padding=1)
        self.up = conv(channels, 2, 3, padding=1)

    @property
    def scale_factor(self) -> tuple[int, ...]:
        return (self.factor,) * self.rank

    @torch.no_grad()
    def encode(self, x: Tensor) -> Tensor:
        return self.mix(torch.tanh(self.down(x)))

    @torch.no_grad()
    def decode(self, z: Tensor) -> Tensor:
        return self.up(functional.interpolate(torch.tanh(self.mix(z)), scale_factor=self.factor))


def test_the_identity_codec_is_one():
    codec = Identity(3, 2)
    x = torch.randn(1, 3, 4, 5)
    assert codec.encode(x) is x
    assert codec.decode(x) is x
    assert latent_shape(codec, (4, 5)) == (3, 4, 5)


def test_latent_shapes_round_up():
    assert latent_shape(Local(2, 8), (64, 65)) == (4, 8, 9)
    assert latent_shape(Local(1, 8), (1,)) == (4, 1)
    with pytest.raises(ValueError, match="2 axes given, the codec has 3"):
        latent_shape(Local(3), (4, 4))


@pytest.mark.parametrize("rank", [1, 2, 3])
@given(data=st.data())
@settings(max_examples=25, deadline=None)
def test_tiles_equal_the_whole_where_the_codec_is_local(rank, data):
    """The overlap's quarter reaches as far as the codec sees, so no tile shows an edge of its own."""
    codec = Local(rank)
    sizes = data.draw(st.lists(st.integers(1, 60 if rank < 3 else 26), min_size=rank, max_size=rank))
    tile = tuple(data.draw(st.sampled_from([0, 16, 20, 24])) for _ in range(rank))
    tiled = Tiled(codec, tile, (8,) * rank)
    z = torch.randn(1, 4, *sizes, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(tiled.decode(z), codec.decode(z), atol=1e-5, rtol=1e-5)
    x = torch.randn(1, 2, *(2 * n for n in sizes), generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(tiled.encode(x), codec.encode(x), atol=1e-5, rtol=1e-5)


class RoundingUp(nn.Module):
    """Two samples a latent, and one for the last where it is alone."""

    channels, scale_factor = 2, (2,)

    def encode(self, x: Tensor) -> Tensor:
        return functional.avg_pool1d(x, 2, ceil_mode=True)

    def decode(self, z: Tensor) -> Tensor:
        return z.repeat_interleave(2, -1)


@pytest.mark.parametrize("samples", [31, 32, 33, 64, 101])
def test_tiles_of_an_uneven_sample_cover_it(samples):
    x = torch.randn(2, 2, samples)
    torch.testing.assert_close(Tiled(RoundingUp(), (16,), (8,)).encode(x), RoundingUp().encode(x))


class Widening(nn.Module):
    """A codec that looks at everything: it subtracts the mean of what it is given, tile by tile."""

    channels, scale_factor = 1, (4, 4)

    def encode(self, x: Tensor) -> Tensor:
        return functional.avg_pool2d(x, 4)

    def decode(self, z: Tensor) -> Tensor:
        return functional.interpolate(z - z.mean((2, 3), keepdim=True), scale_factor=4, mode="bilinear")


def test_seams_are_no_steeper_than_the_blend():
    """Tiles that disagree by a constant meet in a ramp as wide as half of the overlap: there is no step."""
    ramp = torch.linspace(-1, 1, 48).expand(1, 1, 48, 48).contiguous()
    tiled = Tiled(Widening(), (0, 16), (0, 8))
    y = tiled.decode(ramp)[0, 0]
    assert y.shape == (192, 192)
    step = y.diff(dim=-1).abs().max()
    disagreement = 2 * 8 / 47  # between the means of neighbours, 8 latents apart
    assert step < 1.5 * (disagreement / (4 * 4) + 2 / 47 / 4)
    hard = Tiled(Widening(), (0, 16), (0, 0)).decode(ramp)[0, 0]
    assert hard.diff(dim=-1).abs().max() > 8 * step


def test_constants_stay_constants():
    """The weights of the tiles add up to one everywhere."""
    z = torch.full((1, 1, 37), 0.7)
    for tile, overlap in ((10, 4), (9, 3), (5, 1), (4, 0), (8, 4)):
        torch.testing.assert_close(Tiled(Identity(1, 1), (tile,), (overlap,)).decode(z), z)


def test_what_fits_into_one_tile_is_the_codec_itself():
    codec = Local(2)
    z = torch.randn(1, 4, 16, 5)
    assert torch.equal(Tiled(codec, (16, 16), (8, 8)).decode(z), codec.decode(z))
    tiled = Tiled(codec, (16, 0), (4, 0))
    assert (tiled.channels, tiled.scale_factor) == (4, (2, 2))


class Causal(nn.Module):
    """Four samples a latent, but one for the first, as causal codecs have it."""

    channels, scale_factor = 2, (4, 1)

    def encode(self, x: Tensor) -> Tensor:
        return x[:, :, ::4]

    def decode(self, z: Tensor) -> Tensor:
        return z.repeat_interleave(4, 2)[:, :, 3:]


def test_an_axis_left_whole_may_have_any_length():
    z = torch.randn(1, 2, 5, 40)
    assert torch.equal(Tiled(Causal(), (0, 16), (0, 4)).decode(z), Causal().decode(z))
    x = torch.randn(1, 2, 17, 40)
    assert torch.equal(Tiled(Causal(), (0, 16), (0, 4)).encode(x), Causal().encode(x))
    with pytest.raises(ValueError, match="leave this axis whole"):
        Tiled(Causal(), (3, 0), (1, 0)).decode(z)


@pytest.mark.parametrize(("tile", "overlap"), [((16,), (8, 8)), ((16, 16), (9, 8)), ((16, 16), (-1, 8))])
def test_tiles_that_cannot_be_are_refused(tile, overlap):
    with pytest.raises(ValueError, match="overlap"):
        Tiled(Local(2), tile, overlap)
