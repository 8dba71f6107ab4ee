"""What one ticket is on this machine: fetch, load, denoise, keep the latents, decode, encode. Blocks; for a thread."""

import threading
import time
from collections.abc import Generator, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, final

import torch
from torch import Tensor
from torch.nn.functional import interpolate

from triptych import families, media
from triptych.drawing import begin
from triptych.engine.codec import Codec, latent_shape
from triptych.errors import Cancelled, GenerationError, InvalidField
from triptych.media import audio, canvas, image
from triptych.media import trace as traces
from triptych.model import Model, decode, generate, prepared, walked
from triptych.profiles import drawing, profile
from triptych.providers.here import pictures
from triptych.providers.here.device import out_of_memory, pick_device, pick_dtype
from triptych.providers.here.fetching import fetching
from triptych.providers.here.latents import Group, Latents, groups
from triptych.providers.recipe import recipe
from triptych.types import Artifact, Card, Event, Progress, Request, Result

__all__ = ["Bench"]

WAIT = 0.1  # seconds between looks at whether the device is free
FEATHER = 4  # latents, of the seam between what a picture was and what is drawn around it
NEAR = 0.2  # seconds by which a sound may differ from what is made
PREVIEW = 256  # pixels, the longer side of a preview at most
SLOWEST_TRACE = 60.0  # seconds of decoding that a trace may take; beyond, latents are shown projected


@final
class Bench:
    """Holds, for each device, a lock and the model that was used last."""

    def __init__(self, cache: Path | None = None) -> None:
        """cache: where families keep what they would not like to make again, if anywhere."""
        self._cache = cache
        self._locks: dict[str, threading.Lock] = {}
        self._models: dict[str, tuple[tuple[str, str], Model]] = {}  # by device: the model of a name and dtype
        self._guard = threading.Lock()

    def run(self, request: Request, kept: Latents, stop: threading.Event) -> Iterator[Event]:
        """Progress, then the Result of a resolved request; whole groups that are kept are only decoded.

        Raises TriptychError; Cancelled within a step of `stop` being set.
        """
        device = pick_device(request.options["device"])
        yield from fetching(families.card(request.model), request, stop)
        yield Progress(0.0, f"waiting for {device}")
        with self._held(device, stop), out_of_memory(), torch.no_grad():
            yield Progress(0.0, "loading")
            model = self._model(request, device)
            check(stop)
            yield from Run(model, request, kept, stop, device).events()

    @contextmanager
    def _held(self, device: str, stop: threading.Event) -> Iterator[None]:
        with self._guard:
            lock = self._locks.setdefault(device, threading.Lock())
        while not lock.acquire(timeout=WAIT):
            check(stop)
        try:
            yield
        finally:
            lock.release()

    def _model(self, request: Request, device: str) -> Model:
        card = families.card(request.model)
        wanted = (card.name, pick_dtype(request))
        held = self._models.pop(device, None)  # let go of the old one before the new one takes its room
        if held is None or held[0] != wanted:
            del held
            families.fingerprint(card)  # says which file is missing before anything heavy begins
            settings = {**card.settings, families.CACHE: self._cache} if self._cache else card.settings
            held = (wanted, families.load(replace(card, settings=settings), device, wanted[1]))
        self._models[device] = held
        return held[1]


