"""Vertex AI's predict: Imagen's pictures and Lyria 2's music at once, Veo's clips as operations that are asked for.

What a rule forbids is left out of a successful answer, with the reason beside it.
"""

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from triptych.errors import BadAnswer, InvalidField
from triptych.providers.google_words import located, objects, refuses
from triptych.providers.wire.inputs import check_type, named
from triptych.providers.wire.vendor import Answer, Data, Link, decoded, encoded
from triptych.types import Artifact, Card, Request

__all__ = ["BODIES", "begun", "check", "found", "operation"]

STILLS = ("image/png", "image/jpeg")
IMAGEN = {
    "aspect_ratio": "aspectRatio",
    "image_size": "sampleImageSize",
    "person_generation": "personGeneration",
    "safety_setting": "safetySetting",
}
VEO = {
    "aspect_ratio": "aspectRatio",
    "resolution": "resolution",
    "person_generation": "personGeneration",
    "resize_mode": "resizeMode",
    "compression_quality": "compressionQuality",
    "storage_uri": "storageUri",
}
SWITCHES = {"enhance_prompt": "enhancePrompt", "audio": "generateAudio", "add_watermark": "addWatermark"}
CANCELLED = 1  # of google.rpc.Code


def check(card: Card, request: Request) -> None:
    """Raises InvalidField where files and options do not fit together."""
    match card.settings["wire"]:
        case "imagen":
            if request.seed is not None and request.options.get("add_watermark") != "off":
                advice = "Say add_watermark off, or leave the seed out."
                raise InvalidField("seed", request.seed, "a seed for pictures without a watermark", advice)
        case "veo":
            _check_clip(card, request)


def _imagen(card: Card, request: Request) -> dict[str, Any]:
    parameters = {"sampleCount": request.count, **_parameters(request, IMAGEN), "includeRaiReason": True}
    if "output_format" in request.options:
        parameters["outputOptions"] = {"mimeType": f"image/{request.options['output_format']}"}
    return {"instances": [{"prompt": request.prompt}], "parameters": parameters}


def _lyria(card: Card, request: Request) -> dict[str, Any]:
    """One sample: sample_count and a seed exclude each other."""
    instance: dict[str, Any] = {"prompt": request.prompt, "seed": request.seed}
    if request.negative_prompt is not None:
        instance["negative_prompt"] = request.negative_prompt
    return {"instances": [instance], "parameters": {}}


def _veo(card: Card, request: Request) -> dict[str, Any]:
    instance: dict[str, Any] = {"prompt": request.prompt} if request.prompt else {}
    init, last = request.inputs.get("init"), request.inputs.get("last_frame")
    if init is not None:
        instance["video" if _is_clip(init) else "image"] = _told(init)
    if last is not None:
        instance["lastFrame"] = _told(last)
    references = [{"image": _told(one), "referenceType": "ASSET"} for _, one in named(request, "reference")]
    if references:
        instance["referenceImages"] = references
    parameters = {"sampleCount": request.count, **_parameters(request, VEO)}
    if not _is_clip(init):  # one that is gone on with gets as much as Veo always adds
        parameters["durationSeconds"] = int(request.duration or 0)
    return {"instances": [instance], "parameters": parameters}


BODIES: Mapping[str, Callable[[Card, Request], dict[str, Any]]] = {"imagen": _imagen, "lyria": _lyria, "veo": _veo}


def found(told: Mapping[str, Any]) -> Answer:
    """The predictions of an answer, or why there are none."""
    predictions = list(objects(told.get("predictions")))
    assets = tuple(_assets(predictions, ("bytesBase64Encoded", "audioContent"), ""))
    reasons = _texts(prediction.get("raiFilteredReason") for prediction in predictions)
    if assets:
        return Answer("succeeded", assets=assets, told={"filtered": reasons} if reasons else {})
    return Answer("moderated" if reasons else "failed", reason=reasons or "no prediction in the answer")


def begun(told: Mapping[str, Any], model: str) -> Answer:
    """An operation that has just begun. Raises BadAnswer where it has no name."""
    name = told.get("name")
    if not isinstance(name, str) or not name:
        raise BadAnswer("its answer does not name the operation.")
    return Answer("running", {"operation": name, "model": model})


