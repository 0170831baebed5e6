"""BUSI from one of its sources to ``Dataset_BUSI_with_GT``, checked."""

from __future__ import annotations

import os
import shutil
import zipfile
from dataclasses import dataclass
from pathlib import Path

from unet_lib.dataset import (
    BUSI_NAME,
    DATA_FOLDER,
    Case,
    DatasetError,
    check_cases,
    find_cases,
    find_root,
    unlike_busi,
)
from unet_lib.downloads.archive import extract_zip
from unet_lib.downloads.fetch import DownloadError, fetch
from unet_lib.files import draft_folder, sha256

__all__ = ["CITATION", "SOURCES", "Source", "check_busi", "download_busi"]

CITATION = (
    "Data: Al-Dhabyani W, Gomaa M, Khaled H, Fahmy A. Dataset of breast ultrasound images. Data in "
    "Brief 28:104863, 2020, doi:10.1016/j.dib.2019.104863. Offered as CC0 on Kaggle; cite it."
)
KAGGLE = "https://www.kaggle.com/datasets/aryashah2k/breast-ultrasound-images-dataset"

_MASKS = 798
_MOST_BYTES, _MOST_FILES = 1 << 30, 5_000  # BUSI: about 0.25 GB in 1,578 files


@dataclass(frozen=True)
class Source:
    """Where BUSI can be had.

    Attributes
    ----------
    url, page : str
        Of the file, and what to open in a browser.
    file : str
        Its name.
    digest : str
        ``sha256:...`` or ``md5:...`` as published.
    what : str
        What is in it.
    """

    url: str
    page: str
    file: str
    digest: str
    what: str


def _medsegbench(size: int, md5: str) -> Source:
    record = "https://zenodo.org/records/13358372"
    what = (
        f"MedSegBench: the 647 lesion images resized to {size} x {size}, not the original "
        "resolution, no normal images, with a split of its own (452 / 64 / 131) that does not keep "
        "near-duplicates together; scores on it are not those of BUSI"
    )
    file = f"busi_{size}.npz"
    return Source(f"{record}/files/{file}?download=1", record, file, f"md5:{md5}", what)


# SHA-256 of the archive: torch_em's loader; MD5s: medsegbench/info.py.
SOURCES = {
    "authors": Source(
        "https://scholar.cu.edu.eg/Dataset_BUSI.zip",
        "https://scholar.cu.edu.eg/?q=afahmy/pages/dataset",
        "Dataset_BUSI.zip",
        "sha256:b2ce09f6063a31a73f628b6a6ee1245187cbaec225e93e563735691d68654de7",
        "the authors' archive: 780 images and 798 masks at their own size",
    ),
    "medsegbench-512": _medsegbench(512, "fab7550a6c5240e35da8ce5d31bc1c61"),
    "medsegbench-256": _medsegbench(256, "198aea70968b71adf593b32c41a6e995"),
    "medsegbench-128": _medsegbench(128, "68877751adef0ab639de73946aac0985"),
}
"""By name; ``medsegbench`` alone means the largest."""


def download_busi(
    to: str | Path = DATA_FOLDER, source: str | Path = "authors", *, progress: bool = True
) -> tuple[Path, str]:
    """Get BUSI, check it, and put it where `locate_dataset` finds it.

    Parameters
    ----------
    to : str or Path
        Folder that gets ``Dataset_BUSI_with_GT`` (or the .npz file of MedSegBench).
    source : str or Path
        A name of `SOURCES`, or a zip file or folder of yours in BUSI's own layout.
    progress : bool
        Show progress bars.

    Returns
    -------
    path : Path
        The folder, or the .npz file.
    facts : str
        What was checked.

    Raises
    ------
    DownloadError
        The source could not be had or is not BUSI; with what to do by hand. An incomplete folder
        never takes the name, and one that is there is never replaced.
    """
    to, source = Path(to), "medsegbench-512" if source == "medsegbench" else source
    if str(source) in SOURCES and str(source) != "authors":
        return _npz(to, SOURCES[str(source)], progress)
    target = to / BUSI_NAME
    if target.exists():
        return target, f"Already there. {_present(target, progress)}"
    if str(source) == "authors":
        known = SOURCES["authors"]
        advice = (
            f"Then: python -m unet_lib download busi --to {to} --source {to / known.file} (any "
            f"archive of BUSI will do, such as Kaggle's: {KAGGLE})."
        )
        archive = fetch(
            known.url, to / known.file, digest=known.digest, most_bytes=_MOST_BYTES,
            link=known.page, advice=advice, progress=progress,
        )  # fmt: skip
        facts = _install(archive, target, progress)
        archive.unlink()
        return target, facts
    path = Path(source).expanduser()
    if not path.exists():
        raise DownloadError(
            f"--source {source}: neither a file or folder of yours nor a known source. Known: "
            f"{', '.join(SOURCES)}."
        )
    return target, _install(path, target, progress)


