"""The KL autoencoder against that of diffusers, given the same weights; strips against the whole."""

from copy import deepcopy

import pytest
import torch
from diffusers import AutoencoderKL

from triptych.engine.codec import Tiled
from triptych.engine.codecs.kl import KL, Setting, safe_dtype
from triptych.engine.codecs.tiles import Strips
from triptych.weights.layouts import gathered
from triptych.weights.layouts.vae import layout

SMALL = {"widths": (32, 64, 64), "blocks": 1, "groups": 16}
LIKE_SD = Setting(4, 0.18215, **SMALL)
LIKE_SD3 = Setting(16, 1.5305, 0.0609, mixed=False, **SMALL)


def reference(setting):
    """An AutoencoderKL with random weights, norms and biases among them, so that nothing hides behind a zero."""
    torch.manual_seed(0)
    theirs = AutoencoderKL(
        latent_channels=setting.channels,
        block_out_channels=setting.widths,
        layers_per_block=setting.blocks,
        norm_num_groups=setting.groups,
        down_block_types=("DownEncoderBlock2D",) * len(setting.widths),
        up_block_types=("UpDecoderBlock2D",) * len(setting.widths),
        use_quant_conv=setting.mixed,
        use_post_quant_conv=setting.mixed,
    ).requires_grad_(False)
    for name, parameter in theirs.named_parameters():
        if parameter.ndim == 1:
            parameter.normal_(float("norm" in name and name.endswith("weight")), 0.3)
    return theirs


def twin(setting, theirs):
    codec = KL(setting).requires_grad_(False)
    state = theirs.state_dict()
    shapes = {name: tuple(tensor.shape) for name, tensor in codec.state_dict().items()}
    sources = layout(state)(shapes)
    assert sorted(name for source in sources.values() for name in source.names) == sorted(state)
    codec.load_state_dict(gathered(sources, shapes, state.__getitem__))
    return codec.to(theirs.dtype)


def relative(got, wanted):
    """The largest difference, by how much the wanted varies."""
    return float((got.float() - wanted.float()).abs().max() / wanted.float().std())


def peak_ratio(got, wanted):
    """Decibels, of samples in [-1, 1] or whatever range is wanted."""
    error = (got.double() - wanted.double()).square().mean()
    return float(10 * torch.log10((wanted.max() - wanted.min()).double().square() / error))


@pytest.fixture(scope="module", params=[LIKE_SD, LIKE_SD3], ids=["sd", "sd3"])
def pair(request):
    theirs = reference(request.param)
    return theirs, twin(request.param, theirs)


def test_it_is_that_of_diffusers(pair):
    theirs, codec = pair
    setting = codec.setting
    x = torch.rand(2, 3, 24, 40) * 2 - 1
    posterior = theirs.encode(x).latent_dist
    mean, std = codec.moments(x)
    assert relative(mean, (posterior.mean - setting.shift) * setting.scale) < 1e-5
    assert relative(std, posterior.std * setting.scale) < 1e-5
    assert torch.equal(codec.encode(x), mean)
    z = torch.randn(2, setting.channels, 6, 10)
    got = codec.decode(z)
    assert got.shape == (2, 3, 24, 40)
    assert relative(got, theirs.decode(z / setting.scale + setting.shift).sample) < 1e-5


def test_bfloat16_is_as_near_as_that_of_diffusers(pair):
    theirs, codec = (deepcopy(side).bfloat16() for side in pair)
    scale, shift = codec.setting.scale, codec.setting.shift
    x, z = torch.rand(2, 3, 24, 40) * 2 - 1, torch.randn(2, codec.channels, 6, 10)
    mean = (theirs.encode(x.bfloat16()).latent_dist.mean.float() - shift) * scale
    picture = theirs.decode((z / scale + shift).bfloat16()).sample.float()
    for got, other, exact in (
        (codec.encode(x), mean, pair[1].encode(x)),
        (codec.decode(z), picture, pair[1].decode(z)),
    ):
        assert got.dtype == torch.float32
        assert peak_ratio(got, exact) > max(45, peak_ratio(other, exact) - 1)


