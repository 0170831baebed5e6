import signal
import time

import faults
import pytest


@pytest.mark.slow
def test_killed_commands_lose_nothing_and_give_the_same_result():
    """A share of ``make faults``: the commands that are quick enough."""
    for name, outcome in faults.check(["segment", "evaluate"], kills=4, seed=3).items():
        assert outcome.kills >= 1
        assert (outcome.corrupt, outcome.differing) == ([], []), name


@pytest.mark.slow
def test_termination_removes_what_was_being_written(tmp_path):
    out = tmp_path / "phantoms"
    child = faults._start("phantoms", str(out), "--count", "3000")
    while not list(tmp_path.rglob("*.png")):
        assert child.poll() is None, child.stderr.read()
        time.sleep(0.05)
    child.send_signal(signal.SIGTERM)
    _, errors = child.communicate(timeout=60)
    assert child.returncode == 130
    assert errors.strip().splitlines()[-1].startswith("interrupted")
    assert list(tmp_path.iterdir()) == []


def test_the_comparison_sees_damage(tmp_path):
    """What the harness calls readable and equal is what it should."""
    one, two = tmp_path / "one", tmp_path / "two"
    for folder in (one, two):
        folder.mkdir()
        (folder / "a.json").write_text('{"dice": 0.5, "hours": 1}')
        (folder / "b.csv").write_text("name,seconds\na,1\n")
    (two / "a.json").write_text('{"dice": 0.5, "hours": 2}')
    assert faults.differences(one, two) == faults.unreadable(two) == []
    (two / "a.json").write_text('{"dice": 0.6, "hours": 1}')
    (two / "c.txt").write_text("more")
    assert faults.differences(one, two) == ["c.txt: only in one", "a.json: differs"]
    (two / "a.json").write_text('{"dice": 0.')
    (two / "b.csv").write_text("name,seconds\na")
    (two / "d.png").write_bytes(b"\x89PNG")
    (two / ".writing-x").write_bytes(b"half")
    damaged = [line.partition(":")[0] for line in faults.unreadable(two)]
    assert damaged == ["a.json", "b.csv", "d.png"]