@final
@dataclass(slots=True)
class Run:
    """One request on one loaded model."""

    model: Model
    request: Request
    kept: Latents
    stop: threading.Event
    device: str
    moments: list[traces.Moment] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)

    def events(self) -> Iterator[Event]:
        self.model = prepared(self.model, self.request, self._hints(self.request))
        self.warnings += [*warnings_of(self.model.card, self.request), *self.model.warnings]
        artifacts: list[Artifact] = []
        for group in groups(self.request):
            if not self.kept.has(group):
                yield from self._denoise(group)
            check(self.stop)
            yield self._progress(group, self._expected(), "decoding")
            artifacts += self._decode(group)
            check(self.stop)
        if self._traced:
            yield self._progress(group, self._expected(), "drawing the trace")
            artifacts += self._trace(artifacts[0])
        yield Result(tuple(artifacts), self._recipe(self.request, self._made()), warnings=tuple(self.warnings))

    @property
    def _traced(self) -> bool:
        return bool(self.request.options.get("trace", "none") != "none")

    def _denoise(self, group: Group) -> Iterator[Event]:
        larger = self._larger
        if larger is not None and self.model.init in ("seen", "beside") and group.count > 1:
            allowed = "1 with hires on a model that sees its init"  # which is another one for every sample
            raise InvalidField("batch_size", group.count, allowed)
        given = self._inputs(self.request)
        latents = yield from self._walk(group, self.request, self.model, given, "denoising")
        if larger is not None:
            yield self._progress(group, self._steps(self.request), "enlarging")
            size = larger.width or 0, larger.height or 0
            given = self._inputs(larger) | {"init": image.resized(decode(self.model, latents), size).to(self.device)}
            model = prepared(self.model, larger, self._hints(larger))
            latents = yield from self._walk(group, larger, model, given | {"strength": larger.strength}, "refining")
        self.kept.save(group, latents, self._made())

    def _walk(
        self, group: Group, request: Request, model: Model, given: Mapping[str, Any], stage: str
    ) -> Generator[Event, None, Tensor]:
        """One walk of a group; its latents."""
        first = request is self.request
        before, steps = 0 if first else self._steps(self.request), self._steps(request)
        preview = Preview(model, request.options["preview_every"], rate_of(model.card, request))
        latents: Tensor | None = None
        part = replace(request, seed=group.seed, count=group.count)
        for number, step in enumerate(generate(model, part, **given), 1):
            latents = step.x_t
            if self._traced and first and group.first == 0:
                x_t, x_0 = (still(x[:1], model.codec).cpu() for x in (step.x_t, step.prediction.x_0))
                self.moments.append(traces.Moment(step.t, x_t, x_0))
            if number <= steps:  # the last of all is the end of the path, where nothing is predicted any more
                told = self._progress(group, before + number, stage)
                yield replace(told, preview=preview(step.prediction.x_0))
            check(self.stop)
        if latents is None:
            raise GenerationError("the path has no step; ask for more steps or a larger strength.")
        return latents

    def _decode(self, group: Group) -> list[Artifact]:
        latents, made = self.kept.load(group)
        samples = self._pasted(decode(self.model, latents.to(self.device)))
        here = self._made()
        if made != here:
            self.warnings.append("decoded on another device, dtype or version than it was denoised on")
        found = []
        for number, piece in enumerate(self._pieces(samples)):
            alone = replace(self.request, seed=group.seed, count=group.count)
            index = {"index": number} if group.count > 1 else {}
            if group.count == 1:
                alone = replace(alone, options=_single(alone.options))
            told = self._recipe(alone, made) | index
            found.append(media.keep(piece, told))
        return found

    def _pasted(self, samples: Tensor) -> Tensor:
        """The samples, with the init's own where nothing may change."""
        if not pictures.pastes(self.request):
            return samples
        given = self._inputs(self._larger or self.request)
        return torch.lerp(given["init"], samples.clamp(-1, 1), given["mask"])

    def _pieces(self, samples: Tensor) -> list[Any]:
        rate = rate_of(self.model.card, self.request)
        return list(media.pieces(self.model.card.media, samples, rate, self.request.duration or 0.0))

    def _trace(self, first: Artifact) -> list[Artifact]:
        if not self.moments:
            self.warnings.append("no trace: the path was walked before, only its end was kept")
            return []
        began = time.monotonic()
        self.model.codec.decode(self.moments[-1].x_t.to(self.device))
        slow = (time.monotonic() - began) * 3 * len(self.moments) > SLOWEST_TRACE
        show = traces.projected if slow else lambda x: self._seen(self.model.codec.decode(x.to(self.device)))
        shape = latent_shape(self.model.codec, self.model.card.lengths(self.request))
        asked = drawing(replace(self.request, count=1), self.model.codec.scale_factor)
        noise = profile(self.request.options.get("profile")).noise(asked)
        eps = still(begin(asked, noise, shape), self.model.codec)
        told = {**first.recipe, "role": "trace"}
        kind = self.request.options["trace"]
        return [traces.trace(kind, self.moments, self.model.denoiser.path, eps, show, told)]

    def _seen(self, samples: Tensor) -> Tensor:
        """Samples (B, c, *S) as pictures (B, 3, H, W) in [-1, 1]."""
        pictures = media.look(self.model.card.media, samples, rate_of(self.model.card, self.request))
        return torch.cat([image.tensor(picture) for picture in pictures]) * 2 - 1

    @property
    def _larger(self) -> Request | None:
        return pictures.second(self.model.card, self.request)

    def _inputs(self, request: Request) -> dict[str, Any]:
        """What `generate` takes besides the request: samples of the init in [-1, 1], weights of the mask in [0, 1]."""
        size, card = (request.height or 0, request.width or 0), self.model.card
        given: dict[str, Any] = {}
        if "extend" in request.options:
            given = self._extended(request) | {"strength": request.strength}
        elif "init" in request.inputs:
            data = request.inputs["init"].data
            if card.media == "audio":
                [length] = card.lengths(request)
                init = audio.samples(data, length, rate_of(card, request), "the init")
            else:
                init = image.samples(data, size, "the init")
            given = {"init": init.to(self.device), "strength": request.strength}
        if "mask" in request.inputs:
            given["mask"] = image.weights(request.inputs["mask"].data, size, "the mask").to(self.device)
        return given

    def _extended(self, request: Request) -> dict[str, Tensor]:
        """The init on its larger canvas, and the mask of what is new."""
        picture = image.picture(request.inputs["init"].data, "the init")
        around = pictures.margins(self.model.card, request, picture.size)
        mask = canvas.seam(picture.size, around, FEATHER * max(self.model.codec.scale_factor))
        init = image.tensor(canvas.filled(picture, around)) * 2 - 1
        return {"init": init.to(self.device), "mask": torch.from_numpy(mask)[None, None].to(self.device)}

    def _hints(self, request: Request) -> dict[str, Tensor]:
        """Pictures that networks are shown beside x_t, (1, 3, H, W) in [0, 1], by the names of their inputs."""
        given = {name: value for name, value in request.inputs.items() if name not in ("init", "mask")}
        found = dict[str, Tensor]()
        for name, value in given.items():
            width, height = pictures.fitting(self.model.card, request, name, image.picture(value.data).size)
            found[name] = (image.samples(value.data, (height, width), f"the {name}").to(self.device) + 1) / 2
        return found

    def _steps(self, request: Request) -> int:
        """Steps of one walk."""
        started = "init" in request.inputs or request is not self.request
        share = request.strength if started and request.strength else 1.0
        return walked(request.steps or 1, share, profile(request.options.get("profile")), self.model.walked)

    def _expected(self) -> int:
        """Steps of one group."""
        return sum(self._steps(request) for request in (self.request, self._larger) if request is not None)

    def _progress(self, group: Group, step: int, stage: str) -> Progress:
        before, total = group.first, self.request.count
        steps = self._expected()
        many = f" {before + 1} of {total}" if total > 1 else ""
        return Progress((before + step / steps * group.count) / total, stage + many, step, steps)

    def _made(self) -> dict[str, str]:
        return {
            "device": self.device,
            "dtype": pick_dtype(self.request),
            "torch": str(torch.__version__),
            "threads": str(torch.get_num_threads()),
        }

    def _recipe(self, request: Request, made: Mapping[str, str]) -> dict[str, Any]:
        told = recipe(
            replace(request, options={**request.options, "device": made["device"], "dtype": made["dtype"]}),
            families.fingerprint(self.model.card, self.model.files),
            {"device": made["device"], "dtype": made["dtype"], "threads": int(made["threads"])},
        )
        told["versions"]["torch"] = made["torch"]
        return told


