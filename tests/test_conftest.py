"""The harness: what CI requires is not skipped, and Ctrl-C reaches child processes."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent
TRY = """
import pytest
pytest_plugins = ["conftest"]
def test_real(busi_dir):
    assert busi_dir.is_dir()
"""


@pytest.mark.parametrize(("required", "code"), [("", 0), ("busbra_dir,busi_dir", 1)])
def test_a_required_test_is_not_skipped(tmp_path, required, code):
    (tmp_path / "test_try.py").write_text(TRY)
    environment = os.environ | {"REQUIRE": required, "BUSI_DIR": "", "PYTHONPATH": str(HERE)}
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(tmp_path)]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == code, done.stdout
    assert ("skipped though REQUIRE names busi_dir" in done.stdout) == bool(code)


def test_ctrl_c_is_not_ignored_where_the_shell_ignores_it():
    code = "import signal, conftest; print(signal.getsignal(signal.SIGINT).__name__)"
    shell = f"trap '' INT; exec '{sys.executable}' -c '{code}'"
    done = subprocess.run(["sh", "-c", shell], cwd=HERE, capture_output=True, text=True)
    assert done.stdout.strip() == "default_int_handler", done.stderr
