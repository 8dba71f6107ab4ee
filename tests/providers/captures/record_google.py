"""What google-genai 3.4.0 sends for the calls that shared/specs/captured_sdk_requests.json lacks, into google.json.

Run by hand, in an environment of its own (the SDK clashes with the project's packages):

    python -m venv /tmp/sdk-google && /tmp/sdk-google/bin/pip install google-genai==3.4.0
    /tmp/sdk-google/bin/python tests/providers/captures/record_google.py
"""

import json
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from importlib.metadata import version
from pathlib import Path
from typing import Any

from google import genai
from google.genai import types
from google.oauth2.credentials import Credentials

PICTURE = b"\x89PNG\r\n\x1a\n"
PLACE = "projects/p/locations/us-central1/publishers/google/models"
SEEN: list[dict[str, Any]] = []


class Recorder(BaseHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        pass

    def answer(self) -> None:
        body = self.rfile.read(int(self.headers.get("content-length") or 0))
        path = self.path.removeprefix("/google").removeprefix("/vertex")
        names = sorted(name.lower() for name in self.headers if name.lower() not in ("host", "accept-encoding"))
        SEEN.append(
            {"method": self.command, "path": path, "headers": names, "json": json.loads(body) if body else None}
        )
        data = json.dumps(answers(self.path)).encode()
        self.send_response(200)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    do_GET = do_POST = answer  # noqa: N815  # as the base class names them


def answers(path: str) -> dict[str, Any]:
    if "interactions" in path:
        return {"id": "int_1", "status": "completed", "steps": [], "created": "", "updated": ""}
    if "predictLongRunning" in path:
        return {"name": f"{PLACE}/veo-3.1-generate-001/operations/op1"}
    return {"candidates": [], "predictions": []}


def record(case: str, call: Any) -> None:
    SEEN.clear()
    call()
    CASES.append({"case": case, **SEEN[0]})


CASES: list[dict[str, Any]] = []


def main() -> None:
    server = HTTPServer(("127.0.0.1", 0), Recorder)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    base = f"http://127.0.0.1:{server.server_port}"
    gemini = genai.Client(api_key="k", http_options=types.HttpOptions(base_url=f"{base}/google"))
    options = types.HttpOptions(base_url=f"{base}/vertex")
    vertex = genai.Client(
        vertexai=True, project="p", location="us-central1", credentials=Credentials("t"), http_options=options
    )
    image = types.Image(image_bytes=PICTURE, mime_type="image/png")
    part = types.Part.from_bytes(data=PICTURE, mime_type="image/png")
    told = {"type": "image", "data": "iVBORw0KGgo=", "mime_type": "image/png"}
    video = {"type": "video", "data": "AAAA", "mime_type": "video/mp4"}

    record(
        "image",
        lambda: gemini.interactions.create(
            model="gemini-3-pro-image",
            input="a cat",
            generation_config={"seed": 7},
            response_format={
                "type": "image",
                "aspect_ratio": "1:1",
                "image_size": "4K",
                "mime_type": "image/jpeg",
                "delivery": "uri",
            },
        ),
    )
    record(
        "video",
        lambda: gemini.interactions.create(
            model="gemini-omni-1.2-flash",
            background=True,
            input=[{"type": "user_input", "content": [{"type": "text", "text": "a cat"}, told, told]}],
            generation_config={"seed": 7, "video_config": {"task": "image_to_video"}},
            response_format={
                "type": "video",
                "aspect_ratio": "16:9",
                "resolution": "1080p",
                "duration": "8s",
                "delivery": "uri",
            },
        ),
    )
    record(
        "video edit",
        lambda: gemini.interactions.create(
            model="gemini-omni-1.1-flash",
            background=True,
            input=[{"type": "user_input", "content": [{"type": "text", "text": "a dog"}, video]}],
            generation_config={"seed": 7, "video_config": {"task": "edit"}},
            response_format={"type": "video", "delivery": "uri"},
        ),
    )
    record(
        "music from a picture",
        lambda: gemini.interactions.create(
            model="lyria-3-pro-preview",
            input=[{"type": "user_input", "content": [{"type": "text", "text": "lofi"}, told]}],
            response_format={"type": "audio", "mime_type": "audio/wav"},
        ),
    )
    record("cancel", lambda: gemini.interactions.cancel(id="int_1"))
    record(
        "content with a picture",
        lambda: gemini.models.generate_content(
            model="gemini-3-pro-image",
            contents=["a cat", part],
            config=types.GenerateContentConfig(
                response_modalities=["IMAGE"],
                seed=3,
                image_config=types.ImageConfig(aspect_ratio="16:9", image_size="2K"),
            ),
        ),
    )
    record(
        "vertex content",
        lambda: vertex.models.generate_content(
            model="gemini-3.1-flash-image",
            contents=["a cat", part],
            config=types.GenerateContentConfig(
                response_modalities=["IMAGE"],
                seed=3,
                image_config=types.ImageConfig(
                    aspect_ratio="16:9", image_size="2K", output_mime_type="image/png", person_generation="ALLOW_ADULT"
                ),
            ),
        ),
    )
    record(
        "imagen",
        lambda: vertex.models.generate_images(
            model="imagen-4.0-generate-001",
            prompt="a cat",
            config=types.GenerateImagesConfig(
                number_of_images=2,
                aspect_ratio="16:9",
                negative_prompt="dogs",
                seed=5,
                add_watermark=False,
                image_size="2K",
                person_generation="ALLOW_ADULT",
                safety_filter_level="BLOCK_ONLY_HIGH",
                enhance_prompt=True,
                include_rai_reason=True,
                output_mime_type="image/jpeg",
            ),
        ),
    )
    record(
        "veo references",
        lambda: vertex.models.generate_videos(
            model="veo-3.1-generate-001",
            prompt="a",
            config=types.GenerateVideosConfig(
                number_of_videos=2,
                duration_seconds=8,
                seed=1,
                generate_audio=False,
                enhance_prompt=True,
                compression_quality="LOSSLESS",
                output_gcs_uri="gs://bucket/clips",
                reference_images=[types.VideoGenerationReferenceImage(image=image, reference_type="ASSET")],
            ),
        ),
    )
    record(
        "veo extend",
        lambda: vertex.models.generate_videos(
            model="veo-3.1-generate-001",
            prompt="a",
            video=types.Video(video_bytes=b"\0\0\0", mime_type="video/mp4"),
            config=types.GenerateVideosConfig(number_of_videos=1, seed=1, generate_audio=True),
        ),
    )
    record(
        "veo resize",
        lambda: vertex.models.generate_videos(
            model="veo-3.1-generate-001",
            prompt="a",
            image=image,
            config=types.GenerateVideosConfig(
                number_of_videos=1, duration_seconds=4, seed=1, generate_audio=True, resize_mode="PAD"
            ),
        ),
    )
    said = {"sdk": f"google-genai {version('google-genai')}", "cases": CASES}
    Path(__file__).with_name("google.json").write_text(json.dumps(said, indent=1) + "\n", encoding="utf-8")


main()
