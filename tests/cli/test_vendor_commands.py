"""Commands on vendors' models: what is said before, what is sent, what is saved and counted."""

import base64
import io
import json
from pathlib import Path

import pytest
from loopback import KEY, Loopback, Says
from PIL import Image

import triptych


def png(colour="teal"):
    out = io.BytesIO()
    Image.new("RGB", (64, 32), colour).save(out, "PNG")
    return out.getvalue()


def picture(**rest):
    return Says(body={"created": 1, "data": [{"b64_json": base64.b64encode(png()).decode()}], **rest})


@pytest.fixture
def vendor(home, monkeypatch):
    """OpenAI on this machine, its price list agreed to."""
    server = Loopback()
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    monkeypatch.setenv("OPENAI_BASE_URL", server.url)
    home.mkdir(exist_ok=True)
    (home / "config.toml").write_text('project = "shoes"\n[openai]\nprices = "list"\n[budget]\nday = 0.5\n')
    yield server
    server.close()


USAGE = {
    "input_tokens": 10,
    "input_tokens_details": {"text_tokens": 10, "image_tokens": 0},
    "output_tokens": 1000,
    "total_tokens": 1010,
}


def test_a_picture_is_made_saved_counted_and_told(vendor, call, ask):
    vendor.on("POST", "/images/generations", picture(usage=USAGE))
    code, told = ask("make", "a red fox", "-m", "gpt-image-2.6-flare", "--option", "quality=low", "-o", "fox.png")
    assert code == 0
    assert told["cost_from"] == "usage"
    assert told["cost"] == pytest.approx(10 * 5e-6 + 1000 * 30e-6)
    with Image.open("fox.png") as fox:
        assert fox.size == (64, 32)
    recipe = triptych.recipe("fox.png")
    assert recipe["model"]["provider"] == "openai"
    assert recipe["request"]["prompt"] == "a red fox"
    [line] = ask("costs")[1]["calls"]
    assert (line["state"], line["project"], line["source"]) == ("settled", "shoes", "usage")
    assert [path.endswith("fox.png") for path in line["files"]] == [True]
    assert KEY not in json.dumps([told, line])


def test_a_dry_run_sends_nothing_and_says_the_price(vendor, call, ask):
    code, told = ask("make", "a fox", "-m", "gpt-image-2.6-flare", "--option", "quality=low", "--count", 2, "--dry-run")
    assert (code, told["model"], told["count"]) == (0, "gpt-image-2.6-flare", 2)
    assert 0 < told["price"]["least"] <= told["price"]["most"] < 0.2
    code, out, _ = call("make", "a fox", "--dry-run")
    assert (code, out) == (0, "mini-image: free, on this machine\n")
    code, told = ask("grid", "a fox", "-m", "gpt-image-2.6-flare", "--x", "quality=low,high", "--dry-run")
    assert told["count"] == 2
    assert vendor.requests == []


def test_what_is_gone_is_refused_and_followed(home, call, monkeypatch):
    code, _, err = call("make", "a fox", "-m", "dall-e-3")
    assert code == 2
    assert "shut down on 2026-05-12" in err
    assert "gpt-image-2.6" in err
    assert "--successor" in err
    code, out, err = call("make", "a fox", "-m", "dall-e-3", "--successor", "--option", "quality=low", "--dry-run")
    assert code == 0
    assert "taking gpt-image-2.6" in err
    assert out.startswith("gpt-image-2.6")


def test_a_gateway_still_serves_what_is_gone(vendor, ask):
    vendor.on("POST", "/images/generations", picture())
    code, told = ask("make", "a fox", "-m", "dall-e-3", "-o", "old.png")
    assert code == 0
    assert told["cost_from"] == "list"
    assert vendor.requests[0].json["model"] == "dall-e-3"


def test_an_old_recipe_is_made_again_by_a_successor(vendor, ask, call):
    vendor.on("POST", "/images/generations", picture(usage=USAGE))
    assert ask("make", "a fox", "-m", "dall-e-3", "-o", "old.png")[0] == 0
    code, _, _ = call("again", "old.png", "-o", "again.png")
    assert (code, vendor.requests[-1].json["model"]) == (0, "dall-e-3")


def test_a_budget_refuses_before_anything_is_sent(vendor, call, ask):
    said = ("make", "a fox", "-m", "gpt-image-2.6-flare", "--option", "quality=high", "--count", 10)
    code, _, err = call(*said)
    assert code == 2
    assert "budget" in err
    assert vendor.requests == []
    assert ask("costs")[1]["calls"] == []
    code, told = ask(*said, "--dry-run")
    assert (code, "budget" in told["refused"]) == (0, True)
    assert ask(*said[:5], "quality=low", "--dry-run")[1]["refused"] == ""


