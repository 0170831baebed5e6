"""BUSI from one of its sources to ``Dataset_BUSI_with_GT``, checked.

pooch compares the hash, shows progress and takes a file that is there already; it neither goes on
with what arrived of an interrupted download nor bounds its length, and so neither do we.
"""

from __future__ import annotations

import os
import shutil
import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path

from unet_lib.dataset import DATA_FOLDER, DatasetError, check_cases, find_cases, of_folder
from unet_lib.dataset.groups import unlike_busi
from unet_lib.dataset.layouts import BUSI_NAME
from unet_lib.dataset.reading import find_root
from unet_lib.downloads.registry import TIMEOUT, DownloadError, by_hand
from unet_lib.files import draft_folder, folder_lock, sha256

CITATION = (
    "Data: Al-Dhabyani W, Gomaa M, Khaled H, Fahmy A. Dataset of breast ultrasound images. Data in "
    "Brief 28:104863, 2020, doi:10.1016/j.dib.2019.104863. Offered as CC0 on Kaggle; cite it."
)
_KAGGLE = "https://www.kaggle.com/datasets/aryashah2k/breast-ultrasound-images-dataset"
_ZENODO = "https://zenodo.org/records/13358372"
_MASKS = 798
_MOST_BYTES = 1 << 30  # BUSI: about 0.25 GB


@dataclass(frozen=True)
class Source:
    """Where BUSI can be had."""

    url: str
    page: str  # what to open in a browser
    file: str
    digest: str  # as published


# SHA-256 of the archive: torch_em's loader; MD5s: medsegbench/info.py.
SOURCES = {
    "authors": Source(
        "https://scholar.cu.edu.eg/Dataset_BUSI.zip",
        "https://scholar.cu.edu.eg/?q=afahmy/pages/dataset",
        "Dataset_BUSI.zip",
        "sha256:b2ce09f6063a31a73f628b6a6ee1245187cbaec225e93e563735691d68654de7",
    )
}
SOURCES |= {
    f"medsegbench-{size}": Source(
        f"{_ZENODO}/files/busi_{size}.npz?download=1", _ZENODO, f"busi_{size}.npz", f"md5:{md5}"
    )
    for size, md5 in (
        (512, "fab7550a6c5240e35da8ce5d31bc1c61"),
        (256, "198aea70968b71adf593b32c41a6e995"),
        (128, "68877751adef0ab639de73946aac0985"),
    )
}


def download_busi(
    to: str | Path = DATA_FOLDER, source: str | Path = "authors", *, progress: bool = True
) -> tuple[Path, str]:
    """Get BUSI, check it, and put it where `locate_dataset` finds it.

    Parameters
    ----------
    to : str or Path
        Folder that gets ``Dataset_BUSI_with_GT`` (or the .npz file of MedSegBench).
    source : str or Path
        ``authors``, ``medsegbench`` (``-512``, ``-256``, ``-128``), or a zip file or folder of
        yours in BUSI's own layout.
    progress : bool
        Show progress bars.

    Returns
    -------
    path : Path
        The folder, or the .npz file.
    checked : str
        What was checked.

    Raises
    ------
    DownloadError
        The source could not be had or is not BUSI; with what to do by hand. An incomplete folder
        never takes the name, and one that is there is never replaced.
    WriteError
        The disk is full or the like.
    """
    to, source = Path(to), "medsegbench-512" if source == "medsegbench" else source
    entry = SOURCES.get(str(source))
    if entry and source != "authors":
        path = _fetch(entry.url, to / entry.file, entry.digest, link=entry.page, progress=progress)
        side = str(source).rpartition("-")[2]
        return path, (
            f"{entry.digest} as published. MedSegBench: the 647 lesion images resized to {side} x "
            f"{side}, not the original resolution, no normal images, with a split of its own (452 "
            "/ 64 / 131) that does not keep near-duplicates together; scores on it are not those "
            f"of BUSI. Unpack it: python -m lab.medsegbench {path}"
        )
    target = to / BUSI_NAME
    with folder_lock(to, wait=True):  # what a killed download was writing goes
        if not target.exists():
            return target, _get(target, entry, source, progress)
        try:
            checked = _check(target, progress)
        except DownloadError as error:
            raise DownloadError(
                f"{error} It is not replaced: move {target} away and run this again."
            ) from error
        archive = to / SOURCES["authors"].file  # of a download that was killed after its end
        if entry and archive.is_file() and f"sha256:{sha256(archive)}" == entry.digest:
            archive.unlink()
        return target, f"Already there. {checked}"


