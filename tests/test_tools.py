"""The development tools whose results are shipped."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tools import average_models
from tools.compact_weights import rounded
from tools.failure_atlas import measure
from unet_lib.images import Preprocessing
from unet_lib.inference import Segmenter
from unet_lib.model import UNetConfig, build_unet
from unet_lib.phantoms import make_phantoms
from unet_lib.weights import load_segmenter, save_segmenter

ROOT = Path(__file__).parent.parent


def test_rounding_keeps_so_many_significant_bits():
    values = np.random.default_rng(0).normal(size=10_000).astype(np.float32) * 1e-3
    found = rounded(values, 13)
    assert np.abs(found / values - 1).max() <= 2.0**-13
    assert np.array_equal(rounded(found, 13), found)
    assert np.all(found.view(np.uint32) & (2**11 - 1) == 0)  # 24 bits less 13: compressible
    assert np.array_equal(rounded(np.zeros(3, np.float32)), np.zeros(3))


def test_compact_weights_load_and_are_smaller(tmp_path):
    config = UNetConfig(filters=16, depth=3)
    network = build_unet(config, 32)
    folder = save_segmenter(Segmenter(network, Preprocessing(32), 0.4), config, tmp_path / "m")
    before = (folder / "model.weights.h5").stat().st_size
    command = [sys.executable, "-m", "tools.compact_weights", str(folder)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert (folder / "model.weights.h5").stat().st_size < 0.85 * before
    assert json.loads((folder / "segmenter.json").read_text())["threshold"] == 0.4
    small = load_segmenter(folder)  # also compares the SHA-256
    for old, new in zip(network.get_weights(), small.network.get_weights(), strict=True):
        expected = rounded(old) if old.ndim >= 2 else old
        np.testing.assert_array_equal(new, expected)


def test_atlas_measures_what_it_says():
    image = np.full((60, 80, 1), 0.5, np.float32)
    truth = np.zeros((60, 80), bool)
    truth[10:20, 30:50] = True
    image[truth] = 0.2
    image[20:, 30:50] = 0.1  # a shadow below
    found = measure(image, truth)
    assert found.share == pytest.approx(200 / 4800)
    assert found.shadow == pytest.approx(0.4)
    assert 0.15 < found.contrast < 0.3  # the ring holds some of the shadow
    assert not found.border
    truth[0, 40] = True
    assert measure(image, truth).border


def test_averaging_a_model_with_itself_changes_nothing_and_with_another_something(tmp_path, capsys):
    data = make_phantoms(tmp_path / "p", 30, seed=1, progress=False)
    average_models.main([str(data), "busi-small", "busi-small"])
    one, same, average, gain = capsys.readouterr().out.splitlines()[-4:]
    assert one == same and one.startswith("busi-small: 0.")
    assert average.startswith(f"average of 2: {one.split()[-1]} (")
    assert gain == "less the mean of the models: +0.0000 (no interval)"
    average_models.main([str(data), "busi-small", "busi-best"])
    small, best, average, _ = capsys.readouterr().out.splitlines()[-4:]
    assert len({line.split(": ")[1][:6] for line in (small, best, average)}) == 3