def test_an_unknown_price_is_refused_unless_agreed_to(vendor, home, call):
    (home / "config.toml").write_text("")
    vendor.on("POST", "/images/generations", picture())
    said = ("make", "a fox", "-m", "gpt-image-2.6-flare", "-o", "fox.png")
    code, _, err = call(*said)
    assert code == 2
    assert "--unpriced" in err
    assert vendor.requests == []
    assert call(*said, "--unpriced")[0] == 0


def test_what_nobody_knows_the_cost_of_is_told_with_the_way_to_clear_it(vendor, home, call, ask):
    vendor.on("POST", "/images/generations", Says(500, {"error": {"message": "oops"}}), picture())
    said = ("make", "a fox", "-m", "gpt-image-2.6-flare", "--option", "quality=low", "-o", "fox.png")
    code, _, err = call(*said)
    (doubtful,) = ask("costs")[1]["calls"]
    assert (code, doubtful["state"]) == (1, "in_doubt")
    assert f"Once you know whether it was charged: triptych costs --clear {doubtful['job']} --cost DOLLARS" in err
    (home / "config.toml").write_text("")
    code, _, err = call(*said, "--unpriced")
    assert code == 0
    assert f"cost not known. Once you know: triptych costs --clear {ask('costs')[1]['calls'][1]['job']} --cost" in err
    assert triptych.again("fox.png", unpriced=True).media


@pytest.mark.parametrize(("model", "told"), [("gpt-image-2.6-flare", "--option partial_images=1"), ("flux-2-pro", "")])
def test_previews_that_a_model_has_not_are_refused_by_the_name_of_the_flag(vendor, call, model, told):
    code, _, err = call("make", "a fox", "-m", model, "--preview")
    assert code == 2
    assert f"--preview: {model} tells nothing" in err
    assert told in err
    assert vendor.requests == []


def test_files_are_named_as_they_were_given(vendor, call):
    Path("mask.png").write_bytes(png())
    code, _, err = call("make", "a fox", "-m", "flux-2-pro", "--mask", "mask.png")
    assert code == 2
    assert "mask: 'mask.png' given" in err


def test_refusals_and_wrong_keys_have_their_words_and_codes(vendor, call, ask):
    blocked = {"error": {"message": "no foxes", "type": "invalid_request_error", "code": "moderation_blocked"}}
    wrong = {"error": {"message": f"Incorrect API key provided: {KEY}", "code": "invalid_api_key"}}
    vendor.on("POST", "/images/generations", Says(400, blocked), Says(401, wrong))
    said = ("make", "a fox", "-m", "gpt-image-2.6-flare", "--option", "quality=low")
    code, told = ask(*said)
    assert (code, told["error"]["kind"]) == (1, "Refused")
    assert "no foxes" in told["error"]["message"]
    code, told = ask(*said)
    assert (code, told["error"]["kind"]) == (1, "KeyRefused")
    assert KEY not in json.dumps(told)
    assert {line["state"] for line in ask("costs")[1]["calls"]} == {"released"}


def test_a_refusal_that_costs_is_counted(vendor, ask):
    vendor.on("POST", "/images/generations", Says(body={"created": 1, "data": [], "usage": USAGE}))
    code, told = ask("make", "a fox", "-m", "gpt-image-2.6-flare", "--option", "quality=low")
    assert (code, told["error"]["kind"]) == (1, "ProviderError")
    [line] = ask("costs")[1]["calls"]
    assert (line["state"], line["source"]) == ("settled", "usage")
    assert line["cost"] == pytest.approx(10 * 5e-6 + 1000 * 30e-6)


def test_a_vendor_without_a_key_says_how_to_set_one(home, call):
    code, _, err = call("make", "a fox", "-m", "flux-2-pro")
    assert code == 2
    assert "BFL_API_KEY" in err
    assert "config.toml" in err


def test_the_doctor_tells_what_is_usable_and_what_to_do(vendor, ask, call):
    code, told = ask("doctor")
    assert code == 0
    assert told["systems"]["local"]["usable"]
    assert told["systems"]["openai"]["usable"]
    assert not told["systems"]["bfl"]["usable"]
    assert "BFL_API_KEY" in json.dumps(told["systems"]["bfl"])
    assert told["settings"].endswith("config.toml")
    assert KEY not in json.dumps(told)
    assert all("authorization" not in one.headers for one in vendor.requests)
    code, out, _ = call("doctor")
    assert code == 0
    assert "$0.50 a day" in out


def test_auto_takes_what_can_be_used_now(vendor, call, ask):
    code, _, err = call("make", "a red heart", "--model", "auto", "--steps", 1, "--size", "64x64")
    assert code == 0
    assert "mini-image" in err
