"""What the library does is what it did when tests/data/behaviour.json was recorded."""

import json
from pathlib import Path

import behaviour
import pytest

BASE = json.loads((Path(__file__).parent / "data" / "behaviour.json").read_text())
# Their digests hold the last digit, which another processor or another version rounds otherwise.
ROUNDED = {"phantoms", "evaluate", "busi_evaluate", "score", "segment", "training"}


@pytest.mark.slow
@pytest.mark.parametrize("name", behaviour.SECTIONS)
def test_behaviour_is_as_recorded(name, request):
    if name.startswith("busi"):
        request.getfixturevalue("busi_dir")
    if name in ROUNDED and behaviour.machine() != BASE["machine"]:
        pytest.skip("recorded on another processor or with other versions")
    now = behaviour.record([name], behaviour.HERE.parent)
    assert behaviour.differences(BASE[name], now[name]) == []
