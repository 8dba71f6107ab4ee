"""Recipes are found, and a small one runs from nothing to weights that load: its own sprites, its own tokenizer."""

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers

from triptych.errors import UnknownName
from triptych.families import cards, mini
from triptych.train.pictures import stream
from triptych.train.recipe import export, find
from triptych.train.tasks import CodecTask, DenoiserTask, SketchTask

WORDS = ["[PAD]", "[UNK]", "a", "red", "blue", "disc", "square"]


class Scene:
    """A disc or a square, red or blue."""

    def __init__(self, seed: int) -> None:
        rng = np.random.default_rng(seed)
        shape, colour = rng.choice(["disc", "square"]), rng.choice(["red", "blue"])
        y, x = np.mgrid[:32, :32] - 15.5
        inside = (x**2 + y**2 < 100) if shape == "disc" else (abs(x) < 9) & (abs(y) < 9)
        self.pixels = np.full((32, 32, 3), 255, np.uint8)
        self.pixels[inside] = (220, 30, 30) if colour == "red" else (30, 30, 220)
        self.caption = f"a {colour} {shape}"


def tokenise(texts):
    tokenizer = Tokenizer(models.WordLevel({word: n for n, word in enumerate(WORDS)}, unk_token="[UNK]"))
    tokenizer.normalizer, tokenizer.pre_tokenizer = normalizers.Lowercase(), pre_tokenizers.Whitespace()
    rows = [[1, *tokenizer.encode(text).ids] for text in texts]
    longest = max(map(len, rows))
    ids = torch.tensor([row + [0] * (longest - len(row)) for row in rows])
    return ids, torch.tensor([[n < len(row) for n in range(longest)] for row in rows])


def small_parts():
    torch.manual_seed(0)
    tower = mini.WordTower(len(WORDS), 4, 16, layers=1, heads=2, length=8, hidden=32, grid=(4, 4, 4))
    tower.table.copy_(torch.randint(-127, 128, tower.table.shape, dtype=torch.int8))
    network = mini.UNet(2, 4, (16, 16), (False, True), blocks=1, embedding=16, tokens=16, vector=16, heads=2, concat=4)
    codec = mini.Folded(2, 3, 4, 4, widths=(16, 16, 16, 16), blocks=(1, 1, 1, 1), finish=4)
    return mini.Parts(tower, network, codec)


def falls(task, steps=60, rate=3e-3):
    """The loss of a task at the start and after some steps, with the loop's own kind of generator."""
    optimiser, losses = torch.optim.AdamW(task.modules.parameters(), lr=rate), []
    for step, batch in zip(range(steps), task.batches(0), strict=False):
        loss = task.loss(batch, torch.Generator().manual_seed(step))
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    return sum(losses[:5]) / 5, sum(losses[-5:]) / 5


def test_every_task_learns(tmp_path):
    parts = small_parts()

    def batches(first):
        return stream(Scene, 16, first, workers=0)

    codec = CodecTask(parts.codec, batches, crop=32, noise=0.05)
    first, last = falls(codec)
    assert last < 0.6 * first
    codec.show(tmp_path / "codec.png")
    assert (tmp_path / "codec.png").stat().st_size > 500

    batch = next(batches(0))
    latents = parts.codec.eval().requires_grad_(False).encode(batch.samples).detach()
    sketch = SketchTask(parts.tower, latents, batch.captions, tokenise, batch=8, drop=0.1)
    first, last = falls(sketch)
    assert last < 0.6 * first

    def times(count, generator):
        return torch.rand(count, generator=generator)

    denoiser = DenoiserTask(
        parts.tower, parts.denoiser, parts.codec, batches, tokenise, times=times, drop=0.1, show=lambda path: None
    )
    first, last = falls(denoiser)
    assert last < 0.8 * first


def test_batches_are_those_of_their_step_whenever_they_are_asked_for():
    late = next(stream(Scene, 4, 3, workers=0))
    early = stream(Scene, 4, 0, workers=0)
    fourth = [next(early) for _ in range(4)][3]
    assert late.captions == fourth.captions
    torch.testing.assert_close(late.samples, fourth.samples, rtol=0, atol=0)
    assert late.samples.shape == (4, 3, 32, 32)
    assert late.samples.max() == 1.0


def test_exported_weights_load_strictly(tmp_path):
    parts, again = small_parts(), small_parts()
    export(parts, tmp_path / "mini.safetensors")
    tensors = mini.load_file(tmp_path / "mini.safetensors")
    assert all(value.dtype == torch.float16 for value in tensors.values())
    table = {"tower.table": parts.tower.table, "tower.scale": parts.tower.scale}
    mini.fill(again.modules(), tensors | table, "mini")
    with pytest.raises(mini.WeightsMismatch, match="Missing"):
        mini.fill(again.modules(), {**table, "stranger": torch.zeros(1)}, "mini")


def test_the_shipped_recipe_is_found_by_name_and_by_path():
    assert find("mini-image") == find("recipes/mini-image.toml")
    with pytest.raises(UnknownName, match="mini-image"):
        find("mini-imag")


def test_the_card_and_its_parts_agree():
    card = cards()["mini-image"]
    parts = mini.assemble(card)
    assert card.settings["tower"]["grid"][0] == parts.codec.channels == card.settings["network"]["concat"]


def test_words_begin_with_one_token_and_know_their_length():
    vocabulary = {"[UNK]": 0, "cat": 1}
    text = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]")).to_str()
    words = mini.Words(text, 4)
    ids, mask = words(["cat", ""])
    assert ids.tolist() == [[mini.BEGIN, 1], [mini.BEGIN, 0]]
    assert mask.tolist() == [[True, True], [True, False]]
