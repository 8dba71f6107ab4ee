"""The public interface: load a model by name, make things, save them, make them again. Plain blocking calls."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields, replace
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any, final

from triptych import foreign as others
from triptych import media as medias
from triptych.errors import Cancelled, FileProblem, InvalidField, NoRecipe, UnknownName
from triptych.media import files
from triptych.providers.recipe import digest, restore
from triptych.service import Job, Price, Service, default
from triptych.service.portal import Once, Portal
from triptych.types import Artifact, Card, Medium, Progress, Request

if TYPE_CHECKING:
    from PIL import Image

    from triptych.media.audio import Sound
    from triptych.media.video import Clip

__all__ = ["Handle", "Made", "Media", "Retold", "again", "foreign", "load", "models", "recipe", "retold"]

PLAIN = {entry.name for entry in fields(Request)} - {"model", "prompt", "inputs", "options"}
FIRST = "mini"  # the family that ships with the package: what is made where no model is named
Source = str | PathLike[str] | bytes | Artifact


@final
@dataclass(frozen=True, slots=True)
class Media:
    """One picture, clip or sound."""

    artifact: Artifact

    @property
    def data(self) -> bytes:
        """A file's bytes, the recipe inside: PNG, lossless Matroska, FLAC, or what a provider sent. `save` writes other
        formats."""
        return self.artifact.data

    @property
    def recipe(self) -> Mapping[str, Any]:
        """How to make exactly this one again."""
        return self.artifact.recipe

    def save(self, path: str | PathLike[str], *, replace: bool = True) -> Path:
        """Writes it whole or not at all, in the format that the extension names, and returns where. What is of that
        format already stays as it is, bit for bit.

        replace=False: takes the next free name where this one is taken. Raises FileProblem.
        """
        place = Path(path).expanduser()
        if self.recipe.get("role") == "trace":
            return files.write(place, medias.exactly(self.artifact, place).data, replace=replace)
        return files.write(place, medias.saved(self.artifact, place).data, replace=replace)

    def picture(self) -> "Image.Image":
        """The picture as a PIL image. Raises FileProblem where it is none."""
        from triptych.media.image import opened

        return opened(self.artifact.data)

    def clip(self) -> "Clip":
        """The frames (T, H, W, 3) of a clip, and how many there are a second. Raises FileProblem where it is none."""
        from triptych.media.video import decode

        return decode(self.artifact.data)

    def sound(self) -> "Sound":
        """The samples (N, C) of a sound, and how many there are a second. Raises FileProblem where it is none."""
        from triptych.media.audio import decode

        return decode(self.artifact.data)

    def _repr_mimebundle_(self, **_: Any) -> dict[str, bytes]:
        """What notebooks show."""
        shown = medias.convert(self.artifact, medias.SHOWN[medias.medium(self.artifact)])
        return {shown.mime: shown.data}


@final
@dataclass(frozen=True, slots=True)
class Made:
    """What came of a request."""

    media: tuple[Media, ...]
    recipe: Mapping[str, Any]
    cost: float | None  # US dollars; None where nobody knows
    seconds: float
    warnings: tuple[str, ...] = ()
    trace: Media | None = None
    job: str = ""
    cost_from: str = ""  # usage: the vendor's answer; list: its price list; electricity: of this machine

    @property
    def seeds(self) -> tuple[int, ...]:
        """One a sample; none of a model that takes no seed."""
        said = [one.recipe["request"].get("seed") for one in self.media]
        places = [one.recipe.get("index", place) for place, one in enumerate(self.media)]
        return tuple(seed + place for seed, place in zip(said, places, strict=True) if seed is not None)

    @classmethod
    def of(cls, job: Job) -> "Made":
        """The result of a job that is over. Raises what it failed with."""
        if job.error is not None:
            raise job.error
        if job.result is None:
            raise Cancelled(f"job {job.id} is {job.state} and its result is no longer in memory.")
        found = [Media(artifact) for artifact in job.result.artifacts]
        traces = [one for one in found if one.recipe.get("role") == "trace"]
        samples = tuple(one for one in found if one.recipe.get("role") != "trace")
        told = job.result
        trace = traces[0] if traces else None
        return cls(samples, told.recipe, told.cost, job.seconds, told.warnings, trace, job.id, told.cost_from)


@final
@dataclass(frozen=True, slots=True, repr=False)
class Handle:
    """A model by its card; whoever runs it, the calls are these."""

    card: Card
    service: Service

    def __repr__(self) -> str:
        return f"Handle({self.card.name!r})"

    def make(self, prompt: str, *, unpriced: bool = False, **given: Any) -> Made:
        """Waits for the result. given: what the card takes (`self.card.takes()`); unpriced: whether to go on where
        nobody knows what it costs. Raises TriptychError."""
        *_, last = self.stream(prompt, unpriced=unpriced, **given)
        assert isinstance(last, Made)
        return last

    def stream(self, prompt: str, *, unpriced: bool = False, **given: Any) -> Iterator[Progress | Made]:
        """Progress as it comes (with previews where `preview_every` seconds are given), then the result.

        Closing the iterator stops the job within one step. Raises TriptychError.
        """
        return _stream(self.service, request(self.card, prompt, **given), unpriced)

    def price(self, prompt: str, **given: Any) -> Price:
        """What it would cost, before anything is sent."""
        return self.service.price(request(self.card, prompt, **given))


@final
@dataclass(frozen=True, slots=True)
class Retold:
    """The request that makes again what is in a file; its recipe, or what of another program's words is lost."""

    request: Request
    recipe: Mapping[str, Any] | None = None
    lost: tuple[str, ...] = ()

    def compared(self, made: Made) -> Made:
        """What was made, with a warning for all that is not as the file says."""
        if self.recipe is not None:
            return compared(made, self.recipe)
        return replace(made, warnings=(*made.warnings, *self.lost))


