"""`triptych models`: the list, its choices, one model in full, and asking what is new."""

import json
import subprocess
import sys
import threading
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from triptych import families
from triptych.catalogue import shipped, use
from triptych.providers.wire.http import Pace
from triptych.service import refresh


@pytest.fixture(autouse=True)
def nobody(monkeypatch):
    """No keys, and nothing found before or after."""
    for name in ("OPENAI_API_KEY", "GOOGLE_API_KEY", "GEMINI_API_KEY", "OPENAI_BASE_URL", "GOOGLE_GEMINI_BASE_URL"):
        monkeypatch.delenv(name, raising=False)
    yield
    use(None)


def names(ask, *choice):
    code, told = ask("models", *choice)
    assert code == 0
    return {model["name"]: model for model in told["models"]}


def test_the_list_has_every_card_and_every_entry(ask, call):
    listed = names(ask)
    assert set(families.cards()) <= set(listed)
    assert set(shipped()) <= set(listed)
    _, out, _ = call("models")
    lines = out.splitlines()
    assert lines[0].split() == ["name", "makes", "where", "state", "price", "licence", "what"]
    assert all(any(line.startswith(name) for line in lines) for name in listed)
    line = next(line for line in lines if line.startswith("gemini-3-pro-image"))
    assert line.split()[1:4] == ["image", "google", "active"]
    assert "$0.134" in line
    assert "gone 2026-05-12" in next(line for line in lines if line.startswith("dall-e-3"))
    assert "no public API" in next(line for line in lines if line.startswith("midjourney"))
    assert "not here yet" in next(line for line in lines if line.startswith("musicgen"))
    assert "not known" in next(line for line in lines if line.startswith("eleven-music-v2.5"))


def test_choices(ask):
    video = names(ask, "--kind", "video")
    assert {"mini-video", "gemini-omni-1.2-flash", "sora-2", "wan2.1"} <= set(video)
    assert all(model["medium"] == "video" for model in video.values())
    local = names(ask, "--local")
    assert {"toy", "mini-image", "sdxl"} <= set(local)
    assert {model["provider"] for model in local.values()} == {"local"}
    api = names(ask, "--api")
    assert not set(api) & set(local)
    assert "midjourney" not in api
    assert "dall-e-3" in api
    alive = names(ask, "--alive")
    assert {"gpt-image-2.6-flare", "veo-3.1-generate-001", "sd15", "toy"} <= set(alive)
    assert not {"dall-e-3", "sora-2", "suno", "wan2.1", "flux-pro"} & set(alive)
    music = names(ask, "--kind", "audio", "--api", "--alive")
    assert {"lyria-3.5", "eleven-music-v2.5", "stable-audio-2.5"} <= set(music)
    assert "mini-audio" not in music
    both = names(ask, "--local", "--api")
    assert set(both) == set(local) | set(api)


def test_json_says_all_that_is_known(ask):
    told = names(ask)
    assert told["toy"]["card"] is True
    assert told["toy"]["fields"]["steps"]["default"] == 8
    assert told["toy"]["provider"] == "local"
    dead = told["dall-e-3"]
    assert dead["alive"] is False
    assert dead["lifecycle"]["ends"] == "2026-05-12"
    assert dead["lifecycle"]["state"] == "shut_down"
    assert dead["lifecycle"]["closest"][0] == "gpt-image-2.6-flare"
    gone = told["suno"]
    assert (gone["card"], gone["fields"], gone["axes"]) == (False, {}, {})
    lyria = told["lyria-3.5"]
    assert lyria["price"] == "$0.08 a song"
    assert lyria["prices"][0]["dollars"] == 0.08
    assert lyria["prices"][0]["checked"] == "2026-11-23"


def flat(text):
    return " ".join(text.split())


@pytest.mark.parametrize(
    ("typed", "parts"),
    [
        (
            "nano banana pro",
            [
                "gemini-3-pro-image: image",
                "by google",
                "active, since 2026-05-28",
                "$0.134 per image",
                "checked 2026-11-23",
            ],
        ),
        ("DALL·E 3", ["dall-e-3: image", "gone 2026-05-12", "instead gpt-image-2.6-flare ($"]),
        ("midjourney", ["no public API", "Wrappers break its terms", "instead flux-2-max"]),
        ("eleven music", ["no source for its price was found", "up to 600 s"]),
        ("gpt-image-1.5", ["ends 2026-12-01", "Closest that stays: gpt-image-2.6-flare"]),
        (
            "sd3",
            ["sd3-medium: image", "on this machine", "T5 XXL", "2 billion numbers", "guidance_scale", "electricity"],
        ),
        ("mini-image", ["8.2 million numbers", "guidance_scale", "in steps of 32"]),
        ("wan", ["wan2.1: video", "It does not run here yet", "UMT5-XXL"]),
    ],
)
def test_one_in_full(call, monkeypatch, typed, parts):
    monkeypatch.setenv("COLUMNS", "160")
    code, out, _ = call("models", typed)
    assert code == 0
    assert not [part for part in parts if part not in flat(out)]


