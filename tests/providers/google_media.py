"""Small real files, specifications and comparisons for the tests of Google's two interfaces."""

import base64
import functools
import io
import json
from pathlib import Path

import av
import jsonschema
import numpy
import pytest
import soundfile
from PIL import Image

from triptych.types import Artifact

SPECS = Path(__file__).parents[2].parent / "shared" / "specs"
CAPTURES = Path(__file__).parent / "captures" / "google.json"
OWN = {"accept", "connection", "content-length", "user-agent", "x-goog-api-client"}  # which a client sends of itself


@functools.cache
def png(colour="teal"):
    out = io.BytesIO()
    Image.new("RGB", (64, 48), colour).save(out, "PNG")
    return out.getvalue()


@functools.cache
def mp4():
    out = io.BytesIO()
    with av.open(out, "w", format="mp4") as clip:
        stream = clip.add_stream("libx264", rate=8)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for shade in range(8):
            frame = av.VideoFrame.from_ndarray(numpy.full((48, 64, 3), shade * 30, numpy.uint8), format="rgb24")
            clip.mux(stream.encode(frame))
        clip.mux(stream.encode())
    return out.getvalue()


@functools.cache
def sound(kind="MP3"):
    out = io.BytesIO()
    wave = numpy.sin(numpy.arange(22050) * 440 * 2 * numpy.pi / 44100)
    soundfile.write(out, numpy.stack([wave, wave], axis=1).astype("float32"), 44100, format=kind)
    return out.getvalue()


def b64(data):
    return base64.b64encode(data).decode()


def picture(colour="teal"):
    return Artifact("image/png", png(colour))


def clip():
    return Artifact("video/mp4", mp4())


def shared(case):
    """What an SDK sent, of the project's collection."""
    path = SPECS / "captured_sdk_requests.json"
    if not path.is_file():
        pytest.skip(f"{path} is not there")
    return next(one for one in json.loads(path.read_text()) if one["case"] == case)


def captured(case):
    """What google-genai sent: see captures/record_google.py."""
    told = json.loads(CAPTURES.read_text())
    assert told["sdk"] == "google-genai 3.4.0"
    return next(one for one in told["cases"] if one["case"] == case)


def same(asked, wanted, prefix=""):
    """Method, path, header names and the keys of the body, at every depth, are the SDK's."""
    assert (asked.method, asked.path) == (wanted["method"], wanted["path"].removeprefix(prefix))
    names = {name.lower() for name in wanted["headers"]} - OWN
    names -= {"content-type"} if asked.method == "GET" or not asked.body else set()  # the SDK says it of no body, too
    assert names <= set(asked.headers)
    if wanted.get("json") is not None:
        assert keys(asked.json) == keys(wanted["json"])


def keys(told):
    """The shape of a body: its keys, without values; the SDK's mime_type of a part is the interface's mimeType."""
    if isinstance(told, dict):
        return {"mimeType" if name == "mime_type" and "data" in told and "type" not in told else name: keys(value)
                for name, value in told.items()}  # fmt: skip
    if isinstance(told, list):
        return [keys(one) for one in told]
    return None


def valid(body, schema, file="google_interactions_openapi.derived.json"):
    """The body is as its specification says."""
    path = SPECS / file
    if not path.is_file():
        pytest.skip(f"{path} is not there")
    spec = json.loads(path.read_text())
    jsonschema.Draft202012Validator(
        {"$ref": f"#/components/schemas/{schema}", "components": spec["components"]}
    ).validate(body)


@functools.cache
def discovered():
    """Google's discovery document as JSON schemas: its `any` is no type, an object takes what it names."""
    path = SPECS / "google_aiplatform_v1_media_discovery.json"
    if not path.is_file():
        pytest.skip(f"{path} is not there")

    def plain(told):
        if isinstance(told, list):
            return [plain(one) for one in told]
        if not isinstance(told, dict):
            return told
        found = {name: plain(value) for name, value in told.items() if name not in ("id", "format", "enumDescriptions")}
        if told.get("type") == "any":
            found.pop("type")
        if "$ref" in told and isinstance(told["$ref"], str):
            found["$ref"] = f"#/schemas/{told['$ref']}"
        if told.get("type") == "object" and "properties" in told:
            found["additionalProperties"] = False
        return found

    return {name: plain(schema) for name, schema in json.loads(path.read_text())["schemas"].items()}


def discovered_valid(body, schema):
    """The body is as Google's discovery document says."""
    jsonschema.Draft202012Validator({"$ref": f"#/schemas/{schema}", "schemas": discovered()}).validate(body)
