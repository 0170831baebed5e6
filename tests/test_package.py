"""The package as a whole: what an import costs, which names it has, whether they are explained."""

import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest

import unet_lib

ROOT = Path(__file__).parent.parent
BACKENDS = {"keras", "tensorflow", "jax", "torch"}
HEAVY = BACKENDS | {"matplotlib", "sklearn", "cv2", "scipy"}


def loaded_by(code):
    """Top-level packages in memory after the code has run in a fresh process."""
    code += "\nimport sys; print(*sorted({name.partition('.')[0] for name in sys.modules}))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return set(done.stdout.split())


@pytest.mark.parametrize(
    ("code", "allowed"),
    [
        ("import unet_lib; dir(unet_lib); unet_lib.__version__", set()),
        ("import unet_lib.metrics", set()),
        ("from unet_lib import PixelCounts, Evaluation; PixelCounts(1, 2, 3, 4).dice", set()),
        ("import unet_lib.cli", set()),
        ("from unet_lib import find_cases, make_folds, open_dataset", {"cv2"}),
        ("from unet_lib import plots, summarise, write_report", HEAVY - BACKENDS),
        ("from unet_lib.plots import plot_roc", HEAVY - BACKENDS),
    ],
)
def test_import_loads_no_more_than_it_needs(code, allowed):
    assert not (loaded_by(code) & HEAVY) - allowed


def test_the_check_above_would_see_a_backend():
    assert "matplotlib" in loaded_by("import unet_lib.plots") and "cv2" in loaded_by("import cv2")


@pytest.mark.parametrize("name", unet_lib.__all__)
def test_public_name_is_there(name):
    thing = getattr(unet_lib, name)
    assert name in dir(unet_lib)
    if name != "RECIPES":
        assert callable(thing) and thing.__module__.startswith("unet_lib")
        assert thing.__name__ == name


def test_public_names_come_from_the_all_of_their_module():
    for module, names in unet_lib._HOMES.items():
        home = import_module(f"unet_lib.{module}")
        assert set(names) <= set(home.__all__), module


def test_unknown_name():
    with pytest.raises(AttributeError, match="module 'unet_lib' has no attribute 'segment_all'"):
        _ = unet_lib.segment_all
    with pytest.raises(ImportError, match="cannot import name 'segment_all'"):
        from unet_lib import segment_all  # noqa: F401
