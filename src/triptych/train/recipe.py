"""A recipe run from nothing to weights: data, words, codec, denoiser, export; each part goes on where it stopped."""

import tomllib
from collections.abc import Callable, Iterator, Mapping
from copy import deepcopy
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn.functional import avg_pool1d

from triptych.engine.adapt import adapt
from triptych.engine.codec import Each
from triptych.engine.codecs.folded import Folded
from triptych.engine.codecs.spectral import Spectral
from triptych.engine.pitch import partials
from triptych.errors import UnknownName
from triptych.families import cards, mini
from triptych.model import Model, decode, generate
from triptych.train.bank import Bank, encoded, means
from triptych.train.batches import Batch, heard, moving, stream
from triptych.train.data import films, sounds
from triptych.train.data.clips import RATE
from triptych.train.data.scenes import Scene, Scenes, build
from triptych.train.loop import Settings, TrainProgress, fit
from triptych.train.objective import logit_normal
from triptych.train.sequences import Lengths, Windows, alone, learned, prepare
from triptych.train.tasks import (
    CodecTask,
    CourseTask,
    DecoderTask,
    DenoiserTask,
    SketchTask,
    SpectralTask,
    View,
    save_sheet,
    upright,
    whole,
)
from triptych.train.words import distil, fetch_minilm
from triptych.types import Card, Request

__all__ = ["find", "train"]

RECIPES = Path(__file__).parent / "recipes"
STEPPING = {
    "steps",
    "batch",
    "rate",
    "warm_up",
    "cool_down",
    "decay",
    "average",
    "average_every",
    "clip",
    "show_every",
    "save_every",
}


def find(name: str) -> Path:
    """The recipe file of this path or name; recipes that ship are found from everywhere. Raises UnknownName."""
    given = Path(name)
    shipped = RECIPES / given.with_suffix(".toml").name
    for path in (given, shipped):
        if path.is_file():
            return path
    raise UnknownName("recipe", name, [path.stem for path in RECIPES.glob("*.toml")])


def train(path: Path, folder: Path) -> Iterator[TrainProgress]:
    """Trains what the recipe says in `folder`, which holds the data, the checkpoints, the sheets and the weights."""
    recipe = tomllib.loads(path.read_text())
    card = cards()[recipe["card"]]
    yield from {"image": _images, "video": _films, "audio": _sounds}[card.media](recipe, card, folder)


def _images(recipe: dict[str, Any], card: Card, folder: Path) -> Iterator[TrainProgress]:
    """All of a model of pictures, from nothing."""
    data, size = folder / "data", recipe["data"]["size"]
    build(data)
    scenes = Scenes(data, size)
    parts = mini.assemble(card)
    vocabulary = _words(card, folder, parts)
    batches = partial(stream, scenes.scene, workers=recipe["data"]["workers"])
    yield from _codec(recipe["codec"], parts, batches, folder / "codec")
    _settled(parts)
    things = sorted(scenes.repertoire.trained)
    bank = encoded(parts.codec, batches, things, recipe["bank"]["scenes"], folder / "bank.safetensors")
    _remember(recipe["sketch"], parts, scenes, folder / "sketch")
    yield from _sketch(recipe["sketch"], parts, bank, vocabulary, folder / "sketch")
    model = Model(card, mini.WordEncoder(vocabulary, parts.tower), parts.denoiser, parts.codec)
    show = partial(_show, model, recipe["show"])
    yield from _denoiser(recipe["denoiser"], parts, vocabulary, bank, folder / "denoiser", show)
    tensors = {name: value for name, value in parts.modules().state_dict().items() if name not in TABLE}
    export(tensors, folder / card.settings["weights"])


