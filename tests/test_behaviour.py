"""What the library does is what it did when tests/data/behaviour.json was recorded.

Texts and whole numbers must be equal; floats may differ by 2e-5. What differs on purpose is written
by `pytest --agree`, with the reason in the commit.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import behaviour
import pytest

BASE = Path(__file__).parent / "data" / "behaviour.json"
# Their digests hold the last digit, which another processor or another version rounds otherwise.
ROUNDED = {"phantoms", "evaluate", "busi_evaluate", "score", "segment", "training"}


def differences(base, now, where=""):
    """Name each place where two records differ."""
    if isinstance(base, dict) and isinstance(now, dict):
        pairs = [(name, base.get(name), now.get(name)) for name in {**base, **now}]
    elif isinstance(base, list) and isinstance(now, list) and len(base) == len(now):
        pairs = [(str(i), *pair) for i, pair in enumerate(zip(base, now, strict=True))]
    else:
        floats = isinstance(base, float) and isinstance(now, float)
        same = abs(base - now) <= 2e-5 if floats else base == now
        return [] if same else [f"{where}: {base!r} before, {now!r} now"]
    return [line for name, *pair in pairs for line in differences(*pair, f"{where}/{name}")]


@pytest.mark.slow
@pytest.mark.parametrize("name", behaviour.SECTIONS)
def test_behaviour_is_as_recorded(name, request, tmp_path):
    if name.startswith("busi"):
        request.getfixturevalue("busi_dir")
    agree, base = request.config.getoption("agree"), json.loads(BASE.read_text(encoding="utf-8"))
    if name in ROUNDED and behaviour.machine() != base["machine"] and not agree:
        pytest.skip("recorded on another processor or with other versions")
    threads = {"TF_NUM_INTRAOP_THREADS": "2", "TF_NUM_INTEROP_THREADS": "1"}
    threads |= {"KERAS_BACKEND": "tensorflow", "PYTHONPATH": str(behaviour.ROOT)}
    command = [sys.executable, behaviour.__file__, name]
    options = {"cwd": tmp_path, "env": os.environ | threads, "text": True}
    printed = subprocess.run(command, stdout=subprocess.PIPE, check=True, **options).stdout
    now = json.loads(printed.splitlines()[-1])
    if agree:
        base |= {name: now, "machine": behaviour.machine()}
        BASE.write_text(json.dumps(base, indent=0, ensure_ascii=False) + "\n", encoding="utf-8")
    assert differences(base[name], now) == []
