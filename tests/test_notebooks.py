"""Both notebooks: their shape, their stored outputs, and a real run on a few small phantoms."""

import ast
import json
import os
import re
import shutil
import statistics
from pathlib import Path

import nbformat
import pytest

from unet_lib.phantoms import make_phantoms
from unet_lib.provenance import PHANTOM_BANNER

ROOT = Path(__file__).parent.parent
NAMES = ("Training_Unet", "Testing_Unet")
PRIVATE = ("home", "root", "Users", "work", "workspace", "tmp", "private", "mnt")
notebooks = pytest.mark.parametrize("name", NAMES)
real = pytest.mark.slow  # in kernels


def read(name, folder=ROOT):
    return nbformat.read(folder / f"{name}.ipynb", as_version=4)


def code_of(notebook):
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def lines_of(cell):
    return [line for line in cell.source.splitlines() if line.strip()]


def tagged(notebook, tag):
    return [cell for cell in notebook.cells if tag in cell.metadata.get("tags", ())]


def texts(cell):
    """All that a cell has printed or displayed, but pictures."""
    found = []
    for output in cell.outputs:
        found.append(output.get("text", ""))
        data = output.get("data", {})
        found += [str(value) for kind, value in data.items() if not kind.startswith("image/")]
    return "\n".join(found)


def shown(notebook):
    return "\n".join(texts(cell) for cell in code_of(notebook))


def pictures(notebook):
    outputs = [output for cell in code_of(notebook) for output in cell.outputs]
    kinds = {"image/png", "image/jpeg", "image/svg+xml"}
    return [output for output in outputs if kinds & output.get("data", {}).keys()]


# the contract of the source


@notebooks
def test_shape(name):
    notebook = read(name)
    nbformat.validate(notebook)
    cells, sizes = notebook.cells, [len(lines_of(cell)) for cell in code_of(notebook)]
    assert len(cells) <= 30 and min(sizes) >= 1 and max(sizes) <= 20
    assert statistics.median(sizes) <= 6
    assert cells[0].cell_type == "markdown" and cells[-1].cell_type == "markdown"
    for before, cell in zip(cells, cells[1:], strict=False):
        if cell.cell_type == "code":
            assert before.cell_type == "markdown" and len(before.source.split()) >= 5
    for cell in code_of(notebook):
        for node in ast.walk(ast.parse(cell.source)):  # fails on %magic and !commands
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
                assert node.end_lineno - node.lineno < 5, node.name
    assert "Not a medical device" in cells[0].source and "Not a medical device" in cells[-1].source
    badges = f"/blob/main/{name}.ipynb)"
    assert cells[0].source.count(badges) == 2  # Colab and Kaggle
    install, _, environment = code_of(notebook)[:3]
    assert "find_spec" in install.source and "describe_hardware()" in environment.source


@notebooks
def test_one_cell_of_parameters_explains_every_knob(name):
    notebook = read(name)
    (cell,) = tagged(notebook, "parameters")
    assert cell.cell_type == "code" and not tagged(notebook, "injected-parameters")
    for line in lines_of(cell):
        assert re.match(r"[A-Z][A-Z_, ]* = .+  # \S", line), line
    tree = ast.parse(cell.source)
    assert all(isinstance(node, ast.Assign) for node in tree.body)
    names = {n.id for n in ast.walk(tree) if isinstance(n, ast.Name)}
    rest = "\n".join(c.source for c in code_of(notebook) if c is not cell)
    used = {n.id for n in ast.walk(ast.parse(rest)) if isinstance(n, ast.Name)}
    assert names <= used, f"knobs without effect: {names - used}"
    assert tree.body[0].targets[0].id == "DATASET" and tree.body[0].value.value == "auto"


# the stored outputs


