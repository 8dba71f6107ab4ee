"""What a user has set up: where a key is looked for first, and that nothing of it is shown where it is wrong."""

import sys
from types import SimpleNamespace

import pytest

from triptych.errors import FileProblem, InvalidField
from triptych.providers.wire.account import Secret, Spec
from triptych.service.budgets import Budgets
from triptych.service.settings import Settings

KEY = "sk-secret-123456"
SPEC = Spec(
    "vendor",
    "Vendor",
    "https://api.vendor.example/v1",
    ("vendor.example",),
    ("VENDOR_API_KEY", "VENDOR_TOKEN"),
    base_urls=("VENDOR_BASE_URL",),
    settings={"region": ("VENDOR_REGION",)},
)


@pytest.fixture
def told(tmp_path, monkeypatch):
    """Writes the file and gives what is read from it."""
    for name in ("VENDOR_API_KEY", "VENDOR_TOKEN", "VENDOR_BASE_URL", "VENDOR_REGION", "TRIPTYCH_PROJECT"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("triptych.service.settings.find_spec", lambda _: None)  # no keyring

    def write(text=None):
        if text is not None:
            (tmp_path / "config.toml").write_text(text)
        return Settings(tmp_path / "config.toml")

    return write


def test_without_a_file_there_are_defaults(told):
    account = told().account(SPEC)
    assert (account.key, account.base_url, account.proxy) == (None, "https://api.vendor.example/v1", None)
    assert account.own
    assert told().budgets() == Budgets()
    assert told().electricity() is None
    assert told().project() == ""


def test_the_environment_wins_over_the_file_and_the_first_name_over_the_second(told, monkeypatch):
    settings = told(f'project = "shoes"\n[vendor]\nkey = "{KEY}"\nbase_url = "http://here:1/"\nregion = "eu"\n')
    account = settings.account(SPEC)
    assert account.key.reveal() == KEY
    assert (account.base_url, account.settings) == ("http://here:1", {"region": "eu"})
    assert not account.own
    assert settings.project() == "shoes"
    monkeypatch.setenv("VENDOR_TOKEN", "second")
    assert settings.account(SPEC).key.reveal() == "second"
    monkeypatch.setenv("VENDOR_API_KEY", " first\n")
    monkeypatch.setenv("VENDOR_REGION", "us")
    monkeypatch.setenv("VENDOR_BASE_URL", "https://other.example")
    monkeypatch.setenv("TRIPTYCH_PROJECT", "hats")
    account = settings.account(SPEC)
    assert (account.key.reveal(), account.base_url) == ("first", "https://other.example")
    assert account.settings["region"] == "us"
    assert settings.project() == "hats"


def test_the_keyring_comes_last(told, monkeypatch):
    asked = []

    def get_password(service, name):
        asked.append((service, name))
        return "from the ring"

    monkeypatch.setattr("triptych.service.settings.find_spec", lambda name: name)
    monkeypatch.setitem(sys.modules, "keyring", SimpleNamespace(get_password=get_password))
    assert told().account(SPEC).key.reveal() == "from the ring"
    assert asked == [("triptych", "vendor")]
    assert told(f'[vendor]\nkey = "{KEY}"\n').account(SPEC).key.reveal() == KEY


def test_a_keyring_that_fails_is_no_key(told, monkeypatch):
    def get_password(*_):
        raise RuntimeError("locked")

    monkeypatch.setattr("triptych.service.settings.find_spec", lambda name: name)
    monkeypatch.setitem(sys.modules, "keyring", SimpleNamespace(get_password=get_password))
    assert told().account(SPEC).key is None


@pytest.mark.parametrize(
    ("text", "problem", "said"),
    [
        (f"[vendor]\nkye = '{KEY}'", InvalidField, "vendor.kye"),
        (f"vendor = '{KEY}'", InvalidField, "a table"),
        (f"[vendor]\nkey = '{KEY}", FileProblem, "config.toml cannot be read"),
        (f"[vendor]\nkey = '{KEY}é'", InvalidField, "vendor.key"),
        ("[vendor]\ntimeout = -1", InvalidField, "vendor.timeout"),
        ("[vendor]\ntimeout = true", InvalidField, "vendor.timeout"),
        ("[vendor]\ndeadline = 'long'", InvalidField, "vendor.deadline"),
        ("[vendor]\nprices = 'cheap'", InvalidField, "one of list, free, unknown"),
        ("\xff", FileProblem, "config.toml cannot be read"),
    ],
)
def test_what_is_wrong_is_told_and_no_key_with_it(told, text, problem, said):
    settings = told(text)
    with pytest.raises(problem, match=said) as caught:
        settings.account(SPEC)
    assert KEY not in str(caught.value)
    assert KEY not in repr(caught.value.__cause__)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[budget]\nday = -5", "budget.day"),
        ("[budget]\nweek = 5", "budget.week"),
        ("[electricity]\nwatts = 300", "electricity.per_kwh"),
        ("[electricity]\nwatts = -1\nper_kwh = 0.3", "electricity.watts"),
        ("project = 7", "project"),
    ],
)
def test_budgets_and_electricity_that_cannot_be(told, text, said):
    settings = told(text)
    with pytest.raises(InvalidField, match=said):
        (settings.budgets(), settings.electricity(), settings.project())


def test_budgets_of_the_environment(told, monkeypatch):
    settings = told("[budget]\ncall = 0.5\nday = 5")
    monkeypatch.setenv("TRIPTYCH_BUDGET_DAY", "2.5")
    assert settings.budgets() == Budgets(call=0.5, day=2.5)
    monkeypatch.setenv("TRIPTYCH_BUDGET_MONTH", "much")
    with pytest.raises(InvalidField, match="TRIPTYCH_BUDGET_MONTH"):
        settings.budgets()


def test_what_electricity_costs(told):
    electricity = told("[electricity]\nwatts = 300\nper_kwh = 0.30").electricity()
    assert electricity.cost(12.0) == pytest.approx(0.0003)  # 300 W for 12 s are 1 Wh


def test_a_key_is_never_shown_nor_pickled():
    import pickle

    secret = Secret(KEY)
    assert KEY not in f"{secret} {secret!r}"
    assert secret.hide(f"bad key {KEY}!") == "bad key [key]!"
    with pytest.raises(TypeError):
        pickle.dumps(secret)