def load(name: str | None = None, *, service: Service | None = None) -> Handle:
    """The model of this name; without one, the image model that ships with the package. Raises UnknownName."""
    chosen = service or shared()
    return Handle(choose(chosen, name, None), chosen)


def models() -> Mapping[str, Card]:
    """Every model that can be loaded, by name."""
    return shared().cards()


def recipe(source: Source) -> dict[str, Any]:
    """The recipe inside a file. Raises NoRecipe, or FileProblem where it is no picture at all."""
    if isinstance(source, Artifact):
        return medias.read_recipe(source.data, "the file")
    data, where = _bytes(source)
    return medias.read_recipe(data, where)


def foreign(source: Source) -> others.Foreign:
    """What another program wrote into a file. Raises NoRecipe, or FileProblem where it is no picture at all."""
    data, where = (source.data, "the file") if isinstance(source, Artifact) else _bytes(source)
    return others.read(medias.read_texts(data, where), where)


def again(
    source: Source,
    *,
    service: Service | None = None,
    model: str | None = None,
    loras: str | PathLike[str] | None = None,
    unpriced: bool = False,
    **given: Any,
) -> Made:
    """Makes what is in a file once more: on the same machine, the same to the last bit; what another program made, as
    near as it can be, with a warning for all that has no equivalent here.

    model: which, or where it lies, if not as the file says; loras: the folder where those lie that another program
    names, and ControlNets and refiners; unpriced: as of `make`; given: fields that are to differ, and inputs that this
    machine no longer has. Raises TriptychError.
    """
    chosen = service or shared()
    told = retold(source, chosen, model, loras, **given)
    *_, last = _stream(chosen, told.request, unpriced)
    assert isinstance(last, Made)
    return told.compared(last)


def retold(
    source: Source,
    service: Service,
    model: str | None = None,
    loras: str | PathLike[str] | None = None,
    **given: Any,
) -> Retold:
    """What `again` asks for, before it is asked. Raises RequestError."""
    try:
        told = recipe(source)
    except NoRecipe as problem:
        try:
            return _translated(foreign(source), service, model, loras, given)
        except NoRecipe:
            raise problem from None
    if told.get("role") == "grid":
        axes = ", ".join(f"{axis}: {name} {values}" for axis, (name, *values) in told["grid"].items())
        advice = "Make it with: triptych grid --again FILE; in Python: triptych.grids.again"
        raise InvalidField("recipe", f"a grid ({axes})", "one picture, clip or sound", advice)
    if loras is not None:
        raise InvalidField("loras", str(loras), "none for what triptych made", "Its recipe says where they lie.")
    if model is not None:
        told["request"]["model"] = model
    return Retold(request_of(told, service, **given), told)


def compared(made: Made, told: Mapping[str, Any]) -> Made:
    """What was made again, with a warning for all that was not as the recipe says; of a batch, the one it is of."""
    found = []
    for name in ("model", "versions", "device", "dtype", "threads"):
        was, now = told.get(name), made.recipe.get(name)
        if was != now:
            found.append(f"{name} was {was}, is {now}: the result may differ")
    media = (made.media[told["index"]],) if "index" in told else made.media
    return replace(made, media=media, warnings=(*made.warnings, *found))


def request(card: Card, prompt: str, **given: Any) -> Request:
    """A request out of plain arguments: the card says which of them are inputs and which are options."""
    named = {"negative": "negative_prompt", "guidance": "guidance_scale"}
    if isinstance(given.get("guidance"), str):  # not how much, but which way
        del named["guidance"]
    said = {named.get(name, name): value for name, value in given.items() if value is not None}
    inputs = {name for name, entry in card.fields.items() if entry.kind == "artifact"}
    return Request(
        model=card.name,
        prompt=prompt,
        inputs={name: read(value) for name, value in said.items() if name in inputs},
        options={name: value for name, value in said.items() if name not in inputs | PLAIN},
        **{name: value for name, value in said.items() if name in PLAIN},
    )


