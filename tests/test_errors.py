"""The page of errors and the code say the same; every kind of error is on the page."""

from __future__ import annotations

import ast
import subprocess
import sys

import error_page
import pytest
from coverage import CoverageData

# They never leave the reading of weights trained elsewhere, which raises WeightsError of them.
INTERNAL = {"TopologyError", "_Layout", "_Mismatch"}


def test_the_page_is_that_of_the_code():
    page = (error_page.ROOT / "docs" / "errors.md").read_text(encoding="utf-8")
    assert page == error_page.page(), "python tests/error_page.py > docs/errors.md"


def test_every_public_error_class_is_on_the_page():
    """A class of error that is defined in the library, or raised in it, has its part."""
    known = {*error_page.LIBRARY, *error_page.REASONS}
    for path in (error_page.ROOT / "unet_lib").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ClassDef) and any(
                isinstance(base, ast.Name) and base.id.endswith(("Error", "Exception"))
                for base in node.bases
            ):
                assert node.name in known | INTERNAL, f"{path}: {node.name}"
    raised = {site.kind for site in error_page.sites()}
    assert raised - known <= {"AttributeError", "failure", *INTERNAL}


def test_messages_are_read_from_the_code():
    found = {site.message for site in error_page.sites() if site.kind == "ImageError"}
    assert "…: no such file." in found
    assert any(text.startswith("…: the mask is … x … (height x width) but …") for text in found)


def test_what_no_test_raised_is_listed(tmp_path):
    """Measured here: one error raised, its line is not listed, all others are."""
    data = tmp_path / "coverage"
    code = (
        "import sys; sys.path.insert(0, '.')\n"
        "from unet_lib.images import ImageError, read_image\n"
        "try:\n    read_image('absent.png')\nexcept ImageError:\n    pass\n"
    )
    (tmp_path / "once.py").write_text(code)
    command = [sys.executable, "-m", "coverage", "run", f"--data-file={data}", "--rcfile=/dev/null"]
    subprocess.run(
        [*command, "--include=unet_lib/*", str(tmp_path / "once.py")],
        cwd=error_page.ROOT, check=True, capture_output=True,
    )  # fmt: skip
    assert CoverageData(str(data)) is not None
    missed = error_page.unreached(str(data))
    texts = {site.message for site in missed if site.file == "unet_lib/images/decode.py"}
    assert "…: no such file." not in texts and "…: cannot be opened (…)." in texts
    with pytest.raises(subprocess.CalledProcessError):
        subprocess.run(
            [sys.executable, "tests/error_page.py", str(data)],
            cwd=error_page.ROOT, check=True, capture_output=True,
        )  # fmt: skip
