"""What openai 3.54.0 sends for the calls that shared/specs/captured_sdk_requests.json lacks, into openai.json.

Run by hand, in an environment of its own:

    python -m venv /tmp/sdk-openai && /tmp/sdk-openai/bin/pip install openai==3.54.0
    /tmp/sdk-openai/bin/python tests/providers/captures/record_openai.py
"""

import json
import threading
import warnings
from email import message_from_bytes
from http.server import BaseHTTPRequestHandler, HTTPServer
from importlib.metadata import version
from pathlib import Path
from typing import Any

from openai import OpenAI

PNG = b"\x89PNG\r\n\x1a\n"
CLIP = {"id": "video_1", "object": "video", "status": "queued", "progress": 0, "model": "sora-2", "created_at": 1}
SEEN: list[dict[str, Any]] = []
CASES: list[dict[str, Any]] = []


class Recorder(BaseHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        pass

    def answer(self) -> None:
        body = self.rfile.read(int(self.headers.get("content-length") or 0))
        names = sorted(name.lower() for name in self.headers if name.lower() not in ("host", "accept-encoding"))
        SEEN.append({"method": self.command, "path": self.path, "headers": names, **said(self.headers, body)})
        data = json.dumps(CLIP if "videos" in self.path else {"created": 1, "data": []}).encode()
        self.send_response(200)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    do_GET = do_POST = answer  # noqa: N815  # as the base class names them


def said(headers: Any, body: bytes) -> dict[str, Any]:
    kind = headers.get("content-type", "")
    if not kind.startswith("multipart/"):
        return {"json": json.loads(body) if body else None}
    parts = []
    for part in message_from_bytes(f"content-type: {kind}\r\n\r\n".encode() + body).get_payload():
        name, file = part.get_param("name", header="content-disposition"), part.get_filename()
        text = None if file else part.get_payload(decode=True).decode()
        parts.append({"name": name, "type": part.get_content_type() if file else None, "text": text})
    return {"parts": parts}


def record(case: str, call: Any) -> None:
    SEEN.clear()
    call()
    CASES.append({"case": case, **SEEN[0]})


def main() -> None:
    warnings.simplefilter("ignore")  # what is retired is marked so
    server = HTTPServer(("127.0.0.1", 0), Recorder)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    base = f"http://127.0.0.1:{server.server_port}/v1"
    client = OpenAI(base_url=base, api_key="k", organization="org-1", project="proj-1")
    png = [(f"{name}.png", PNG, "image/png") for name in "abm"]

    record(
        "generate",
        lambda: client.images.generate(
            model="gpt-image-2.6-flare",
            prompt="a fox",
            n=3,
            size="1536x1024",
            quality="xhigh",
            background="transparent",
            output_format="webp",
            output_compression=80,
            moderation="low",
            complexity="high",
            safety_identifier="u1",
        ),
    )
    record(
        "generate streamed",
        lambda: client.images.generate(
            model="gpt-image-2.5-flare", prompt="a fox", n=1, size="1024x1024", stream=True, partial_images=2
        ),
    )
    record(
        "dall-e-3",
        lambda: client.images.generate(
            model="dall-e-3",
            prompt="a fox",
            n=1,
            size="1792x1024",
            quality="hd",
            style="natural",
            response_format="b64_json",
        ),
    )
    record(
        "dall-e-2 edit",
        lambda: client.images.edit(
            model="dall-e-2",
            prompt="a fox",
            n=2,
            size="512x512",
            response_format="b64_json",
            image=png[0],
            mask=png[2],
        ),
    )
    record(
        "edit with mask",
        lambda: client.images.edit(
            model="gpt-image-2.6-sunburst",
            prompt="a fox",
            n=1,
            size="auto",
            quality="high",
            image=[png[0], png[1]],
            mask=png[2],
        ),
    )
    record(
        "edit with markup, streamed",
        lambda: client.images.edit(
            model="gpt-image-2.5-flare",
            prompt="a fox",
            n=1,
            size="1024x1024",
            stream=True,
            partial_images=3,
            image=[png[0]],
            markup=png[2],
        ),
    )
    record(
        "video",
        lambda: client.videos.create(model="sora-2", prompt="a fox", seconds="8", size="1280x720"),
    )
    record("video remix", lambda: client.videos.remix("video_1", prompt="a wolf"))
    record("video poll", lambda: client.videos.retrieve("video_1"))
    record("video content", lambda: client.videos.download_content("video_1"))

    told = {"sdk": f"openai {version('openai')}", "cases": CASES}
    Path(__file__).with_name("openai.json").write_text(json.dumps(told, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