def structured(height, width):
    """(1, 3, height, width): half black, half a ramp with a grid on it, so that no strip looks like the whole."""
    picture = torch.linspace(-1, 1, height)[:, None].expand(3, height, width).clone()
    picture[:, ::8], picture[0, :, ::5] = 0.9, -0.7
    picture[:, : height // 2] = -1
    return picture[None]


@pytest.mark.parametrize("pixels", [1, 150, 10**6])
def test_strips_show_no_seams(pair, pixels):
    codec = pair[1]
    strips = Strips(codec, pixels)
    x = torch.cat([structured(36, 28), torch.rand(1, 3, 36, 28) * 2 - 1])
    z = torch.cat([codec.encode(x)[:1], torch.randn(1, codec.channels, 9, 7)])
    assert relative(strips.decode(z), codec.decode(z)) < 5e-5
    for got, wanted in zip(strips.moments(x), codec.moments(x), strict=True):
        assert relative(got, wanted) < 5e-5
    assert torch.equal(strips.encode(x), strips.moments(x)[0])
    assert (strips.channels, strips.scale_factor) == (codec.channels, codec.scale_factor)


def test_tiles_that_know_nothing_of_each_other_do_show_seams(pair):
    """What strips are for: blended tiles, each with statistics of its own, are far from the whole."""
    codec = pair[1]
    z = codec.encode(structured(128, 32))
    blended, strips, whole = (one.decode(z) for one in (Tiled(codec, (16, 0), (8, 0)), Strips(codec, 700), codec))
    assert peak_ratio(strips, whole) > max(90, peak_ratio(blended, whole) + 40)


def test_strips_in_bfloat16_differ_by_rounding(pair):
    codec = deepcopy(pair[1]).bfloat16()
    z = codec.encode(structured(36, 28))
    assert peak_ratio(Strips(codec, 150).decode(z), codec.decode(z)) > 45


def loud(setting, factor):
    """Random weights whose activations between the blocks reach far beyond what float16 can hold."""
    codec = KL(setting).requires_grad_(False)
    for name, parameter in codec.named_parameters():
        if name.startswith("decoder") and name.endswith(("conv2.weight", "conv2.bias", "conv_in.weight")):
            parameter.mul_(factor)
    return codec


def test_activations_beyond_float16_give_a_picture():
    codec = loud(LIKE_SD, 1e7)
    reached = []
    codec.decoder.up[0].register_forward_hook(lambda layer, given, out: reached.append(out.abs().max()))
    z = torch.randn(1, 4, 6, 6)
    exact = codec.decode(z)
    codec.to(safe_dtype(torch.bfloat16))
    assert peak_ratio(codec.decode(z), exact) > 40
    assert peak_ratio(Strips(codec, 50).decode(z), exact) > 40
    assert min(reached) > 10 * torch.finfo(torch.float16).max


def test_float16_is_refused():
    codec = KL(LIKE_SD).half()
    for work in (codec.encode, Strips(codec).encode):
        with pytest.raises(ValueError, match="float32 or bfloat16 allowed, see safe_dtype"):
            work(torch.zeros(1, 3, 8, 8))
    for work in (codec.decode, Strips(codec).decode):
        with pytest.raises(ValueError, match="float16 may overflow"):
            work(torch.zeros(1, 4, 2, 2))
    codec.to(safe_dtype(torch.float16))
    assert codec.decode(torch.zeros(1, 4, 2, 2)).isfinite().all()
    assert [safe_dtype(dtype) for dtype in (torch.float16, torch.bfloat16, torch.float32)] == [
        torch.float32,
        torch.bfloat16,
        torch.float32,
    ]


def test_sizes_that_no_latents_have_are_refused():
    codec = KL(LIKE_SD)
    for work in (codec.encode, Strips(codec).encode):
        with pytest.raises(ValueError, match=r"\(24, 30\) samples: multiples of \(4, 4\) allowed"):
            work(torch.zeros(1, 3, 24, 30))


def test_it_can_be_trained():
    """Gradients pass, layers that write in place among them, and equal those of finite differences."""
    codec = KL(Setting(2, 0.5, widths=(4, 8), blocks=1, groups=2)).double()
    z = torch.randn(1, 2, 2, 2, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda z: codec.decoder(codec.unscaled(z)), z)
    x = torch.randn(1, 3, 4, 4, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x: codec.encoder(codec.entering(x)), x)
