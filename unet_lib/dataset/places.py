"""Where BUSI may lie: named by the user, in the project, on Kaggle, on Colab."""

from __future__ import annotations

import os
from pathlib import Path

from unet_lib.dataset.cases import DATA_FOLDER, DatasetError
from unet_lib.dataset.layout import BUSI_NAME, EXPECTED, find_root, holds_cases

_VARIABLE = "BUSI_DIR"
_KAGGLE = Path("/kaggle/input/breast-ultrasound-images-dataset")
_COLAB = Path("/content")


def locate_dataset(dataset: str | os.PathLike = "auto") -> Path | None:
    """Find the data set to work on.

    Parameters
    ----------
    dataset : path-like, "auto" or "phantoms"
        A folder is taken as it is. "auto" looks at the environment variable ``BUSI_DIR``, then
        at ``data/Dataset_BUSI_with_GT`` of the project and of the working folder, at Kaggle's
        mount and under Colab's ``/content``, and takes the first that holds images.

    Returns
    -------
    Path or None
        A folder for :func:`unet_lib.dataset.find_cases`. None: there is no data set (or
        "phantoms" was asked for); use phantoms.

    Raises
    ------
    DatasetError
        The folder that was named, here or in ``BUSI_DIR``, is not there or holds no images. A
        named folder is never replaced by another one.
    """
    if dataset == "phantoms":
        return None
    if dataset != "auto":
        return _named(Path(dataset).expanduser(), f"dataset={str(dataset)!r}")
    variable = os.environ.get(_VARIABLE, "").strip()
    if variable:
        return _named(Path(variable).expanduser(), f"the environment variable {_VARIABLE}")
    for place in (DATA_FOLDER, Path("data"), _KAGGLE, _COLAB):
        for folder in (place / BUSI_NAME, place / "archive" / BUSI_NAME):
            if holds_cases(folder):
                return folder
    return None


def _named(folder: Path, source: str) -> Path:
    if not folder.is_dir() and folder.suffix.lower() != ".npz":
        raise DatasetError(
            f"{folder}: {source} names this folder, but it does not exist. Correct the path, or "
            "leave it out to use the built-in phantoms."
        )
    root = find_root(folder)
    if not holds_cases(root):
        raise DatasetError(f"{folder}: {source} names this folder, it holds no cases. {EXPECTED}")
    return root
