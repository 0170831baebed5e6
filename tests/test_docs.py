"""README and docs: links lead somewhere, commands are taken, the README stays short."""

import re
import shlex
from pathlib import Path

import pytest

from unet_lib.cli.parser import _parser

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
PAGES += [ROOT / "data/README.md", ROOT / "experiments/README.md"]


def commands():
    """All commands of the program in the code blocks of the pages, with lines put together."""
    for page in PAGES:
        for block in re.findall(r"^ *```bash\n(.*?)^ *```", page.read_text("utf-8"), re.M | re.S):
            for line in block.replace("\\\n", " ").splitlines():
                words = line.split("#")[0].split(" -m unet_lib ")
                if len(words) == 2 and "..." not in line:
                    yield pytest.param(words[1], id=f"{page.name}: {words[1][:40]}")


@pytest.mark.parametrize("command", list(commands()))
def test_commands_are_taken(command):
    _parser().parse_args(shlex.split(command.replace("<", "").replace(">", "")))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page):
    text = page.read_text("utf-8")
    links = [link for link in re.findall(r"\]\(([^)#\s]+)[^)]*\)", text) if "://" not in link]
    absent = [link for link in links if not (page.parent / link).exists()]
    assert not absent
    named = re.findall(r"`((?:unet_lib|lab|tests|benchmarks|docs)/[\w./-]+)`", text)
    assert not [name for name in named if not (ROOT / name).exists()]


def test_the_readme_is_read_in_minutes():
    text = (ROOT / "README.md").read_text("utf-8")
    assert len(text.splitlines()) <= 200
    prose = re.sub(r"```.*?```", "", text, flags=re.S)
    assert len(prose.split()) <= 1000
    assert all(len(line) <= 160 for line in text.splitlines() if not line.startswith("|"))
