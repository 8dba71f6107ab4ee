"""Recipes are found, and a small one runs from nothing to weights that load: its own sprites, its own tokenizer."""

from copy import deepcopy
from functools import partial
from itertools import repeat

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers

from triptych.engine.adapt import merge
from triptych.engine.conditioning import Conditioning
from triptych.engine.pitch import LOWEST, partials
from triptych.engine.poses import LOOP, POSE, still
from triptych.engine.pulse import WAVES
from triptych.engine.text.words import Sketch
from triptych.errors import UnknownName
from triptych.families import cards, mini
from triptych.train.bank import NOTHING, Bank, encoded, means
from triptych.train.batches import Batch, heard, stream
from triptych.train.data import sounds
from triptych.train.recipe import TABLE, export, find, usual
from triptych.train.sequences import Lengths, Windows, alone, learned, prepare
from triptych.train.tasks import CodecTask, CourseTask, DecoderTask, DenoiserTask, SketchTask, SpectralTask

SKETCH = {"hidden": 32, "slots": 2, "grid": (4, 4, 4), "memories": [{"window": (4, 4), "rank": 2, "reads": 2}]}
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
        self.codes = (shape,)


def tokenise(texts):
    tokenizer = Tokenizer(models.WordLevel({word: n for n, word in enumerate(WORDS)}, unk_token="[UNK]"))
    tokenizer.normalizer, tokenizer.pre_tokenizer = normalizers.Lowercase(), pre_tokenizers.Whitespace()
    rows = [[1, *tokenizer.encode(text).ids] for text in texts]
    longest = max(map(len, rows))
    ids = torch.tensor([row + [0] * (longest - len(row)) for row in rows])
    return ids, torch.tensor([[n < len(row) for n in range(longest)] for row in rows])


def small_parts(along=False):
    torch.manual_seed(0)
    more = {"course": {"heads": 2, "hidden": 16}, "loops": {"slots": 2, "length": 9, "modes": 2, "rank": 4}}
    more = more if along else {}
    tower = mini.WordTower(len(WORDS), 4, 16, layers=1, heads=2, length=8, sketch=SKETCH, **more)
    tower.table.copy_(torch.randint(-127, 128, tower.table.shape, dtype=torch.int8))
    concat = 9 if along else 4
    sizes = {"blocks": 1, "embedding": 16, "tokens": 16, "vector": 16, "heads": 2, "concat": concat, "along": along}
    network = mini.UNet(2, 4, (16, 16), (False, True), **sizes)
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


def banked(parts, folder):
    """500 scenes encoded by the codec as it is."""
    parts.codec.eval().requires_grad_(False)
    return encoded(parts.codec, partial(stream, Scene, workers=0), ["disc", "square"], 500, folder / "bank.safetensors")


def test_every_task_learns(tmp_path):
    parts = small_parts()

    def batches(first):
        return stream(Scene, 16, first, workers=0)

    codec = CodecTask(parts.codec, batches, crop=32, noise=0.05)
    first, last = falls(codec)
    assert last < 0.6 * first
    codec.show(tmp_path / "codec.png")
    assert (tmp_path / "codec.png").stat().st_size > 500

    bank = banked(parts, tmp_path)
    sketch = SketchTask(parts.tower, bank, tokenise, batch=8, drop=0.1)
    first, last = falls(sketch)
    assert last < 0.6 * first

    def times(count, generator):
        return torch.rand(count, generator=generator)

    denoiser = DenoiserTask(
        parts.tower, parts.denoiser, bank, tokenise, batch=16, times=times, drop=0.1, show=lambda path: None
    )
    first, last = falls(denoiser)
    assert last < 0.8 * first


def test_a_bank_is_made_once_and_keeps_what_each_scene_shows(tmp_path):
    parts = small_parts()
    bank, again = banked(parts, tmp_path), banked(small_parts(), tmp_path)
    torch.testing.assert_close(again.latents, bank.latents, rtol=0, atol=0)
    scenes = [Scene(seed) for seed in range(500)]
    assert bank.captions == again.captions == [scene.caption for scene in scenes]
    assert bank.subjects.tolist() == [[["disc", "square"].index(scene.codes[0]), NOTHING] for scene in scenes]


