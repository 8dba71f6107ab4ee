"""README and docs: links lead somewhere, commands and snippets run, and what exists is named."""

import re
import shlex
from pathlib import Path

import pytest
import typer

from triptych import errors
from triptych.cli import app
from triptych.engine.samplers import SAMPLERS
from triptych.engine.spacing import SPACINGS

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
IDS = [str(page.relative_to(ROOT)) for page in PAGES]
COMMAND = re.compile(r"^\$ triptych (.+)$", re.MULTILINE)
SNIPPET = re.compile(r"```python\n(.*?)```", re.DOTALL)
LINK = re.compile(r"\]\((?!https?:)([^)#]+)")


@pytest.mark.parametrize("page", PAGES, ids=IDS)
def test_links_lead_somewhere(page):
    missing = [link for link in LINK.findall(page.read_text()) if not (page.parent / link).exists()]
    assert not missing


@pytest.mark.parametrize("page", PAGES, ids=IDS)
def test_commands_do_what_the_page_shows(page, call):
    for line in COMMAND.findall(page.read_text()):
        code, _, problem = call(*shlex.split(line))
        assert code == 0, f"triptych {line}: {problem}"


@pytest.mark.parametrize("page", PAGES, ids=IDS)
def test_snippets_run(page, home):
    for code in SNIPPET.findall(page.read_text()):
        exec(compile(code, str(page), "exec"), {"__name__": "__main__"})


def options():
    group = typer.main.get_command(app)
    return {
        option
        for command in group.commands.values()
        for parameter in command.params
        for option in (*parameter.opts, *parameter.secondary_opts)
        if option.startswith("--")
    }


def test_what_exists_is_named():
    text = "\n".join(page.read_text() for page in PAGES)
    named = [*SAMPLERS, *SPACINGS, *options(), *errors.__all__]
    assert not [name for name in named if f"`{name}`" not in text]