def _get(target: Path, entry: Source | None, source: str | Path, progress: bool) -> str:
    """Install BUSI where it is not there yet; returns what was checked."""
    if not entry:
        path = Path(source).expanduser()
        if not path.exists():
            raise DownloadError(
                f"--source {source}: neither a file or folder of yours nor a known source. Known: "
                f"{', '.join(SOURCES)}."
            )
        return _install(path, target, progress)
    archive = target.with_name(entry.file)
    advice = (
        f"Then: python -m unet_lib download busi --to {target.parent} --source {archive} (any "
        f"archive of BUSI will do, such as Kaggle's: {_KAGGLE})."
    )
    _fetch(entry.url, archive, entry.digest, link=entry.page, advice=advice, progress=progress)
    checked = _install(archive, target, progress)  # the archive stays until this has ended well
    archive.unlink()
    return f"The authors' archive by its SHA-256. {checked}"


def _install(source: Path, target: Path, progress: bool) -> str:
    """Copy or unpack the images and masks, check them, and give the folder its name."""
    if not source.is_dir() and not zipfile.is_zipfile(source):
        raise DownloadError(
            f"{source}: neither a folder nor a whole zip file. Copy or download it again."
        )
    with draft_folder(target.parent, target.name) as draft:
        folder = source if source.is_dir() else _unpack(source, draft.with_name("unpacked"))
        put = shutil.copyfile if source.is_dir() else os.replace
        try:
            root = find_root(folder)
            cases = find_cases(root)
            left = of_folder(root, cases).text
            for case in cases:
                for path in (case.image_path, *case.mask_paths):
                    new = draft / path.relative_to(root)
                    new.parent.mkdir(parents=True, exist_ok=True)
                    put(path, new)
            checked = _check(draft, progress)
        except (DatasetError, DownloadError) as error:
            text = str(error).replace(str(draft), str(source)).replace(str(folder), str(source))
            raise DownloadError(f"{text} Nothing was installed.") from error
        os.replace(draft, target)
    return f"{checked} {left}".rstrip()


def _unpack(archive: Path, folder: Path) -> Path:
    """Unpack a zip file; zipfile itself lets no name lead out of the folder."""
    try:
        with zipfile.ZipFile(archive) as file:
            size = sum(member.file_size for member in file.infolist())
            if size > _MOST_BYTES:
                raise ValueError(f"unpacks to {size:,} bytes; expected {_MOST_BYTES:,} at most")
            file.extractall(folder)
    # What it raises for archives that are damaged, encrypted or of a kind it does not know.
    except (zipfile.BadZipFile, zlib.error, EOFError, RuntimeError, ValueError) as error:
        raise DownloadError(f"{archive}: {error}. The archive is not used.") from error
    return folder


def _check(folder: Path, progress: bool) -> str:
    """Compare names, classes, masks and sizes with BUSI's and read every file; DownloadError."""
    try:
        cases = find_cases(folder)
    except DatasetError as error:
        raise DownloadError(str(error)) from error
    masks = sum(len(case.mask_paths) for case in cases)
    difference = unlike_busi(cases)
    if not difference and masks != _MASKS:
        difference = f"holds {masks} masks; BUSI has {_MASKS}"
    if difference:
        raise DownloadError(f"{folder}: {difference}.")
    report = check_cases(cases, progress=progress)
    wrong = [finding for finding in report.problems if finding.severity == "error"]
    if wrong:
        raise DownloadError(f"{len(wrong)} files cannot be used, first: {wrong[0].message}.")
    return (
        f"Checked: {len(cases)} images and {_MASKS} masks, names, classes and picture sizes as in "
        "data/busi_audit.csv, every file read."
    )


def _fetch(
    url: str, path: Path, digest: str, *, link: str, advice: str = "", progress: bool = True
) -> Path:
    """Download a file whose hash is known, as ``algorithm:hexadecimal``; one with it stays.

    `link` is what to open in a browser when it fails, `advice` what to do then.
    """
    import pooch
    import requests

    algorithm, _, expected = digest.partition(":")
    if path.is_file():
        if pooch.file_hash(path, algorithm) == expected:
            return path
        raise DownloadError(f"{path}: another file is there already; move it away.")
    pooch.get_logger().setLevel("WARNING")
    get = pooch.HTTPDownloader(progressbar=progress, timeout=TIMEOUT)
    with draft_folder(path.parent, path.name) as draft:
        try:
            pooch.retrieve(url, digest, path.name, draft, downloader=get)
        except (requests.RequestException, ValueError) as error:
            text = " ".join(str(error).split())
            raise DownloadError(f"{url}: {text}. {by_hand(link, path)} {advice}") from error
        os.replace(draft / path.name, path)
    return path