@final
class Preview:
    """Pictures of the predicted x_0: never more often than asked, and never for more than a fifth of the time."""

    def __init__(self, model: Model, every: float, rate: float) -> None:
        """every: seconds; 0 means none at all; rate: of frames or samples a second."""
        self._model, self._every, self._rate, self._next = model, every, rate, 0.0

    def __call__(self, x_0: Tensor) -> Artifact | None:
        began = time.monotonic()
        if not self._every or began < self._next:
            return None
        codec = self._model.codec
        latents = still(x_0[:1], codec)
        if {"height", "width"} <= {axis.name for axis in self._model.card.axes}:
            latents = coarse(latents, 2 * PREVIEW // codec.scale_factor[-1])
        [picture] = media.look(self._model.card.media, codec.decode(latents), self._rate)
        picture.thumbnail((PREVIEW, PREVIEW))
        data = image.encode(picture, "image/png", {})
        self._next = began + max(self._every, 5 * (time.monotonic() - began))
        return Artifact("image/png", data)


def still(latents: Tensor, codec: Codec) -> Tensor:
    """Of a sequence (B, C, T, *S) the member in the middle (B, C, 1, *S), of anything else all of it."""
    if len(codec.scale_factor) < 3:
        return latents
    middle = latents.shape[2] // 2
    return latents[:, :, middle : middle + 1]


def coarse(latents: Tensor, most: int) -> Tensor:
    """Latents (B, C, *S, H, W), averaged so far that neither of H and W is more than `most`."""
    height, width = latents.shape[-2:]
    factor = -(-max(height, width) // most)
    return interpolate(latents, (*latents.shape[2:-2], max(height // factor, 1), max(width // factor, 1)), mode="area")


def warnings_of(card: Card, request: Request) -> list[str]:
    """What a request says to no effect, or what was done to its inputs."""
    found = []
    knob = "true_guidance" if "true_guidance" in card.fields else "guidance_scale"
    if request.negative_prompt and request.options.get(knob, request.guidance_scale) == 1:
        found.append(f"the negative prompt has no effect: {knob} 1 means no guidance")
    found += pictures.rounded(card, request)
    for name, value in request.inputs.items():
        if request.height is None:  # a sound
            found += shortened(name, value, request.duration or 0.0)
            continue
        width, height = image.picture(value.data).size
        if name == "init" and "extend" in request.options:
            found += pictures.widened(card, request, (width, height))
        elif (size := pictures.fitting(card, request, name, (width, height))) != (width, height):
            found.append(f"the {name} of {width} x {height} was scaled and cropped to {size[0]} x {size[1]}")
    return found


def shortened(name: str, sound: Artifact, seconds: float) -> list[str]:
    """What has to be said of a sound that is not as long as what is made."""
    given = audio.decode(sound.data, f"the {name}")
    length = len(given.samples) / given.rate
    if abs(length - seconds) < NEAR:
        return []
    done = "was cut" if length > seconds else "has silence after it"
    return [f"the {name} of {length:.1f} s {done}: {seconds:g} s are made (--duration)"]


def rate_of(card: Card, request: Request) -> float:
    """How many frames or samples there are a second."""
    own = next((axis.rate for axis in card.axes if axis.name == "duration"), 1.0)
    return float(request.options.get("fps") or own)


def check(stop: threading.Event) -> None:
    """Raises Cancelled once somebody has asked to stop."""
    if stop.is_set():
        raise Cancelled("stopped on request.")


def _single(options: Mapping[str, Any]) -> dict[str, Any]:
    return {name: 1 if name == "batch_size" else value for name, value in options.items()}