@notebooks
def test_stored_outputs(name):
    """In order, from one run, of phantoms, without a path of a machine."""
    notebook = read(name)
    cells, stored = code_of(notebook), shown(notebook)
    assert [cell.execution_count for cell in cells] == list(range(1, len(cells) + 1))
    for cell in cells:
        kinds = {output.output_type for output in cell.outputs}
        assert "error" not in kinds
        assert kinds or "parameters" in cell.metadata.get("tags", ()), cell.source
    assert len(pictures(notebook)) >= 7
    assert "These are PHANTOMS, synthetic images" in stored
    assert name != "Testing_Unet" or PHANTOM_BANNER in stored
    assert not re.findall(rf"/(?:{'|'.join(PRIVATE)})/[^\s\"']*|[A-Z]:\\\\[^\s\"']*", stored)
    assert "papermill" not in notebook.metadata  # it keeps the paths of its run
    assert sum((ROOT / f"{name}.ipynb").stat().st_size for name in NAMES) < 2e6


# a real run


@pytest.fixture(scope="module")
def executed(tmp_path_factory):
    """Both notebooks run one after the other, in kernels, away from the repository."""
    papermill = pytest.importorskip("papermill", reason="papermill runs the notebooks")
    folder = tmp_path_factory.mktemp("notebooks")
    data = make_phantoms(folder / "tiny", 14, seed=0, progress=False)
    for name in NAMES:
        shutil.copy(ROOT / f"{name}.ipynb", folder)
    common = {"DATASET": str(data), "FOLD": 3, "SIZE": 32, "FILTERS": 4, "DEPTH": 2}
    train = {"EPOCHS": 1, "RUN": "out/run", "BATCH_SIZE": 2, "LEARNING_RATE": 0.01}
    test = {"MODEL": "out/run", "OUT": "out/report", "EXAMPLES": 2, "WORST": 1}
    given = {"Training_Unet": common | train, "Testing_Unet": common | test}
    (folder / "out").mkdir()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(ROOT))
        patch.setenv("IPYTHONDIR", str(folder / "ipython"))
        patch.delenv("BUSI_DIR", raising=False)
        for name, parameters in given.items():
            how = {"cwd": str(folder), "kernel_name": "python3", "progress_bar": False}
            papermill.execute_notebook(
                folder / f"{name}.ipynb", folder / "out" / f"{name}.ipynb", parameters, **how
            )
    return folder


@real
def test_training_leaves_a_run_folder(executed):
    run = executed / "out" / "run"
    names = {path.name for path in run.iterdir()}
    assert {"settings.json", "split.csv", "history.csv", "result.json", "model"} <= names
    assert (run / "model" / "model.weights.h5").is_file()
    recipe = json.loads((run / "settings.json").read_text())["recipe"]
    assert (recipe["training"]["epochs"], recipe["preprocessing"]["size"]) == (1, 32)
    assert (recipe["network"]["filters"], recipe["network"]["depth"]) == (4, 2)
    printed = shown(read("Training_Unet", executed / "out"))
    threshold = json.loads((run / "result.json").read_text())["threshold"]
    assert f"threshold    {threshold:g}" in printed


@real
@notebooks
def test_every_cell_ran_and_showed_what_it_should(name, executed):
    notebook = read(name, executed / "out")
    for cell in code_of(notebook):
        tags = cell.metadata.get("tags", ())
        assert cell.execution_count, cell.source
        assert cell.outputs or {"parameters", "injected-parameters"} & set(tags), cell.source
    assert len(pictures(notebook)) == 7
    printed = shown(notebook)
    assert "These are PHANTOMS" in printed
    # The data lie under an absolute path, which findings on files would name.
    assert str(executed) not in printed and str(ROOT) not in printed
    assert name != "Training_Unet" or "tiny/benign/benign (" in printed  # it does name files
    left = {path.name for path in executed.iterdir()}
    assert left <= {"tiny", "out", "ipython", *(f"{name}.ipynb" for name in NAMES)}


@real
def test_testing_leaves_and_prints_a_report(executed):
    report = executed / "out" / "report"
    names = "report.md report.html summary.json cases.csv roc.png precision_recall.png"
    assert set(names.split()) <= set(os.listdir(report))
    summary = json.loads((report / "summary.json").read_text())
    printed = shown(read("Testing_Unet", executed / "out"))
    assert PHANTOM_BANNER in printed and "seen in training: no" in printed
    dice = summary["per_image"][0]["means"]["dice"]["mean"]
    assert dice > 0.01 and re.search(rf"\| Dice \| {dice:.3f} \(", printed)
    scores = summary["pooled"][0]["scores"]
    assert re.search(rf"\| F1 \| {scores['f1']:.3f} \|", printed)
