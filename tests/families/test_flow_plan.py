"""What comes into memory when: told before anything is read, and again with what was made."""

import pytest
from tiny_flow import saved

from triptych import families
from triptych.model import prepared
from triptych.types import Request


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return saved("sd3-medium", tmp_path_factory.mktemp("sd3"))[1]


def asked(model, **options):
    return model.card.resolve(Request(model.card.name, "a fox", seed=1, height=64, width=64, options=options))


def test_the_plan_of_what_fits_and_of_what_does_not(model):
    assert "everything stays in memory" in model.plan(asked(model, memory="100GB"))
    tight = model.plan(asked(model, memory="1MB", t5="none"))
    assert "; then network" in tight
    assert "too much" in tight
    assert "t5" not in tight
    assert "block by block" in tight
    assert not any(one.here for one in model.prepare._guests._here.values())


def test_a_request_tells_its_plan_where_it_was_asked_for_or_not_all_stays(model):
    def told(**options):
        return [text for text in prepared(model, asked(model, **options), {}).warnings if text.startswith("memory: ")]

    assert told() == []
    assert "peak" in told(memory="100GB")[0]
    assert "; then network" in told(memory="1MB")[0]


def test_the_command_prints_the_plan(model, monkeypatch, call, ask):
    monkeypatch.setattr(families, "card", lambda name: model.card)
    code, out, _ = call("models", "sd3-medium", "--memory", "100GB", "--size", "64x64")
    assert (code, "everything stays in memory" in out) == (0, True)
    code, told = ask("models", "sd3-medium", "--memory", "1MB", "--size", "64x64", "--option", "t5=none")
    assert (code, "; then network" in told["plan"]) == (0, True)


def test_what_has_no_plan_says_so(call):
    code, _, err = call("models", "--memory", "8GB")
    assert (code, "name it" in err) == (2, True)
    code, _, err = call("models", "sd15", "--memory", "8GB")
    assert (code, "not on this machine" in err) == (2, True)