def _npz(to: Path, known: Source, progress: bool) -> tuple[Path, str]:
    path = to / known.file
    if path.exists():
        raise DownloadError(f"{path}: is there already; move it away to download it again.")
    fetch(
        known.url, path, digest=known.digest, most_bytes=_MOST_BYTES, link=known.page,
        progress=progress,
    )  # fmt: skip
    return path, f"{known.digest.upper().replace(':', ' ', 1)} as published. {known.what}."


def _present(target: Path, progress: bool) -> str:
    try:
        return check_busi(target, progress=progress)
    except DownloadError as error:
        raise DownloadError(
            f"{error} It is not replaced: move {target} away and run this again."
        ) from error


def _install(source: Path, target: Path, progress: bool) -> str:
    """Unpack or copy `source`, check what came out, and give it its name."""
    try:
        with draft_folder(target.parent, target.name) as draft:
            if source.is_dir():
                facts = ""
                root = _copy(source, draft)
            elif zipfile.is_zipfile(source):
                same = f"sha256:{sha256(source)}" == SOURCES["authors"].digest
                facts = (
                    "The authors' archive by its SHA-256. "
                    if same
                    else "Not the authors' archive by its SHA-256 (Kaggle packs its own). "
                )
                extract_zip(
                    source, draft, most_files=_MOST_FILES, most_bytes=_MOST_BYTES,
                    progress=progress,
                )  # fmt: skip
                root = _root_of(draft, source)
            else:
                raise DownloadError(
                    f"{source}: neither a folder nor a whole zip file. Copy or download it again."
                )
            try:
                facts += check_busi(root, progress=progress)
            except DownloadError as error:
                text = str(error).replace(str(root), str(source))
                raise DownloadError(f"{text} Nothing was installed.") from error
            os.replace(root, target)
    except OSError as error:
        raise DownloadError(
            f"{target}: cannot be written ({error.strerror}); nothing was installed. Free some "
            "space, or choose another folder with --to."
        ) from error
    return facts


def _root_of(folder: Path, source: Path) -> Path:
    """Return the folder of the images in `folder`, which holds what `source` holds."""
    try:
        return find_root(folder)
    except DatasetError as error:
        raise DownloadError(str(error).replace(str(folder), str(source))) from error


def _copy(source: Path, draft: Path) -> Path:
    """Copy the images and masks of a folder, and nothing else that lies in it."""
    root = _root_of(source, source)
    try:
        cases = find_cases(root)
    except DatasetError as error:
        raise DownloadError(str(error)) from error
    for path in (p for case in cases for p in (case.image_path, *case.mask_paths)):
        copy = draft / path.relative_to(root)
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, copy)
    return draft


def check_busi(folder: str | Path, *, progress: bool = True) -> str:
    """Compare a folder with what BUSI is, and read every file of it.

    Parameters
    ----------
    folder : str or Path
    progress : bool
        Show a progress bar.

    Returns
    -------
    str
        What was checked, in one sentence.

    Raises
    ------
    DownloadError
        Names, classes, number of masks or sizes of the pictures differ, or a file is damaged.
    """
    try:
        cases = find_cases(folder)
    except DatasetError as error:
        raise DownloadError(str(error)) from error
    _compare(Path(folder), cases)
    report = check_cases(cases, progress=progress)
    wrong = [finding for finding in report.problems if finding.severity == "error"]
    if wrong:
        raise DownloadError(f"{len(wrong)} files cannot be used, first: {wrong[0].message}.")
    return (
        f"Checked: {len(cases)} images and {_MASKS} masks, names, classes and picture sizes as in "
        "data/busi_audit.csv, every file read."
    )


def _compare(folder: Path, cases: list[Case]) -> None:
    if difference := unlike_busi(cases):
        raise DownloadError(f"{folder}: {difference}.")
    masks = sum(len(case.mask_paths) for case in cases)
    if masks != _MASKS:
        raise DownloadError(f"{folder}: holds {masks} masks; BUSI has {_MASKS}.")