def test_a_bank_gives_every_scene_once_an_epoch_and_the_same_batch_for_a_step():
    captions = ["x" * (n % 7) for n in range(100)]
    bank = Bank(torch.arange(100.0).reshape(100, 1, 1, 1), captions, torch.full((100, 2), NOTHING))
    batches = bank.batches(10, 0)
    epoch = [next(batches) for _ in range(10)]
    assert sorted(torch.cat([batch.x_0.flatten() for batch in epoch]).tolist()) == list(range(100))
    assert [captions[int(n)] for n in epoch[0].x_0.flatten()] == epoch[0].captions
    torch.testing.assert_close(next(bank.batches(10, 13)).x_0, [next(batches) for _ in range(4)][3].x_0)


def test_means_are_those_of_each_thing():
    class Alternating(Scene):
        def __init__(self, seed):
            super().__init__(seed)
            self.pixels = np.full((32, 32, 3), (40, 200)[seed % 2], np.uint8)

    parts = small_parts()
    got = means(parts.codec.eval(), partial(stream, Alternating, workers=0), 2, 3)
    grey = torch.tensor([40.0, 200.0]).reshape(2, 1, 1, 1).expand(2, 3, 32, 32) / 127.5 - 1
    torch.testing.assert_close(got, parts.codec.encode(grey), atol=0.05, rtol=0.05)


def test_a_memory_gives_back_what_it_was_filled_with():
    memories = [{"window": (4, 4), "rank": 3}]
    sketch, means, ground = Sketch(8, 4, 3, (2, 4, 4), memories), torch.randn(3, 2, 4, 4), torch.randn(2, 4, 4)
    torch.nn.init.zeros_(sketch.leave.weight)
    sketch.remember(ground, [means])
    with torch.no_grad():
        sketch.query.weight.copy_(torch.eye(8))
        sketch.query.bias.zero_()
        sketch.keys.copy_(100 * torch.eye(8)[:3])
        recalled = sketch(torch.eye(8)[:3])
    torch.testing.assert_close(recalled, means, atol=1e-5, rtol=1e-5)


def test_what_is_trained_alone_leaves_the_rest_as_it_was():
    parts = small_parts(along=True)
    prepare(parts, 2, 2)
    trained = {name for name, p in parts.tower.named_parameters() if p.requires_grad}
    with alone(parts.tower, parts.tower.course):
        now = {name for name, p in parts.tower.named_parameters() if p.requires_grad}
    assert now == {name for name in trained if name.startswith("course.")} != trained
    assert {name for name, p in parts.tower.named_parameters() if p.requires_grad} == trained


def test_a_network_of_pictures_learns_sequences(tmp_path):
    parts = small_parts(along=True)
    stills = deepcopy(parts.tower).requires_grad_(False)
    prepare(parts, 2, 2)
    frozen = {name: p.clone() for name, p in parts.modules().named_parameters() if not p.requires_grad}
    moving = torch.randn(20, 4, 1, 4, 4) * torch.linspace(-1, 1, 9).reshape(1, 1, 9, 1, 1)
    poses = still(20, 9).clone()
    poses[..., 0] = torch.linspace(-0.2, 0.2, 9)
    bank = Bank(moving.half(), ["a red disc"] * 20, torch.tensor([[0, NOTHING]] * 20), poses)
    loops = torch.randn(2, 4, 9, 4, 4)
    parts.tower.loops.remember(loops)
    captions = ["a red disc", "a blue disc"] * 3  # the red one moves, the blue one moves by itself
    own, codes = torch.tensor([False, True] * 3), [("disc",)] * 6
    script = Batch(torch.empty(6, 0), captions, codes, poses[:6], own, ["a red disc"] * 6)
    course = CourseTask(
        parts.tower, lambda first: repeat(script), ["disc"], ["square", "disc"], tokenise, rate=12.0, stills=stills
    )
    first, last = falls(course, 120, 1e-2)
    assert last < 0.5 * first
    with torch.no_grad():
        _, sure = parts.tower.loops(parts.tower(*tokenise(captions[:2])).vector, torch.zeros(2, 1))
    assert sure[0] < 0.2 < 0.8 < sure[1]
    task = DenoiserTask(
        parts.tower, parts.denoiser, bank, tokenise, batch=5, drop=0.1, words=False,
        view=Windows(4, (1, 2), 12.0, 0.5, parts.tower.loops),
        times=lambda count, generator: torch.rand(count, generator=generator), show=lambda path: None,
    )  # fmt: skip
    first, last = falls(task)
    assert last < 0.9 * first
    assert all(torch.equal(p, frozen[name]) for name, p in parts.modules().named_parameters() if name in frozen)

    plain, own = small_parts(along=True), learned(parts.modules())
    base = dict(small_parts(along=True).modules().state_dict())
    mini.fill(plain.modules(), merge(base | {n: v for n, v in own.items() if ".low." not in n}, own), "mini")
    ids, mask = tokenise(["a blue square"])
    told = mini.in_sequence(parts.tower(ids, mask), torch.tensor([12.0]), still(1, 5))
    x, t = torch.randn(1, 4, 5, 4, 4), torch.tensor([300.0])
    torch.testing.assert_close(plain.network(x, t, told), parts.network(x, t, told), rtol=1e-4, atol=1e-4)


