"""ElevenLabs: what is sent, what its answers mean, and what becomes of the files."""

import asyncio
import json

import pytest
from loopback import KEY, Loopback, Says
from wares import SPECS, captured, fits, remote, run, sound, submit, watch, wav

from triptych.errors import (
    BadAnswer,
    InDoubt,
    InvalidField,
    KeyRefused,
    OutOfCredit,
    PriceUnknown,
    ProviderError,
    RateLimited,
    Refused,
)
from triptych.media import read_recipe
from triptych.providers.elevenlabs import ElevenLabs
from triptych.types import Request

SPEC = "elevenlabs_music_openapi.derived.json"
MP3 = Says(200, sound(), {"content-type": "audio/mpeg", "song-id": "song1", "request-id": "r1"})
SECTIONS = captured("elevenlabs")["music of sections"]["json"]["composition_plan"]
CHUNKS = captured("elevenlabs")["music of chunks"]["json"]["composition_plan"]


@pytest.fixture
def there():
    server = Loopback()
    yield server
    server.close()


@pytest.fixture
def here(there, tmp_path):
    return remote(ElevenLabs(), there.url, tmp_path / "tickets")


def plan(of, **more):
    return {"composition_plan": json.dumps(of), **more}


CASES = {
    "music of a prompt": Request(
        "eleven-music-v2.5",
        "lofi",
        duration=10,
        options={
            "force_instrumental": "on",
            "finetune_id": "mine",
            "store_for_inpainting": "on",
            "sign_with_c2pa": "on",
            "output_format": "mp3_44100_128",
        },
    ),
    "music of sections": Request(
        "eleven-music-v1", "", options=plan(SECTIONS, plan_seed=7, respect_sections_durations="off")
    ),
    "music of chunks": Request("eleven-music-v2", "", duration=12, options=plan(CHUNKS, plan_seed=7)),
    "sound effect": Request(
        "eleven-sound-effects",
        "rain",
        duration=2.5,
        options={
            "prompt_influence": 0.4,
            "loop": "on",
            "model_id": "eleven_text_to_sound_v2",
            "output_format": "mp3_22050_32",
        },
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_it_is_asked_for_as_their_own_client_asks(there, here, case):
    theirs = captured("elevenlabs")[case]
    there.on("POST", ".*", MP3)
    submit(here, CASES[case])
    one = there.asked("POST")[0]
    own = {name for name in theirs["headers"] if not name.startswith("x-fern")}  # its maker's
    assert (one.method, one.path, one.json) == (theirs["method"], theirs["path"], theirs["json"])
    assert own <= set(one.headers)
    assert one.headers["xi-api-key"] == KEY
    assert "authorization" not in one.headers
    fits(SPEC, one.path.partition("?")[0], one.json)


def test_it_is_asked_for_as_was_seen_elsewhere(there, here):
    path = SPECS / "captured_sdk_requests.json"
    if not path.exists():
        pytest.skip(f"{path} is not here")
    theirs = next(one for one in json.loads(path.read_text()) if one["case"] == "elevenlabs music.compose")
    there.on("POST", ".*", MP3)
    options = {"force_instrumental": "on", "output_format": "mp3_44100_128"}
    submit(here, Request("eleven-music-v2", "lofi", duration=10, options=options))
    one = there.asked("POST")[0]
    assert (one.method, f"/eleven{one.path}", one.json) == (theirs["method"], theirs["path"], theirs["json"])


def test_a_song_comes_with_its_id_and_is_on_disk_before_the_ticket_is_out(there, here, tmp_path):
    there.on("POST", "/v1/music", MP3)
    ticket = submit(here, Request("eleven-music-v2", "lofi", duration=4))
    assert ticket.state == "succeeded"
    there.close()
    fresh = remote(ElevenLabs(), "http://127.0.0.1:9", tmp_path / "tickets")
    *_, result = watch(fresh, ticket)
    made = result.artifacts[0]
    assert (made.mime, result.cost, result.cost_from) == ("audio/mpeg", None, "")
    assert read_recipe(made.data, "made.mp3")["told"] == [{"song_id": "song1", "request_id": "r1"}]
    body = there.asked("POST")[0].json
    assert body == {"prompt": "lofi", "music_length_ms": 4000, "model_id": "music_v2"}


@pytest.mark.parametrize(
    ("model", "format", "answer", "mime"),
    [
        ("eleven-music-v2.5", "opus_48000_64", ("OGG", "OPUS", 1.0, 48000), "audio/ogg"),
        ("eleven-music-v1", "mp3_44100_64", ("MP3", "MPEG_LAYER_III"), "audio/mpeg"),
        ("eleven-sound-effects", "wav_44100", ("WAV", "PCM_16"), "audio/wav"),
    ],
)
def test_what_is_asked_for_can_be_read(there, here, model, format, answer, mime):
    there.on("POST", ".*", Says(200, sound(*answer), {"content-type": "application/octet-stream"}))
    result = run(here, Request(model, "rain", options={"output_format": format}))
    assert there.asked("POST")[0].path.endswith(f"?output_format={format}")
    assert result.artifacts[0].mime == mime
    assert read_recipe(result.artifacts[0].data, "made")["request"]["prompt"] == "rain"


def test_formats_without_a_container_are_not_offered(here):
    for card in here.cards().values():
        assert all(choice.startswith(("auto", "mp3", "opus", "wav")) for choice in card.fields["output_format"].choices)


def test_several_are_several_requests(there, here):
    there.on("POST", "/v1/sound-generation", Says(200, sound(), {"content-type": "audio/mpeg"}))
    result = run(here, Request("eleven-sound-effects", "rain", count=3))
    assert (len(result.artifacts), len(there.asked("POST"))) == (3, 3)
    assert [one.json for one in there.asked("POST")] == [{"text": "rain", "duration_seconds": 5.0}] * 3


def test_of_several_one_may_fail(there, here):
    there.on(
        "POST", "/v1/sound-generation", MP3, Says(402, {"detail": {"status": "quota_exceeded", "message": "none left"}})
    )
    result = run(here, Request("eleven-sound-effects", "rain", count=2))
    assert len(result.artifacts) == 1
    assert "none left" in result.warnings[0]


def detail(status, message="as told", **more):
    return {"detail": {"status": status, "message": message, **more}}


@pytest.mark.parametrize(
    ("answer", "error", "words"),
    [
        (
            Says(400, detail("bad_prompt", "It names an artist.", data={"prompt_suggestion": "A slow waltz"})),
            Refused,
            "names an artist. They suggest: A slow waltz",
        ),
        (
            Says(422, detail("bad_composition_plan", data={"composition_plan_suggestion": {"chunks": []}})),
            Refused,
            r'suggest: {"chunks": \[\]}',
        ),
        (Says(401, detail("quota_exceeded", "12 credits are left")), OutOfCredit, "12 credits"),
        (Says(401, detail("invalid_api_key")), KeyRefused, "as told"),
        (Says(403, {"detail": {"type": "authorization_error", "code": "forbidden"}}), KeyRefused, "forbidden"),
        (Says(422, {"detail": [{"loc": ["body", "text"], "msg": "too long"}]}), ProviderError, "text: too long"),
        (Says(422, {"detail": ["odd"]}), ProviderError, "odd"),
        (Says(400, {"detail": "plain"}), ProviderError, "plain"),
        (Says(400, "<html>no</html>"), ProviderError, "no"),
        (Says(404, []), ProviderError, "404"),
        (Says(429, detail("too_many_concurrent_requests")), RateLimited, "as told"),
        (Says(429, detail("system_busy")), RateLimited, "as told"),
        (Says(500, detail("oops")), InDoubt, "as told"),
        (Says(200, sound(), {"content-type": "audio/mpeg"}, cut=300), InDoubt, "may have been made"),
        (Says(200, detail("bad_prompt", "in a 200")), Refused, "in a 200"),
        (Says(200, detail("oops", "in a 200")), ProviderError, "in a 200"),
        (Says(200, b"", {"content-type": "audio/mpeg"}), ProviderError, "empty"),
        (Says(200, b"<html>" * 9, {"content-type": "text/html"}), BadAnswer, "a medium is due"),
    ],
)
def test_what_is_no_sound_says_why_and_nothing_is_paid_twice(there, here, answer, error, words):
    there.on("POST", "/v1/music", answer)
    with pytest.raises(error, match=words) as caught:
        run(here, Request("eleven-music-v2", "lofi"))
    assert type(caught.value) is error
    assert KEY not in str(caught.value)
    assert len(there.asked("POST")) == (3 if error is RateLimited else 1)


def test_what_was_not_kept_is_not_there():
    assert asyncio.run(ElevenLabs().poll(None, {})).state == "expired"


LONG = {"chunks": [{**CHUNKS["chunks"][0], "duration_ms": 110_000}] * 6}
WRONG = [
    ("eleven-music-v2", {"prompt": ""}, "prompt"),
    ("eleven-music-v2", {"duration": 2}, "duration"),
    ("eleven-music-v2", {"duration": 700}, "duration"),
    ("eleven-music-v2", {"seed": 7}, "seed"),
    ("eleven-music-v2", {"options": {"plan_seed": 7}}, "plan_seed"),
    ("eleven-music-v2", {"options": {"respect_sections_durations": "on"}}, "respect_sections_durations"),
    ("eleven-music-v1", {"options": {"respect_sections_durations": "on"}}, "respect_sections_durations"),
    ("eleven-music-v2", {"options": {"sign_with_c2pa": "on", "output_format": "opus_48000_32"}}, "sign_with_c2pa"),
    ("eleven-music-v2", {"options": {"output_format": "pcm_44100"}}, "output_format"),
    ("eleven-music-v2", {"options": plan(CHUNKS)}, "prompt"),
    ("eleven-music-v2", {"prompt": "", "options": {"composition_plan": "{"}}, "composition_plan"),
    ("eleven-music-v2", {"prompt": "", "options": plan(SECTIONS)}, "composition_plan"),
    ("eleven-music-v1", {"prompt": "", "options": plan(CHUNKS)}, "composition_plan"),
    ("eleven-music-v2", {"prompt": "", "options": plan({"chunks": []})}, "composition_plan"),
    (
        "eleven-music-v2",
        {"prompt": "", "options": plan({"chunks": [{"duration_ms": 100}]})},
        "composition_plan.chunks[0].duration_ms",
    ),
    ("eleven-music-v2", {"prompt": "", "options": plan(LONG)}, "composition_plan"),
    ("eleven-music-v2", {"prompt": "", "duration": 20, "options": plan(CHUNKS)}, "duration"),
    ("eleven-music-v2", {"prompt": "", "options": plan(CHUNKS, force_instrumental="on")}, "force_instrumental"),
    ("eleven-music-v2", {"prompt": "", "count": 2, "options": plan(CHUNKS, plan_seed=1)}, "count"),
    ("eleven-sound-effects", {"prompt": ""}, "prompt"),
    ("eleven-sound-effects", {"duration": 31}, "duration"),
    ("eleven-sound-effects", {"inputs": {"init": wav()}}, "init"),
]


@pytest.mark.parametrize(("model", "fields", "field"), WRONG)
def test_what_does_not_fit_is_refused_before_anything_is_sent(there, here, model, fields, field):
    with pytest.raises(InvalidField) as caught:
        submit(here, Request(model, **{"prompt": "lofi", **fields}))
    assert caught.value.field == field
    assert there.requests == []


def test_an_unknown_price_is_no_price(here):
    for name in here.cards():
        with pytest.raises(PriceUnknown):
            here.price(Request(name, "lofi"))
    with pytest.raises(PriceUnknown):
        here.price(Request("eleven-music-v2", "", options=plan(CHUNKS)))