def _films(recipe: dict[str, Any], card: Card, folder: Path) -> Iterator[TrainProgress]:
    """What a model of moving pictures adds to the model of pictures that it builds on, whose weights must be there."""
    data, settings = folder / "data", recipe["denoiser"]
    films.build(data)
    drawn = films.Films(data, recipe["data"]["size"])
    parts = mini.assemble(card)
    base = mini.tensors_of(cards()[card.settings["base"]])
    parts.modules().load_state_dict({n: v for n, v in base.items() if n != "network.enter.weight"}, strict=False)
    mini.widen(parts.network, base["network.enter.weight"])
    _settled(parts)
    batches = partial(stream, drawn.film, workers=recipe["data"]["workers"], collate=moving)
    things, codec = sorted(drawn.repertoire.trained), Each(parts.codec)
    bank = encoded(codec, batches, things, recipe["bank"]["scenes"], folder / "bank.safetensors", FILMS_AT_ONCE)
    loops = parts.tower.loops
    assert loops is not None, "a tower with loops"
    loops.remember(_loops(codec, drawn, folder / "loops.safetensors"))
    stills = deepcopy(parts.tower).requires_grad_(False)
    prepare(parts, recipe["course"]["rank"], settings["rank"])
    vocabulary, stepping = mini.words(card), _stepping(recipe["course"])
    written = partial(stream, drawn.script, stepping.batch, workers=1, collate=moving)
    course = CourseTask(parts.tower, written, things, drawn.native, vocabulary, rate=RATE, stills=stills)
    yield from fit("course", course, stepping, folder / "course")
    assert parts.tower.course is not None, "a tower with a course"
    with alone(parts.tower, parts.tower.course):
        yield from fit("alone", course, _stepping(recipe["course"] | recipe["alone"]), folder / "alone")
    encoder = mini.SequenceEncoder(mini.WordEncoder(vocabulary, parts.tower), parts.codec, card)
    model = Model(card, encoder, parts.denoiser, codec, init="first")
    show = partial(_show_films, model, recipe["show"])
    view = Windows(settings["window"], tuple(settings["strides"]), RATE, settings["first"], loops)
    yield from _denoiser(settings, parts, vocabulary, bank, folder / "denoiser", show, view, words=False)
    kept = {f"tower.loops.{name}": value for name, value in loops.named_buffers()}
    export(learned(_told_and_drawn(parts)) | kept, folder / card.settings["weights"])


def _sounds(recipe: dict[str, Any], card: Card, folder: Path) -> Iterator[TrainProgress]:
    """All of a model of sounds but its words, which it shares with the model of pictures."""
    data, settings = folder / "data", recipe["denoiser"]
    sounds.build(data)
    drawn = sounds.Sounds(data)
    parts = mini.assemble(card)
    parts.modules().load_state_dict(mini.shared(card), strict=False)
    batches = partial(stream, drawn.sound, workers=recipe["data"]["workers"], collate=heard)
    codec = parts.codec
    assert isinstance(codec, Spectral)
    told = recipe["codec"]
    yield from _heard(SpectralTask, codec, told, batches, folder / "codec")
    _settled(parts)
    things = [name for table in sounds.instruments().values() for name in table]
    bank = encoded(codec, batches, things, recipe["bank"]["clips"], folder / "bank.safetensors", CLIPS_AT_ONCE)
    yield from _heard(DecoderTask, codec, told | recipe["decoder"], batches, folder / "decoder")
    sketch = parts.tower.sketch
    if not (folder / "sketch" / "checkpoint.safetensors").exists():
        sketch.remember(*usual(bank, len(things), sketch.grid[-1]))
    adapt(parts.tower, settings["rank"], ("sketch", "pulse", "pitch"))
    vocabulary = mini.words(card)
    yield from _sketch(recipe["sketch"], parts, bank, vocabulary, folder / "sketch")
    model = Model(
        card,
        mini.LengthEncoder(mini.WordEncoder(vocabulary, parts.tower), codec, card),
        parts.denoiser,
        parts.codec,
    )
    show = partial(_show_sounds, model, recipe["show"])
    assert parts.tower.pitch is not None, "a tower with pitch"
    view = Lengths(
        tuple(settings["lengths"]),
        sounds.RATE / codec.scale_factor[0],
        codec.rows,
        parts.tower.pitch,
        partials(*codec.hertz(sounds.RATE)),
    )
    yield from _denoiser(settings, parts, vocabulary, bank, folder / "denoiser", show, view)
    kept = {f"codec.{name}": value for name, value in parts.codec.state_dict().items()}
    kept |= {f"tower.sketch.{name}": value for name, value in sketch.named_buffers()}
    export(learned(_told_and_drawn(parts)) | kept, folder / card.settings["weights"])


