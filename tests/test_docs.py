"""README and docs: links lead somewhere, commands are taken and run, the README stays short."""

import re
import shlex
import shutil
from pathlib import Path

import pytest
import yaml

from unet_lib.cli import main
from unet_lib.cli.parser import _parser
from unet_lib.phantoms import make_phantoms

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


STARTS = "python|make|pip|unet|pytest|labelme|tensorboard|srun|export|\\.venv/bin/\\w+"
NOT_RUN = {  # how a command of the README or of docs begins, and why it is not run here
    "make": "minutes, or real data",
    "pip install": "the network",
    "python3 -m venv": "an environment: tests/test_install.py",
    "pytest --agree": "writes the agreed texts",
    "labelme": "a window, of another project",
    "tensorboard": "a server, of another project",
    "jupyter lab": "a server",
    "python -m unet_lib view": "a server",
    "python -m unet_lib site": "trains for minutes: tests/test_site.py",
    "python -m unet_lib( --help)?$": "a name; tests/test_cli.py",
    "srun": "SLURM",
    "export": "only beside a second machine",
    r"python -m unet_lib train .* --distributed": "several machines: tests/test_distributed.py",
    "python -m unet_lib download": "the network: tests/test_downloads.py",
    "gdown": "the network",
    r"python -m unet_lib weights list \|": "an overview of verbs",
    r"python -m benchmarks\.": "minutes, beside peers",
    "python -m lab.hero": "BUS-BRA",
    "python -m lab.medsegbench": "MedSegBench: tests/test_medsegbench.py",
    "python tests/strange_pictures.py": "BUSI: minutes",
}
TINY = ("--size", "32", "--filters", "4", "--depth", "2")


def all_commands():
    """Every command of README and docs: lines of code blocks, and what stands in backticks."""
    for page in (page for page in PAGES if page.parent in (ROOT, ROOT / "docs")):
        text = page.read_text("utf-8")
        blocks = re.findall(r"^ *```bash\n(.*?)^ *```", text, re.M | re.S)
        lines = "".join(blocks).replace("\\\n", " ").splitlines()
        prose = re.sub(r"^ *```.*?^ *```", "", text, flags=re.M | re.S)
        quoted = [quote.replace("\n", " ") for quote in re.findall(r"`([^`]+)`", prose)]
        quoted = [quote for quote in quoted if re.match(rf"({STARTS}) ", quote)]
        for line in filter(None, (line.split("#")[0].strip() for line in (*lines, *quoted))):
            yield re.sub(r"^\.venv/bin/", "", line)


@pytest.mark.slow
def test_commands_run_in_a_fresh_folder(tmp_path, monkeypatch):
    """As they stand, in their order, where what they name are phantoms; trainings are shortened."""
    monkeypatch.chdir(tmp_path)
    for seed, name in enumerate(("data/Dataset_BUSI_with_GT", "BUSI", "BUSBRA")):
        make_phantoms(tmp_path / name, 12, seed, progress=False)
    shutil.copytree("BUSI", "FOLDER")
    scan, *scans = sorted(p for p in Path("BUSI").glob("*/*.png") if "_mask" not in p.name)[:3]
    shutil.copy(scan, "scan1.png")
    Path("folder_of_scans").mkdir()
    for path in scans:
        shutil.copy(path, "folder_of_scans")
    Path("masks_of_any_program").mkdir()
    for path in Path("data").glob("*/*/*_mask.png"):
        shutil.copy(path, Path("masks_of_any_program", path.name.replace("_mask", "_pred")))

    used, done = set(), set()
    for command in all_commands():
        reasons = [start for start in NOT_RUN if re.match(start, command)]
        used.update(reasons)
        if reasons or command in done:
            continue
        done.add(command)
        start, _, rest = command.partition("python -m unet_lib ")
        assert not start and rest, f"neither run nor in NOT_RUN: {command}"
        words = shlex.split(rest)
        if words[0] == "train":
            words += ["--epochs", "1", *(TINY if "--start-from" not in words else ())]
        assert main(words) == 0, command
        if Path("runs/fold0").exists() and not Path("model.weights.h5").exists():
            shutil.copy("runs/fold0/model/model.weights.h5", ".")
    assert used == set(NOT_RUN) and len(done) > 10


@pytest.mark.slow
def test_the_python_of_the_readme_runs(tmp_path, monkeypatch, capsys):
    """That of docs/extending.md: tests/test_extending.py and test_layouts.py."""
    pages = [page for page in PAGES if "```python" in page.read_text("utf-8")]
    assert [page.name for page in pages] == ["README.md", "extending.md"]
    (code,) = re.findall(r"```python\n(.*?)```", pages[0].read_text("utf-8"), re.S)
    monkeypatch.chdir(tmp_path)
    source = make_phantoms(tmp_path / "data/Dataset_BUSI_with_GT", 12, progress=False)
    shutil.copy(next(p for p in source.glob("*/*.png") if "_mask" not in p.name), "scan.png")
    tiny = ("training.epochs=1", "preprocessing.size=32", "network.filters=4", "network.depth=2")
    assert code.count("Recipe()") == 1
    exec(code.replace("Recipe()", f"Recipe().but(*{tiny})"), {})
    assert "Dice" in capsys.readouterr().out


def test_make_knows_what_the_pages_call():
    targets = re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text("utf-8"), re.M)
    called = {command.split()[1] for command in all_commands() if command.startswith("make ")}
    assert called and called <= set(targets)


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