class Tone:
    """A low or a high note."""

    def __init__(self, seed):
        high = np.random.default_rng(seed).random() < 0.5
        self.samples = (0.3 * np.sin(np.arange(2048) * (0.8 if high else 0.2))).astype(np.float32)
        self.caption = "a red disc" if high else "a blue square"
        self.codes = ("disc",) if high else ("square",)
        self.pulse = 2.0 if high else 0.0
        self.notes = [69] if high else [48, 52]


def test_a_network_of_waves_learns(tmp_path):
    torch.manual_seed(0)
    codec = mini.Spectral(4, window=128, hop=32, fold=(2, 4), widths=(16, 16, 16, 16), blocks=(1, 1, 1, 1), finish=2)
    spectral = SpectralTask(
        codec, lambda first: stream(Tone, 8, first, workers=0, collate=heard), parts=2, noise=0.05
    )  # fmt: skip
    first, last = falls(spectral, 40)
    assert last < 0.7 * first
    spectral.show(tmp_path / "codec.png")
    assert (tmp_path / "codec.png").stat().st_size > 200

    codec.eval().requires_grad_(False)
    x = torch.from_numpy(Tone(0).samples)[None, None]
    before = codec.encode(x)
    decoder = DecoderTask(codec, spectral.batches, parts=2, noise=0.05)
    first, last = falls(decoder, 40)
    assert last < 0.9 * first
    torch.testing.assert_close(codec.encode(x), before, rtol=0, atol=0)
    decoder.show(tmp_path / "decoder.png")
    assert (tmp_path / "decoder.png").stat().st_size > 200

    sketch = {"hidden": 16, "slots": 2, "grid": (codec.channels, 2), "memories": [{"window": (2,), "rank": 2}]}
    pulse = {"heads": 2, "hidden": 16}
    tower = mini.WordTower(len(WORDS), 4, 16, layers=1, heads=2, length=8, sketch=sketch, pulse=pulse, pitch=pulse)
    tower.table.copy_(torch.randint(-127, 128, tower.table.shape, dtype=torch.int8))
    network = mini.UNet(
        2, codec.channels, (16, 16), (False, True), blocks=1, embedding=16, tokens=16, vector=16, heads=2,
        concat=codec.channels + WAVES * codec.rows + codec.bands, scalars=["seconds"], rows=codec.rows,
    )  # fmt: skip
    parts = mini.Parts(tower, network, codec.eval().requires_grad_(False))
    batches = partial(stream, Tone, workers=0, collate=heard)
    bank = encoded(codec, batches, ["disc", "square"], 100, tmp_path / "bank.safetensors", 50)
    assert bank.latents.shape == (100, codec.channels, 8)
    assert set(bank.pulses.tolist()) == {0.0, 2.0}
    ground, [means] = usual(bank, 2, 2)
    moments = bank.latents.float().reshape(100, codec.channels, 2, 4).mean(-1)
    torch.testing.assert_close(ground, moments.mean(0))
    torch.testing.assert_close(means[1], moments[bank.subjects[:, 0] == 1].mean(0))
    tower.sketch.remember(ground, [means])
    first, last = falls(SketchTask(tower, bank, tokenise, batch=8, drop=0.1), 120, 1e-2)
    assert last < 0.6 * first
    asked = tower(*tokenise(["a red disc", "a blue square"]))
    rate = tower.pulse.rate(asked.tokens, asked.mask)
    assert rate.tolist() == [pytest.approx(2.0, rel=0.1), 0.0]
    likely = tower.pitch(asked.tokens, asked.mask) > 0
    assert [(LOWEST + row.nonzero()[:, 0]).tolist() for row in likely] == [[69], [48, 52]]
    where = partials(*codec.hertz(8000))
    task = DenoiserTask(
        parts.tower, parts.denoiser, bank, tokenise, batch=8, drop=0.1,
        view=Lengths((4, 8), 10.0, codec.rows, tower.pitch, where),
        times=lambda count, generator: torch.rand(count, generator=generator), show=lambda path: None,
    )  # fmt: skip
    first, last = falls(task)
    assert last < 0.9 * first