def request_of(told: Mapping[str, Any], service: Service, **given: Any) -> Request:
    """The request of a recipe, its inputs found again by their hashes.

    Raises FileProblem where one is missing or has changed, and UnknownName where there is no such model here.
    """
    entries: Mapping[str, Mapping[str, str]] = told.get("inputs", {})
    brought = {name: _input(name, entry, service, given.pop(name, None)) for name, entry in entries.items()}
    found = restore(told["request"], brought, "the recipe")
    changed = request(service.card(found.model), found.prompt, **given)
    plain = {name: getattr(changed, name) for name in PLAIN if name in given}
    return replace(found, **plain, options={**found.options, **changed.options})


def follow(service: Service, job_id: str) -> Iterator[Job]:
    """A job as it goes on, to its end; closing the iterator cancels it and waits until it has stopped."""
    over = False
    try:
        for job in portal().iterate(service.watch(job_id)):
            over = job.over
            yield job
    finally:
        if not over:
            portal().call(service.cancel(job_id))
            for _ in portal().iterate(service.watch(job_id)):
                pass


def read(source: Source) -> Artifact:
    """A picture from a path or its bytes. Raises FileProblem."""
    if isinstance(source, Artifact):
        return source
    return medias.artifact(*_bytes(source))


def choose(service: Service, model: str | None, medium: Medium | None) -> Card:
    """The card of the model and the medium that were named, if any. Raises UnknownName, InvalidField, WeightsError."""
    if model is None:
        return default_model(service.cards(), medium or "image")
    card = service.card(model)
    if medium not in (None, card.media):
        there = _names(service.cards(), str(medium)) or "none here"
        raise InvalidField("model", model, f"a model that makes {medium} ({there})")
    return card


def default_model(cards: Mapping[str, Card], medium: Medium) -> Card:
    """The model for a medium where none is named: the one that ships, else the first. Raises UnknownName."""
    fitting = [card for card in cards.values() if card.media == medium]
    if not fitting:
        there = sorted({card.media for card in cards.values()})
        raise UnknownName("medium", medium, [f"{kind} ({_names(cards, kind)})" for kind in there])
    return next((card for card in fitting if card.family == FIRST), fitting[0])


@Once
def portal() -> Portal:
    """The one event loop of this process."""
    return Portal()


@Once
def shared() -> Service:
    """The one service of this process."""
    return default()


def _stream(service: Service, asked: Request, unpriced: bool = False) -> Iterator[Progress | Made]:
    job = portal().call(service.submit(asked, unpriced=unpriced))
    for now in follow(service, job.id):
        if not now.over:
            yield now.progress
        job = now
    made = Made.of(job)
    portal().call(service.release(job.id))
    yield made


def _translated(
    told: others.Foreign,
    service: Service,
    model: str | None,
    loras: str | PathLike[str] | None,
    given: Mapping[str, Any],
) -> Retold:
    name = model or Path(told.model).stem
    if model is None and name not in service.cards():
        asked = f"{told.model!r} (hash {told.model_hash or 'unknown'})" if told.model else "a model that is not named"
        raise FileProblem(f"{told.program} made it with {asked}. Say what is that here: --model NAME_OR_FILE.")
    card = service.card(name)
    said, lost = others.fitted(told, card, None if loras is None else Path(loras).expanduser())
    mine = {key: value for key, value in given.items() if value is not None}
    for key, what in {**told.inputs, **others.followed(told, said)}.items():
        if key in card.fields and key not in mine:
            raise FileProblem(f"{told.program} made it from {what}. Give the {key}: --{_flag(key)} FILE.")
    return Retold(request(card, told.prompt, **{**said, **mine}), lost=lost)


def _input(name: str, entry: Mapping[str, str], service: Service, given: Source | None) -> Artifact:
    if given is None:
        found = service.input(entry)
        if found is not None:
            return found
        told = f"{entry.get('file', 'a file')} with sha256 {entry['sha256'][:12]}"
        raise FileProblem(f"the {name} ({told}) is not kept on this machine. Give the file: --{_flag(name)} FILE.")
    artifact = read(given)
    if digest(artifact) != entry["sha256"]:
        raise FileProblem(f"the {name} has changed: its sha256 should begin with {entry['sha256'][:12]}.")
    return artifact


def _flag(name: str) -> str:
    return name.replace("_", "-")


def _bytes(source: str | PathLike[str] | bytes) -> tuple[bytes, str]:
    if isinstance(source, bytes):
        return source, "the file"
    path = Path(source).expanduser()
    return files.read(path), str(path)


def _names(cards: Mapping[str, Card], medium: str) -> str:
    return ", ".join(card.name for card in cards.values() if card.media == medium)
