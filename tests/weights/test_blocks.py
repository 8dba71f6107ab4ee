"""What blocks and eight bits stand for: equal, bit for bit, to what the gguf package and torch make of them."""

import gguf
import numpy as np
import pytest
import torch
from few_bits import HALVES, blocks
from gguf.quants import dequantize, quantize

from triptych.weights.blocks import FORMS, Rows, unpacked
from triptych.weights.gguf import BLOCKS, OTHERS, TYPES

WRITABLE = ["Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0"]  # what the package can quantise to
EIGHTS = {"I8": torch.int8, "F8_E4M3": torch.float8_e4m3fn, "F8_E5M2": torch.float8_e5m2}


def test_every_block_type_is_known_to_both():
    assert set(HALVES) == set(BLOCKS) == FORMS.keys() - EIGHTS.keys()
    for form, (count, size) in BLOCKS.items():
        assert (FORMS[form].count, FORMS[form].size) == (count, size)
        assert gguf.GGML_QUANT_SIZES[gguf.GGMLQuantizationType[form]] == (count, size)
    told = {member.value: member.name for member in gguf.GGMLQuantizationType}
    assert told == {**TYPES, **OTHERS}


@pytest.mark.parametrize("form", HALVES)
@pytest.mark.parametrize("columns", [256, 512 * 300])
def test_blocks_are_what_the_package_says_bit_for_bit(form, columns):
    raw = blocks(form, 3, columns)
    wanted = dequantize(raw, gguf.GGMLQuantizationType[form])
    rows = Rows(form, torch.from_numpy(raw))
    found = rows.whole(torch.float32)
    assert np.array_equal(found.numpy(), wanted)
    assert torch.equal(rows.whole(torch.bfloat16), torch.from_numpy(wanted).bfloat16())
    assert torch.equal(rows.part(1, 2).whole(torch.float32), found[1:2])
    assert torch.equal(unpacked(form, rows.values.flatten(), (3, 1, columns)), found[:, None])


@pytest.mark.parametrize("form", WRITABLE)
def test_numbers_that_the_package_quantises_come_back(form):
    x = np.random.default_rng(1).normal(size=(4, 256)).astype(np.float32)
    raw = quantize(x, gguf.GGMLQuantizationType[form])
    found = Rows(form, torch.from_numpy(raw)).whole(torch.float32).numpy()
    assert np.array_equal(found, dequantize(raw, gguf.GGMLQuantizationType[form]))
    steps = {"Q4": 1 / 8, "Q5": 1 / 16, "Q8": 1 / 127}[form[:2]]
    assert np.abs(found - x).max() <= 1.01 * steps * np.abs(x).max()


@pytest.mark.parametrize("form", EIGHTS)
def test_all_eight_bits_are_what_torch_says(form):
    every = torch.arange(256, dtype=torch.uint8)[None]
    found = Rows(form, every).whole(torch.float32)
    assert torch.equal(found.nan_to_num(-1e9), every.view(EIGHTS[form]).float().nan_to_num(-1e9))
    assert torch.equal(found.isnan(), every.view(EIGHTS[form]).float().isnan())


def test_a_tensor_without_numbers():
    assert unpacked("Q4_0", torch.empty(0, dtype=torch.uint8), (3, 0)).shape == (3, 0)
    assert unpacked("Q4_K", torch.empty(0, dtype=torch.uint8), (0, 256), torch.bfloat16).dtype == torch.bfloat16


def test_a_tensor_whose_rows_are_shorter_than_a_block_is_unpacked_as_it_lies():
    raw = blocks("Q4_K", 2, 256)
    wanted = dequantize(raw, gguf.GGMLQuantizationType["Q4_K"]).reshape(8, 16, 2, 2)
    assert np.array_equal(unpacked("Q4_K", torch.from_numpy(raw.ravel()), (8, 16, 2, 2)).numpy(), wanted)