def test_old_facts_say_so(call, monkeypatch):
    class Later(refresh.date):
        @classmethod
        def today(cls):
            return cls(2027, 3, 1)

    monkeypatch.setattr("triptych.cli.models.date", Later)
    _, out, _ = call("models")
    assert "last checked more than 60 days ago: triptych models --refresh" in out
    _, out, _ = call("models", "lyria 3.5")
    assert "98 days ago" in flat(out)
    _, out, _ = call("models", "--local")
    assert "days ago" not in out


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--kind", "text"], "one of image, video, audio"),
        (["sdxl", "--local"], "leave the name out"),
        (["sdxl", "--refresh"], "leave the name out"),
        (["nosuch"], "Those are the nearest"),
        (["suno", "--memory", "8GB"], "not known"),
        (["--memory", "8GB"], "name it"),
    ],
)
def test_wrong_usage(call, arguments, told):
    code, out, err = call("models", *arguments)
    assert (code, out) == (2, "")
    assert told in err


def test_a_narrow_screen_leaves_columns_out(call, monkeypatch):
    monkeypatch.setattr("sys.stdout.isatty", lambda: True, raising=False)
    for columns in (60, 80, 100, 140, 200):
        monkeypatch.setenv("COLUMNS", str(columns))
        _, out, _ = call("models")
        rows = [line for line in out.splitlines() if "  " in line]
        assert max(map(len, rows)) <= max(columns, 80)
        assert "state" in rows[0]


@pytest.fixture
def price_map(monkeypatch):
    """A price map on this machine."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            body = json.dumps({"gemini/lyria-3.5": {"output_cost_per_image": 0.09}}).encode()
            self.send_response(200)
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    monkeypatch.setenv("TRIPTYCH_PRICES_URL", f"http://127.0.0.1:{server.server_port}/map.json")
    yield
    server.shutdown()
    thread.join()
    server.server_close()


def test_refresh_says_what_is_new_and_keeps_it(call, ask, price_map, home):
    code, out, err = call("models", "--refresh")
    assert (code, err) == (0, "")
    assert "lyria-3.5: song $0.09 ($0.08 before)" in out
    assert "prices: 1 of our models" in out
    assert "openai: not asked, no key: set OPENAI_API_KEY" in out
    assert (home / "data" / "catalogue.json").is_file()
    assert names(ask)["lyria-3.5"]["price"] == "$0.09 a song"
    code, told = ask("models", "--refresh")
    assert (code, told["changes"], told["asked"], told["failed"]) == (0, [], {"prices": 1}, {})
    assert set(told["left"]) == {"openai", "google"}


def test_refresh_without_a_network_fails_and_says_so(call, ask, home, monkeypatch):
    monkeypatch.setenv("TRIPTYCH_PRICES_URL", "http://127.0.0.1:1/map.json")
    monkeypatch.setattr(refresh, "refreshed", partial(refresh.refreshed, pace=Pace(tries=1)))
    code, out, err = call("models", "--refresh")
    assert code == 1
    assert "prices: not refreshed: no connection to 127.0.0.1" in err
    assert "openai: not asked" in out
    assert not (home / "data" / "catalogue.json").exists()
    code, told = ask("models", "--refresh")
    assert (code, set(told["failed"])) == (1, {"prices"})


def told_by(code):
    """What a fresh interpreter writes to its standard error."""
    command = [sys.executable, "-c", f"import sys, time\nfrom triptych.cli import run\n{code}"]
    return subprocess.run(command, capture_output=True, text=True, check=True).stderr


def test_listing_loads_nothing_heavy(home):
    heavy = ["torch", "httpx", "numpy", "PIL", "av", "rich", "huggingface_hub"]
    found = f"' '.join(name for name in {heavy} if name in sys.modules)"
    assert told_by(f"run(['models'])\nsys.stderr.write({found})") == ""


def test_listing_takes_less_than_a_third_of_a_second(home):
    """Of processor time, since others may be at work here, beyond what any command takes before it begins."""
    code = "began = time.process_time()\nrun(['models'])\nsys.stderr.write(str(time.process_time() - began))"
    assert min(float(told_by(code)) for _ in range(5)) < 0.3
