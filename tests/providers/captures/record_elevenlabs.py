"""What elevenlabs 2.78.0 sends for the calls that shared/specs/captured_sdk_requests.json lacks, into elevenlabs.json.

Run by hand, in an environment of its own:

    python -m venv /tmp/sdk-elevenlabs && /tmp/sdk-elevenlabs/bin/pip install elevenlabs==2.78.0
    /tmp/sdk-elevenlabs/bin/python tests/providers/captures/record_elevenlabs.py
"""

import json
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from importlib.metadata import version
from pathlib import Path
from typing import Any

from elevenlabs import CompositionPlan, ElevenLabs, GenerationChunkInput, MusicPrompt, SongSection

SEEN: list[dict[str, Any]] = []
CASES: list[dict[str, Any]] = []


class Recorder(BaseHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        pass

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("content-length") or 0))
        names = sorted(name.lower() for name in self.headers if name.lower() not in ("host", "accept-encoding"))
        SEEN.append({"method": self.command, "path": self.path, "headers": names, "json": json.loads(body)})
        self.send_response(200)
        self.send_header("content-type", "audio/mpeg")
        self.send_header("content-length", "3")
        self.end_headers()
        self.wfile.write(b"ID3")


def record(case: str, call: Any) -> None:
    SEEN.clear()
    b"".join(call())
    CASES.append({"case": case, **SEEN[0]})


server = HTTPServer(("127.0.0.1", 0), Recorder)
threading.Thread(target=server.serve_forever, daemon=True).start()
client = ElevenLabs(api_key="k", base_url=f"http://127.0.0.1:{server.server_port}")
sections = MusicPrompt(
    positive_global_styles=["folk"],
    negative_global_styles=["metal"],
    sections=[
        SongSection(
            section_name="Verse",
            positive_local_styles=["guitar"],
            negative_local_styles=[],
            duration_ms=10000,
            lines=["la", "la la"],
        )
    ],
)
chunks = CompositionPlan(
    chunks=[GenerationChunkInput(text="[Verse]\nla", duration_ms=12000, positive_styles=["folk"], negative_styles=[])]
)
record(
    "music of a prompt",
    lambda: client.music.compose(
        prompt="lofi",
        music_length_ms=10000,
        model_id="music_v2_5",
        force_instrumental=True,
        finetune_id="mine",
        store_for_inpainting=True,
        sign_with_c_2_pa=True,
        output_format="mp3_44100_128",
    ),
)
record(
    "music of sections",
    lambda: client.music.compose(
        composition_plan=sections, model_id="music_v1", seed=7, respect_sections_durations=False
    ),
)
record("music of chunks", lambda: client.music.compose(composition_plan=chunks, model_id="music_v2", seed=7))
record(
    "sound effect",
    lambda: client.text_to_sound_effects.convert(
        text="rain",
        duration_seconds=2.5,
        prompt_influence=0.4,
        loop=True,
        model_id="eleven_text_to_sound_v2",
        output_format="mp3_22050_32",
    ),
)
server.shutdown()
told = {"sdk": f"elevenlabs {version('elevenlabs')}", "cases": CASES}
Path(__file__).with_name("elevenlabs.json").write_text(json.dumps(told, indent=1) + "\n")
