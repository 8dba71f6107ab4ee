"""The U-Net, the word tower and the folded codec at toy widths, over any rank."""

from dataclasses import replace

import pytest
import torch

from triptych.engine.codecs.folded import Folded, fold, unfold
from triptych.engine.conditioning import Conditioning
from triptych.engine.nets.layers import TimeEmbedding
from triptych.engine.nets.unet import UNet
from triptych.engine.text.words import Memory, Sketch, WordTower

RANKS = (1, 2, 3)
SKETCH = {
    "hidden": 16, "slots": 5, "grid": (3, 4, 4),
    "memories": [{"window": (4, 4), "rank": 5}, {"window": (2, 2), "rank": 5, "reads": 2}],
}  # fmt: skip


def unet(rank: int, concat: int = 0) -> UNet:
    torch.manual_seed(0)
    network = UNet(rank, 3, (16, 32), (False, True), blocks=1, embedding=16, tokens=8, vector=8, heads=2, concat=concat)
    for parameter in network.parameters():  # the zeroed layers too, or half of the network would be untested
        torch.nn.init.normal_(parameter, std=0.1)
    return network.eval()


def told(batch: int = 2, length: int = 5) -> Conditioning:
    g = torch.Generator().manual_seed(1)
    tokens, vector = torch.randn(batch, length, 8, generator=g), torch.randn(batch, 8, generator=g)
    return Conditioning(tokens=tokens, mask=torch.ones(batch, length, dtype=torch.bool), vector=vector)


@pytest.mark.parametrize("rank", RANKS)
def test_the_same_network_serves_every_rank(rank):
    x = torch.randn(2, 3, *[8] * rank)
    assert unet(rank)(x, torch.tensor([10.0, 900.0]), told()).shape == x.shape


@pytest.mark.parametrize("rank", [1, 2])
def test_a_network_along_sequences_starts_as_what_it_was(rank):
    single, members = unet(rank, concat=2), 5
    told_all = replace(told(), concat=torch.randn(2, 2, 1, *[8] * rank), scalars={"rate": torch.tensor([4.0, 8.0])})
    sequences = UNet(
        rank, 3, (16, 32), (False, True), blocks=1, embedding=16, tokens=8, vector=8, heads=2, concat=2, along=True
    )
    missing, unexpected = sequences.load_state_dict(single.state_dict(), strict=False)
    assert not unexpected
    assert all(".along." in name or name.startswith("place.") for name in missing)
    x, t = torch.randn(2, 3, members, *[8] * rank), torch.tensor([10.0, 900.0])
    each = [single(x[:, :, n], t, replace(told_all, concat=told_all.concat[:, :, 0])) for n in range(members)]
    torch.testing.assert_close(sequences.eval()(x, t, told_all), torch.stack(each, 2), rtol=1e-4, atol=1e-4)


def test_members_of_a_sequence_hear_of_each_other_and_of_their_place():
    torch.manual_seed(0)
    network = UNet(2, 3, (16, 32), (False, True), embedding=16, tokens=8, vector=8, heads=2, along=True)
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    x, t, rate = torch.randn(1, 3, 4, 8, 8), torch.tensor([5.0]), torch.tensor([4.0])
    cond = replace(told(1), scalars={"rate": rate})
    changed = x.clone()
    changed[:, :, 0] += 1
    assert not torch.allclose(network(x, t, cond)[:, :, 3], network(changed, t, cond)[:, :, 3], atol=1e-5)
    later = replace(cond, scalars={"rate": rate, "start": torch.tensor([0.5])})
    assert not torch.allclose(network(x, t, cond), network(x, t, later), atol=1e-5)


def test_a_fresh_network_gives_nothing():
    network = UNet(2, 3, (16, 32), (False, True), embedding=16, tokens=8, vector=8, heads=2)
    assert network(torch.randn(1, 3, 8, 8), torch.tensor([5.0]), told(1)).abs().max() == 0


@pytest.mark.parametrize("rank", RANKS)
def test_samples_of_a_batch_do_not_see_each_other(rank):
    network, x, t, cond = unet(rank), torch.randn(2, 3, *[8] * rank), torch.tensor([10.0, 900.0]), told()
    together = network(x, t, cond)
    assert cond.tokens is not None
    assert cond.vector is not None
    alone = network(x[1:], t[1:], Conditioning(tokens=cond.tokens[1:], vector=cond.vector[1:]))
    torch.testing.assert_close(together[1:], alone, rtol=1e-4, atol=1e-5)


def test_masked_tokens_say_nothing():
    network, x, t, cond = unet(2), torch.randn(1, 3, 8, 8), torch.tensor([10.0]), told(1)
    assert cond.tokens is not None
    mask = torch.tensor([[True, True, True, False, False]])
    changed = cond.tokens.clone()
    changed[:, 3:] += 100
    first = network(x, t, Conditioning(tokens=cond.tokens, mask=mask, vector=cond.vector))
    second = network(x, t, Conditioning(tokens=changed, mask=mask, vector=cond.vector))
    torch.testing.assert_close(first, second)
    assert not torch.allclose(first, network(x, t, Conditioning(tokens=changed, vector=cond.vector)))


