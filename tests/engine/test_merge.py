"""Token merging: held against its definition in plain loops, exact where tokens are the same, and where it happens."""

import pytest
import torch
from einops import repeat
from test_ldm import SHAPES, TINY, asked, randomized

from triptych.engine.conditioning import Conditioning
from triptych.engine.nets.ldm import REFINER, SD15, SDXL, LatentUNet, TransformerBlock
from triptych.engine.nets.merge import MOST, Merging


def by_hand(x, size, share):
    """What one sample x (N, C) becomes, merged and parted, after arXiv:2303.17604 with the first place of every cell as
    its destination; the same to 5e-7 as the authors' tomesd 0.1.3 with no_rand=True."""
    height, width = size
    cells = [row * width + column for row in range(0, height, 2) for column in range(0, width, 2)]
    units = x / x.norm(dim=-1, keepdim=True)
    best = {}
    for token in range(len(x)):
        if token not in cells:
            likeness = [float(units[token] @ units[cell]) for cell in cells]
            best[token] = max(likeness), cells[likeness.index(max(likeness))]
    gone = sorted(best, key=lambda token: -best[token][0])[: int(share * len(x))]
    out = x.clone()
    for cell in cells:
        group = [cell, *(token for token in gone if best[token][1] == cell)]
        out[group] = x[group].mean(0)
    return out


@pytest.mark.parametrize("size", [(4, 4), (6, 8), (5, 7), (1, 6)])
@pytest.mark.parametrize("share", [0.1, 0.4, 0.5])
def test_merged_and_parted_is_the_mean_of_each_group(size, share):
    x = torch.randn(3, size[0] * size[1], 16, generator=torch.Generator().manual_seed(1))
    merging = Merging.of(x, size, share)
    merged = merging.merged(x)
    assert merged.shape == (3, x.shape[1] - int(share * x.shape[1]), 16)
    expected = torch.stack([by_hand(one, size, share) for one in x])
    torch.testing.assert_close(merging.parted(merged), expected)


def test_a_sample_is_merged_as_if_it_were_alone():
    x = torch.randn(3, 24, 8)
    together = Merging.of(x, (4, 6), 0.5)
    for number, one in enumerate(x.split(1)):
        alone = Merging.of(one, (4, 6), 0.5)
        assert torch.equal(alone.merged(one)[0], together.merged(x)[number])
        assert torch.equal(alone.parted(alone.merged(one))[0], together.parted(together.merged(x))[number])


@torch.no_grad()
def test_where_every_cell_is_of_one_kind_attention_is_exact():
    block = randomized(TransformerBlock(32, 24, 4)).double()
    cells = torch.randn(2, 3, 4, 32, dtype=torch.float64)
    x = repeat(cells, "b h w c -> b (h i w j) c", i=2, j=2)
    cond = Conditioning(tokens=torch.randn(2, 5, 24, dtype=torch.float64))
    exact = block(x.clone(), cond, (6, 8))
    torch.testing.assert_close(block(x.clone(), cond, (6, 8), MOST), exact)
    other = torch.randn_like(x)
    assert not torch.allclose(block(other.clone(), cond, (6, 8), MOST), block(other.clone(), cond, (6, 8)))


@pytest.mark.parametrize(("shape", "width", "blocks"), [(SD15, 320, 5), (SDXL, 640, 10), (REFINER, 768, 20)])
def test_the_finest_transformers_merge(shape, width, blocks):
    with torch.device("meta"):
        network = LatentUNet(shape)
    network.merge(0.5)
    found = [module for module in network.modules() if getattr(module, "share", 0)]
    assert {one.norm.num_channels for one in found} == {width}
    assert sum(len(one.transformer_blocks) for one in found) == blocks
    network.merge(0.0)
    assert not [module for module in network.modules() if getattr(module, "share", 0)]


@pytest.mark.parametrize("name", ["sd15", "sdxl"])
@torch.no_grad()
def test_a_network_merges_until_it_is_told_not_to(name):
    network = randomized(LatentUNet(SHAPES[name]))
    x, timestep, cond, _ = asked(SHAPES[name])
    exact = network(x, timestep, cond)
    network.merge(0.5)
    merged = network(x, timestep, cond)
    assert 0 < torch.dist(merged, exact) < 0.5 * exact.norm()
    assert torch.equal(network(x, timestep, cond), merged)
    network.merge(0.0)
    assert torch.equal(network(x, timestep, cond), exact)


@torch.no_grad()
def test_attention_sees_fewer_places_and_the_prompt_sees_all():
    network, seen = randomized(LatentUNet(TINY)), []
    block = network.input_blocks[1][1].transformer_blocks[0]
    for attention in (block.attn1, block.attn2):
        attention.register_forward_hook(lambda module, given, out: seen.append(given[0].shape[1]))
    x, timestep, cond, _ = asked(TINY)
    places = x.shape[2] * x.shape[3]
    network.merge(0.25)
    network(x, timestep, cond)
    assert seen == [places - places // 4, places]