FILMS_AT_ONCE, CLIPS_AT_ONCE = 8, 25  # encoded together


def _told_and_drawn(parts: mini.Parts) -> nn.ModuleDict:
    return nn.ModuleDict({"tower": parts.tower, "network": parts.network})


def _heard(
    kind: type[SpectralTask] | type[DecoderTask],
    codec: Spectral,
    settings: dict[str, Any],
    batches: Callable[..., Iterator[Batch]],
    folder: Path,
) -> Iterator[TrainProgress]:
    stepping, cut = _stepping(settings), settings["parts"]
    task = kind(codec, partial(batches, stepping.batch // cut), parts=cut, noise=settings["noise"])
    yield from fit(folder.name, task, stepping, folder)
    codec.requires_grad_(False)


def _loops(codec: Each, drawn: films.Films, path: Path) -> list[Tensor]:
    """The latents (C, T, *S) of every animated picture on white, encoded once."""
    if not path.exists():
        portraits = stream(drawn.portrait, FILMS_AT_ONCE, 0, workers=2, collate=moving)
        count = -(-len(drawn.native) // FILMS_AT_ONCE)
        with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):
            found = [codec.encode(batch.samples).half() for batch in islice(portraits, count)]
        save_file({"loops": torch.cat(found)[: len(drawn.native)].contiguous()}, path)
    return list(load_file(path)["loops"])


def usual(bank: Bank, things: int, length: int) -> tuple[Tensor, list[Tensor]]:
    """Of a bank of sounds the mean latents (C, length), each the mean of STEP moments; and those of each thing."""
    moments = avg_pool1d(bank.latents.float(), mini.STEP)[..., :length]
    owner, total = bank.subjects[:, 0], torch.zeros(things, *moments.shape[1:])
    total.index_add_(0, owner, moments)
    counts = torch.bincount(owner, minlength=things).clamp(min=1)
    return moments.mean(0), [total / counts[:, None, None]]


def _settled(parts: mini.Parts) -> None:
    parts.codec.eval().requires_grad_(False)
    nn.Module.to(parts.codec, memory_format=torch.channels_last)  # type: ignore[call-overload]  # left out of its stub


def export(tensors: Mapping[str, Tensor], path: Path) -> None:
    """Writes weights as they ship: fp16, without the table of words, which models share."""
    save_file({name: value.half().contiguous() for name, value in tensors.items()}, path)


TABLE = ("tower.table", "tower.scale")


def _words(card: Card, folder: Path, parts: mini.Parts) -> mini.Words:
    """Fills the tower's table, distilling it where `folder` does not have it yet."""
    table = folder / card.settings["words"]
    tokenizer = table.with_suffix(".json")
    if not table.exists():
        weights, text = fetch_minilm(folder / "minilm")
        vectors, scale = distil(weights, text, card.settings["tower"]["features"])
        tokenizer.write_text(text)
        save_file({"tower.table": vectors, "tower.scale": scale.half()}, table)
    tensors = load_file(table)
    parts.tower.table.copy_(tensors["tower.table"])
    parts.tower.scale.copy_(tensors["tower.scale"])
    return mini.Words(tokenizer.read_text(), card.settings["tower"]["length"])


def _codec(
    settings: dict[str, Any], parts: mini.Parts, batches: Callable[..., Iterator[Batch]], folder: Path
) -> Iterator[TrainProgress]:
    stepping = _stepping(settings)
    assert isinstance(parts.codec, Folded)
    task = CodecTask(parts.codec, partial(batches, stepping.batch), crop=settings["crop"], noise=settings["noise"])
    yield from fit("codec", task, stepping, folder)


def _remember(settings: dict[str, Any], parts: mini.Parts, scenes: Scenes, folder: Path) -> None:
    """Fills the memories, unless a checkpoint has them."""
    if not (folder / "checkpoint.safetensors").exists():
        assert isinstance(parts.codec, Folded)
        parts.tower.sketch.remember(*_seen(settings, parts.codec, scenes))


def _sketch(
    settings: dict[str, Any], parts: mini.Parts, bank: Bank, vocabulary: mini.Words, folder: Path
) -> Iterator[TrainProgress]:
    stepping = _stepping(settings)
    task = SketchTask(parts.tower, bank, vocabulary, batch=stepping.batch, drop=settings["drop"])
    yield from fit("sketch", task, stepping, folder)


def _seen(settings: dict[str, Any], codec: Folded, scenes: Scenes) -> tuple[Tensor, list[Tensor]]:
    """The latents of plain white, and the mean latents of everything trained, at each of the settings' lengths."""
    things, white = sorted(scenes.repertoire.trained), torch.ones(1, 3, scenes.size, scenes.size)
    streams = [
        partial(stream, partial(_portrait, scenes, things, tuple(length)), workers=0) for length in settings["lengths"]
    ]
    with torch.inference_mode():
        ground = codec.encode(white)[0]
    return ground, [means(codec, portraits, len(things), settings["copies"]) for portraits in streams]


def _portrait(scenes: Scenes, things: list[str], length: tuple[float, float], seed: int) -> Scene:
    return scenes.portrait(things[seed % len(things)], seed, length)


def _denoiser(
    settings: dict[str, Any],
    parts: mini.Parts,
    vocabulary: mini.Words,
    bank: Bank,
    folder: Path,
    show: Callable[[Path], None],
    view: View = whole,
    words: bool = True,
) -> Iterator[TrainProgress]:
    stepping = _stepping(settings)
    task = DenoiserTask(
        parts.tower,
        parts.denoiser,
        bank,
        vocabulary,
        batch=stepping.batch,
        times=partial(logit_normal, mean=settings["mean"], std=settings["spread"]),
        drop=settings["drop"],
        show=show,
        view=view,
        words=words,
    )
    yield from fit("denoiser", task, stepping, folder)


def _stepping(settings: dict[str, Any]) -> Settings:
    return Settings(**{name: value for name, value in settings.items() if name in STEPPING})


def _show(model: Model, settings: dict[str, Any], path: Path) -> None:
    """A sheet of the recipe's prompts, all with seed 0."""
    samples: list[Tensor] = []
    for prompt in settings["prompts"]:
        request = Request(model.card.name, prompt, seed=0, steps=settings["steps"])
        *_, last = generate(model, model.card.resolve(request))
        samples.append(decode(model, last.x_t))
    save_sheet(torch.cat(samples), path, columns=8)


def _show_sounds(model: Model, settings: dict[str, Any], path: Path) -> None:
    """A sheet of spectrograms of the recipe's prompts, all with seed 0."""
    codec, spectra = model.codec, list[Tensor]()
    assert isinstance(codec, Spectral)
    for prompt in settings["prompts"]:
        request = Request(model.card.name, prompt, seed=0, steps=settings["steps"])
        *_, last = generate(model, model.card.resolve(request))
        spectra.append(codec.restored(last.x_t))
    save_sheet(upright(torch.cat(spectra)), path, columns=4)


FRAMES_SHOWN = 9


def _show_films(model: Model, settings: dict[str, Any], path: Path) -> None:
    """A sheet: frames across, the recipe's prompts down, all with seed 0."""
    rows: list[Tensor] = []
    for prompt in settings["prompts"]:
        request = Request(model.card.name, prompt, seed=0, steps=settings["steps"])
        *_, last = generate(model, model.card.resolve(request))
        frames = decode(model, last.x_t)[0].transpose(0, 1)
        rows.append(frames[torch.linspace(0, len(frames) - 1, FRAMES_SHOWN).round().long()])
    save_sheet(torch.cat(rows), path, columns=FRAMES_SHOWN)
