"""A recipe run from nothing to weights: data, words, codec, denoiser, export; each part goes on where it stopped."""

import json
import tomllib
from collections.abc import Callable, Iterator
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from triptych.engine.codecs.folded import Folded
from triptych.errors import UnknownName
from triptych.families import cards, mini
from triptych.model import Model, decode, generate
from triptych.train.data.scenes import Scenes, build
from triptych.train.loop import Settings, TrainProgress, fit
from triptych.train.objective import logit_normal
from triptych.train.pictures import Batch, stream
from triptych.train.tasks import CodecTask, DenoiserTask, SketchTask, save_sheet
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
    data, size = folder / "data", recipe["data"]["size"]
    build(data)
    scenes = Scenes(data, size)
    parts = mini.assemble(card)
    vocabulary = _words(card, folder, parts)
    batches = partial(stream, scenes.scene, workers=recipe["data"]["workers"])
    yield from _codec(recipe["codec"], parts, batches, folder / "codec")
    parts.codec.eval().requires_grad_(False)
    yield from _sketch(recipe["sketch"], parts, batches, vocabulary, folder / "sketch")
    yield from _denoiser(recipe, card, parts, vocabulary, batches, folder / "denoiser")
    export(parts, folder / card.settings["weights"])


def export(parts: mini.Parts, path: Path) -> None:
    """Writes the weights as they ship: fp16, without the table of words, which models share."""
    tensors = {name: value for name, value in parts.modules().state_dict().items() if name not in TABLE}
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
    task = CodecTask(parts.codec, partial(batches, stepping.batch), crop=settings["crop"], noise=settings["noise"])
    yield from fit("codec", task, stepping, folder)


def _sketch(
    settings: dict[str, Any],
    parts: mini.Parts,
    batches: Callable[..., Iterator[Batch]],
    vocabulary: mini.Words,
    folder: Path,
) -> Iterator[TrainProgress]:
    stepping = _stepping(settings)
    latents, captions = _bank(parts.codec, batches, settings["bank"], folder / "bank.safetensors")
    task = SketchTask(parts.tower, latents, captions, vocabulary, batch=stepping.batch, drop=settings["drop"])
    yield from fit("sketch", task, stepping, folder)


ENCODED_AT_ONCE = 250


@torch.inference_mode()
def _bank(codec: Folded, batches: Callable[..., Iterator[Batch]], size: int, path: Path) -> tuple[Tensor, list[str]]:
    """`size` encoded scenes (N, C, *S) fp16 and their captions, made once and kept on disk."""
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        parts, captions = [], []
        for batch in islice(batches(ENCODED_AT_ONCE, 0), size // ENCODED_AT_ONCE):
            with torch.autocast("cpu", torch.bfloat16):
                parts.append(codec.encode(batch.samples.contiguous(memory_format=torch.channels_last)).half())
            captions.extend(batch.captions)
        save_file({"latents": torch.cat(parts)}, path, metadata={"captions": json.dumps(captions)})
    with safe_open(path, framework="pt") as file:
        return file.get_tensor("latents"), json.loads(file.metadata()["captions"])


def _denoiser(
    recipe: dict[str, Any],
    card: Card,
    parts: mini.Parts,
    vocabulary: mini.Words,
    batches: Callable[..., Iterator[Batch]],
    folder: Path,
) -> Iterator[TrainProgress]:
    settings = recipe["denoiser"]
    stepping = _stepping(settings)
    model = Model(card, mini.WordEncoder(vocabulary, parts.tower), parts.denoiser, parts.codec)
    task = DenoiserTask(
        parts.tower,
        parts.denoiser,
        parts.codec,
        partial(batches, stepping.batch),
        vocabulary,
        times=partial(logit_normal, mean=settings["mean"], std=settings["spread"]),
        drop=settings["drop"],
        show=partial(_show, model, recipe["show"]),
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