def test_what_is_told_is_as_long_as_what_is_made():
    sketch, pulse, likely = torch.randn(2, 6, 2), torch.tensor([1.0, 0.0]), torch.rand(2, 12)
    cond = mini.in_length(Conditioning(concat=sketch), 11, 2.0, pulse, likely, rows=3)
    told = cond.concat.reshape(2, 2 + WAVES + 4, 3, 11)
    torch.testing.assert_close(told[:, :2].flatten(1, 2), mini.stretched(sketch, 11))
    torch.testing.assert_close(told[..., :2, 0, 0], sketch[:, [0, 3], 0])
    torch.testing.assert_close(told[..., :2, 0, 10], sketch[:, [0, 3], 1])  # held to the end
    assert cond.scalars["seconds"].tolist() == [5.5, 5.5]
    crest = told[0, 2, 0]
    torch.testing.assert_close(crest, torch.tensor([1.0, -1] * 6)[:11])  # once a second, two latents a second
    assert not told[1, 2 : 2 + WAVES].any()
    torch.testing.assert_close(told[:, 2 + WAVES :, :, 10].transpose(1, 2).flatten(1), likely)  # each row has its own


def test_windows_say_when_they_begin_and_how_fast_they_go():
    x = torch.arange(9.0).reshape(1, 1, 9, 1, 1).expand(6, 1, 9, 2, 2)
    poses = x[:, 0, :, 0, :1].expand(6, 9, POSE)
    taken, where, start, rate = Windows(3, (1, 3), 12.0, 0.5).taken(x, poses, torch.Generator().manual_seed(1))
    torch.testing.assert_close(where[..., 0], taken[:, 0, :, 0, 0])
    seconds = start[:, None] + torch.arange(3) / rate[:, None]
    torch.testing.assert_close(taken[:, 0, :, 0, 0] / 12, seconds)
    assert rate.unique().item() in (12.0, 4.0)


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
    export({n: v for n, v in parts.modules().state_dict().items() if n not in TABLE}, tmp_path / "mini.safetensors")
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
    assert card.settings["tower"]["sketch"]["grid"][0] == parts.codec.channels == card.settings["network"]["concat"]


def test_the_cards_of_sequences_and_sounds_agree_with_what_their_networks_are_told():
    card = cards()["mini-video"]
    parts, network = mini.assemble(card), card.settings["network"]
    assert network["concat"] == 2 * parts.codec.channels + 1  # a sketch, the first member moved on, whether it is shown
    assert parts.tower.loops.turns.shape[2] / LOOP == card.axes[0].rate == card.fields["fps"].default
    card = cards()["mini-audio"]
    parts, network = mini.assemble(card), card.settings["network"]
    assert network["rows"] == parts.codec.rows
    assert network["concat"] == parts.codec.channels + WAVES * parts.codec.rows + parts.codec.bands
    assert len(parts.tower.sketch.keys) == sum(map(len, sounds.instruments().values()))


def test_words_begin_with_one_token_and_know_their_length():
    vocabulary = {"[UNK]": 0, "cat": 1}
    text = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]")).to_str()
    words = mini.Words(text, 4)
    ids, mask = words(["cat", ""])
    assert ids.tolist() == [[mini.BEGIN, 1], [mini.BEGIN, 0]]
    assert mask.tolist() == [[True, True], [True, False]]
