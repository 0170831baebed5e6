"""README and docs: links lead somewhere, commands are taken, the README stays short."""

import re
import shlex
from pathlib import Path

import pytest
import yaml

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
    links = re.findall(r"\]\(([^)#\s]+)[^)]*\)", text)
    links = [link for link in links if not re.match(r"\w+://|\.\./\.\./actions/", link)]
    assert not [link for link in links if not (page.parent / link).exists()]
    named = re.findall(r"`((?:unet_lib|lab|tests|benchmarks|docs)/[\w./-]+)`", text)
    assert not [name for name in named if not (ROOT / name).exists()]


def test_the_readme_is_read_in_minutes():
    text = (ROOT / "README.md").read_text("utf-8")
    assert len(text.splitlines()) <= 200
    prose = re.sub(r"```.*?```", "", text, flags=re.S)
    assert len(prose.split()) <= 1000
    lines = [line for line in text.splitlines() if not line.startswith(("|", "[!["))]
    assert max(map(len, lines)) <= 160


def test_the_address_of_the_repository_is_one():
    """Badges and the notebooks' installing cells name it; on GitHub it replaces OWNER/REPO."""
    pages = (ROOT / "README.md", *ROOT.glob("*.ipynb"))
    named = re.findall(
        r"(?:google\.com/github|(?:git\+|src=)https://github\.com)/([\w-]+/[\w.-]+)",
        "".join(page.read_text("utf-8") for page in pages),
    )
    assert named and len(set(named)) == 1


def test_the_docs_are_read_in_half_an_hour():
    """Prose, without code and tables."""
    text = "\n".join(p.read_text("utf-8") for p in PAGES if p.parent.name == "docs")
    text = re.sub(r"^ *```.*?^ *```", "", text, flags=re.M | re.S)
    prose = [line for line in text.splitlines() if not line.lstrip().startswith("|")]
    assert len(" ".join(prose).split()) <= 7000


def test_pictures_are_small():
    sizes = {p.name: p.stat().st_size for p in (ROOT / "docs").iterdir() if p.suffix != ".md"}
    assert max(sizes.values()) < 400_000


# what runs on the server


def test_the_workflow_pins_its_actions_and_calls_what_exists():
    workflow = yaml.safe_load((ROOT / ".github/workflows/ci.yml").read_text("utf-8"))
    steps = [step for job in workflow["jobs"].values() for step in job["steps"]]
    for step in steps:
        assert re.fullmatch(r"[\w-]+/[\w-]+@[0-9a-f]{40}", step.get("uses", "a/b@" + 40 * "0"))
    shell = "\n".join(step.get("run", "") for step in steps)
    makefile = (ROOT / "Makefile").read_text("utf-8")
    targets = re.findall(r"^ *make ([\w-]+)", shell, re.M)
    assert targets == ["test"] and all(f"\n{target}:" in makefile for target in targets)
    assert workflow["jobs"]["test"]["strategy"]["matrix"]["python"] == ["3.11", "3.13"]
    for line in re.findall(r'^ *"\$unet" (.+)$', shell, re.M):
        _parser().parse_args(shlex.split(line))