def operation(told: Mapping[str, Any], storage: str, after: float | None = None) -> Answer:
    """How an operation stands. storage: the base URL of Cloud Storage."""
    if not told.get("done"):
        metadata = told.get("metadata")
        percent = metadata.get("progressPercent") if isinstance(metadata, dict) else None
        fraction = min(max(percent / 100, 0.0), 1.0) if isinstance(percent, int | float) else None
        return Answer("running", status="running", fraction=fraction, after=after)
    if isinstance(told.get("error"), dict):
        return _failed(told["error"])
    response = told.get("response")
    plain: Mapping[str, Any] = response if isinstance(response, dict) else {}
    inner = plain.get("generateVideoResponse")
    result: Mapping[str, Any] = inner if isinstance(inner, dict) else plain
    samples = [one.get("video", one) for one in objects(result.get("generatedSamples"))]
    videos = list(objects([*objects(result.get("videos")), *samples]))
    assets = tuple(_assets(videos, ("bytesBase64Encoded", "encodedVideo"), storage))
    listed = result.get("raiMediaFilteredReasons")
    reasons = _texts(listed if isinstance(listed, list) else [])
    if assets:
        return Answer("succeeded", assets=assets, told={"filtered": reasons} if reasons else {})
    if reasons or result.get("raiMediaFilteredCount"):
        return Answer("moderated", reason=reasons or "what it made was filtered")
    return Answer("failed", reason="it is done, and has no clip")


def _failed(error: Mapping[str, Any]) -> Answer:
    words = str(error.get("message", ""))
    if error.get("code") == CANCELLED:
        return Answer("cancelled", reason=words)
    return Answer("moderated" if refuses(words) else "failed", reason=words or f"code {error.get('code')}")


def _check_clip(card: Card, request: Request) -> None:
    given, references = request.inputs, dict(named(request, "reference"))
    for name, artifact in given.items():
        goes_on = name == "init" and card.settings.get("extends", False)
        check_type(name, artifact, (*STILLS, "video/mp4") if goes_on else STILLS)
    init = given.get("init")
    if init is None and not request.prompt.strip():
        raise InvalidField("prompt", request.prompt, "a text, or a first frame in its place,")
    if "last_frame" in given and (init is None or _is_clip(init)):
        raise InvalidField("last_frame", "a picture", "none without a first frame", "Give init, a picture.")
    if references and (init is not None or "last_frame" in given):
        raise InvalidField("reference", "beside a frame", "references or frames, one of the two")
    longest = card.axes[0].maximum
    if references and request.duration != longest:
        raise InvalidField("duration", request.duration, f"{longest:g} seconds with references")
    if references and not request.prompt.strip():
        raise InvalidField("prompt", request.prompt, "a text beside references")
    if _is_clip(init) and request.duration != card.axes[0].default:
        advice = "Leave it out: Veo itself says how much is added."
        raise InvalidField("duration", request.duration, "none beside a clip to go on with", advice)
    if "resize_mode" in request.options and (init is None or _is_clip(init)):
        raise InvalidField("resize_mode", request.options["resize_mode"], "none without a first frame")
    if not request.options.get("storage_uri", "gs://").startswith("gs://"):
        raise InvalidField("storage_uri", request.options["storage_uri"], "a place in Cloud Storage, gs://bucket/path")


def _parameters(request: Request, names: Mapping[str, str]) -> dict[str, Any]:
    """What the request says, under their names; what it leaves to them is left out."""
    options = request.options
    said: dict[str, Any] = {theirs: options[ours] for ours, theirs in names.items() if ours in options}
    said |= {theirs: options[ours] == "on" for ours, theirs in SWITCHES.items() if ours in options}
    if request.seed is not None:
        said["seed"] = request.seed
    if request.negative_prompt is not None:
        said["negativePrompt"] = request.negative_prompt
    return said


def _told(artifact: Artifact) -> dict[str, str]:
    return {"bytesBase64Encoded": encoded(artifact), "mimeType": artifact.mime}


def _assets(told: list[Mapping[str, Any]], names: tuple[str, ...], storage: str) -> Iterator[Data | Link]:
    for one in told:
        inside = next((one[name] for name in names if isinstance(one.get(name), str) and one[name]), None)
        uri = one.get("gcsUri") or one.get("uri")
        if inside is not None:
            yield decoded(inside)
        elif isinstance(uri, str) and storage:
            yield located(uri, storage)


def _texts(told: Any) -> str:
    return "; ".join(dict.fromkeys(one for one in told if isinstance(one, str) and one))


def _is_clip(artifact: Artifact | None) -> bool:
    return artifact is not None and artifact.mime.startswith("video/")