@pytest.mark.parametrize("rank", RANKS)
def test_stacked_channels_are_resized_to_the_latents(rank):
    network, x = unet(rank, concat=2), torch.randn(1, 3, *[8] * rank)
    constant = torch.full((1, 2, *[8] * rank), 0.3)
    coarse = torch.full((1, 2, *[4] * rank), 0.3)
    t, cond = torch.tensor([10.0]), told(1)
    outs = [network(x, t, Conditioning(tokens=cond.tokens, concat=c)) for c in (constant, coarse)]
    torch.testing.assert_close(*outs)


def test_the_time_embedding_is_that_of_diffusers():
    from diffusers.models.embeddings import get_timestep_embedding

    embedding = TimeEmbedding(8, frequencies=16)
    embedding.layers = torch.nn.Sequential(torch.nn.Identity(), torch.nn.Identity(), embedding.layers[2])
    embedding.layers[2] = torch.nn.Linear(32, 32, bias=False)
    torch.nn.init.eye_(embedding.layers[2].weight)
    t = torch.tensor([0.0, 3.5, 999.0])
    reference = get_timestep_embedding(t, 32, flip_sin_to_cos=True, downscale_freq_shift=0)
    torch.testing.assert_close(embedding(t), reference, rtol=1e-5, atol=1e-5)


def tower() -> WordTower:
    torch.manual_seed(0)
    words = WordTower(50, 6, 8, layers=2, heads=2, length=7, sketch=SKETCH)
    words.table.copy_(torch.randint(-127, 128, words.table.shape, dtype=torch.int8))
    return words


def test_padding_does_not_change_what_a_text_says():
    words, ids = tower(), torch.tensor([[1, 5, 9, 0, 0]])
    short = words(ids[:, :3], torch.ones(1, 3, dtype=torch.bool))
    padded = words(ids, torch.tensor([[True, True, True, False, False]]))
    torch.testing.assert_close(short.tokens, padded.tokens[:, :3])
    torch.testing.assert_close(short.vector, padded.vector)
    torch.testing.assert_close(short.concat, padded.concat)
    assert padded.concat.shape == (1, 3, 4, 4)


def test_the_order_of_words_matters():
    words, mask = tower(), torch.ones(1, 3, dtype=torch.bool)
    first, second = words(torch.tensor([[1, 5, 9]]), mask), words(torch.tensor([[9, 5, 1]]), mask)
    assert not torch.allclose(first.vector, second.vector)


@pytest.mark.parametrize("rank", RANKS)
def test_a_memory_lays_what_is_recalled_where_it_is_told(rank):
    grid, window = (3, *[6] * rank), [2] * rank
    memory = Memory(8, 5, grid, window=window, rank=5)
    means = torch.randn(5, *grid)
    memory.remember(means)
    with torch.no_grad():
        memory.places.bias.reshape(memory.steps)[(1,) * rank] = 2.0
    out = memory(torch.randn(1, 8), torch.eye(5)[3][None, None])
    expected = torch.zeros(1, *grid)
    inside = (slice(None), *[slice(1, 3)] * rank)
    expected[0][inside] = 2 * means[3][(slice(None), *[slice(2, 4)] * rank)]
    torch.testing.assert_close(out, expected)


def test_a_fresh_sketch_is_the_mixture_that_it_recalls():
    sketch = Sketch(8, **SKETCH)
    ground, means = torch.randn(3, 4, 4), torch.randn(2, 5, 3, 4, 4)
    sketch.remember(ground, list(means))
    torch.nn.init.zeros_(sketch.leave.weight)
    vector = torch.randn(2, 8)
    shares = sketch.scores(vector).softmax(-1)[:, 0]
    torch.testing.assert_close(sketch(vector), torch.einsum("bs,schw->bchw", shares, means[0]))


def test_the_table_is_not_trained():
    words = tower()
    assert not {"table", "scale"} & {name for name, _ in words.named_parameters()}


@pytest.mark.parametrize("rank", RANKS)
def test_unfolding_is_the_inverse_of_folding(rank):
    x = torch.randn(2, 3, *[12] * rank)
    assert fold(x, [4] * rank).shape == (2, 3 * 4**rank, *[3] * rank)
    torch.testing.assert_close(unfold(fold(x, [4] * rank), [4] * rank), x, rtol=0, atol=0)


def test_folding_in_two_axes_is_pixel_unshuffle():
    x = torch.randn(2, 3, 8, 12)
    torch.testing.assert_close(fold(x, (4, 4)), torch.nn.functional.pixel_unshuffle(x, 4), rtol=0, atol=0)


@pytest.mark.parametrize("rank", RANKS)
def test_the_folded_codec_keeps_its_promises(rank):
    codec = Folded(rank, 3, 4, 2, widths=(16, 16, 16, 16), blocks=(1, 1, 1, 1), finish=4)
    x = torch.randn(2, 3, *[16] * rank)
    for _ in range(200):
        codec.measure(codec.features(x), 0.1)
    z = codec.encode(x)
    assert codec.scale_factor == (4,) * rank
    assert z.shape == (2, 4, *[4] * rank)
    torch.testing.assert_close(z.mean(), torch.tensor(0.0), rtol=0, atol=1e-3)
    torch.testing.assert_close(z.std(), torch.tensor(1.0), rtol=0, atol=0.05)
    assert codec.decode(z).shape == x.shape
