"""Near-duplicates: copies are found, distinct pictures are not, groups join what belongs together.

The copies are of phantoms, which had no part in the choice of the rule's values.
"""

from __future__ import annotations

from collections import Counter
from functools import reduce
from itertools import combinations
from pathlib import Path

import cv2
import numpy as np
import pytest
from conftest import write_png, write_tiny_busi

from unet_lib.cli import main
from unet_lib.dataset import (
    Case,
    DatasetError,
    duplicate_pairs,
    find_cases,
    find_duplicates,
    groups,
    join_groups,
)
from unet_lib.dataset.groups import group_cases
from unet_lib.phantoms import PhantomConfig, phantom_pictures
from unet_lib.source import open_dataset

ORIGINALS = 4


def written_on(image: np.ndarray) -> np.ndarray:
    image, at = image.copy(), (image.shape[1] // 5, image.shape[0] // 3)
    cv2.putText(image, "L BREAST 3 H", at, cv2.FONT_HERSHEY_SIMPLEX, 0.6, 255, 2)
    cv2.line(image, (40, image.shape[0] // 2), (image.shape[1] // 2, 60), 255, 1)
    return image


def saved_as_jpeg(image: np.ndarray) -> np.ndarray:
    data = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, 50])[1]
    return cv2.imdecode(data, cv2.IMREAD_GRAYSCALE)


CHANGES = {
    "cropped": lambda x: x[len(x) // 12 : -len(x) // 10, x.shape[1] // 8 : -x.shape[1] // 12],
    "enlarged": lambda x: cv2.resize(x, None, fx=1.25, fy=1.1, interpolation=cv2.INTER_CUBIC),
    "reduced": lambda x: cv2.resize(x, None, fx=0.8, fy=0.8, interpolation=cv2.INTER_AREA),
    "brightened": lambda x: np.uint8(255 * np.minimum(x / 255 * 1.2 + 0.05, 1) ** 0.8 + 0.5),
    "written on": written_on,
    "saved as JPEG": saved_as_jpeg,
}
CHANGES["all of it"] = lambda x: reduce(lambda y, change: change(y), EACH, x)
EACH = [CHANGES[name] for name in CHANGES if name not in ("enlarged", "all of it")]


@pytest.fixture(scope="module")
def copies(tmp_path_factory) -> tuple[list[Path], list[tuple[int, str]]]:
    """Phantoms, each with seven changed copies; what each picture is."""
    folder = tmp_path_factory.mktemp("copies")
    paths, what = [], []
    for number, phantom in enumerate(phantom_pictures(ORIGINALS, 77, PhantomConfig())):
        for name, change in {"original": np.copy, **CHANGES}.items():
            paths.append(write_png(folder / f"{number}_{name}.png", change(phantom.image)))
            what.append((number, name))
    return paths, what


@pytest.fixture(scope="module")
def found(copies):
    return find_duplicates(copies[0], progress=False)


def test_every_changed_copy_is_found_and_distinct_pictures_are_never_paired(copies, found):
    """Although `written_on` draws the same marks on all of them, as a scanner does."""
    paths, what = copies
    pairs = {(what[a][0], what[b][1]) for a, b, _ in found if what[a][1] == "original"}
    assert {(n, change) for n in range(ORIGINALS) for change in CHANGES} <= pairs
    assert not [(what[a], what[b]) for a, b, _ in found if what[a][0] != what[b][0]]
    cases = [Case(p.stem, "unknown", p, (), p.stem) for p in paths]
    groups = Counter((case.group, what[i][0]) for i, case in enumerate(join_groups(cases, found)))
    assert set(groups.values()) == {1 + len(CHANGES)} and len(groups) == ORIGINALS


def test_pairs_of_unequal_files_are_found_in_the_order_of_the_cases(copies, found):
    """Whatever the order of their hashes, which is how they are searched and kept."""
    paths, what = copies
    chosen = [i for i, (number, _) in enumerate(what) if number < 2][::-1]
    cases = [Case(paths[i].stem, "unknown", paths[i], (), paths[i].stem) for i in chosen]
    pairs = duplicate_pairs(cases, progress=False)
    assert all(a < b for a, b, _ in pairs) and pairs == sorted(pairs)
    named = {frozenset((cases[a].name, cases[b].name)) for a, b, _ in pairs}
    names = [p.stem for p in paths]
    assert named == {frozenset((names[a], names[b])) for a, b, _ in found if b < 16}


def test_turned_pictures_are_not_found(copies):
    image = cv2.imread(str(copies[0][0]), cv2.IMREAD_GRAYSCALE)
    turned = write_png(copies[0][0].parent / "turned.png", np.rot90(image))
    assert find_duplicates([copies[0][0], turned], progress=False) == []
    first = find_duplicates(copies[0][:8], progress=False)
    cv2.setRNGSeed(12345)  # whatever was drawn before, the search repeats itself
    assert first and find_duplicates(copies[0][:8], progress=False) == first


def test_pictures_without_structure(tmp_path):
    flat = [write_png(tmp_path / f"{v}.png", np.full((60, 80), v, np.uint8)) for v in (0, 120, 255)]
    assert find_duplicates(flat, progress=False) == []
    assert find_duplicates([], progress=False) == []
    write_png(tmp_path / "4.png", np.full((60, 80), 120, np.uint8))
    cases = [Case(p.stem, "unknown", p, (), p.stem) for p in (*flat, tmp_path / "4.png")]
    assert duplicate_pairs(cases, progress=False) == [(1, 3, 1.0)]  # equal files always are


# --- groups of a folder ----------------------------------------------------------------------


@pytest.fixture
def clinic(tmp_path) -> Path:
    """Seven images of a folder without list; malignant (2) is benign (1) written again."""
    folder = write_tiny_busi(tmp_path / "clinic", benign=9, malignant=6, normal=5)
    image = cv2.imread(str(folder / "benign" / "benign (1).png"), cv2.IMREAD_UNCHANGED)
    mask = cv2.imread(str(folder / "benign" / "benign (1)_mask.png"), cv2.IMREAD_UNCHANGED)
    write_png(folder / "malignant" / "malignant (2).png", image)
    write_png(folder / "malignant" / "malignant (2)_mask.png", mask)
    return folder


def make_case(name: str, group: str = "", patient: str = "") -> Case:
    return Case(name, "unknown", Path(name), (), group or name, patient)


def test_groups_and_patients_are_joined_through_each_other():
    patients = {"a": "p", "b": "p", "c": "q", "d": "", "e": "", "f": "r"}
    cases = [make_case(name, patient=patient) for name, patient in patients.items()]
    joined = join_groups(cases, [(1, 2), (3, 4)])
    assert [c.group for c in joined] == ["a + 2", "a + 2", "a + 2", "d + 1", "d + 1", "f"]
    assert [c.group for c in join_groups(cases, [(2, 1), (4, 3)])] == [c.group for c in joined]
    listed = [make_case("a", "g7", "p"), make_case("b", "b", "p"), make_case("c", "g7")]
    assert [c.group for c in join_groups(listed)] == ["g7", "g7", "g7"]
    assert join_groups([]) == []


def test_a_list_in_the_folder_is_taken_instead_of_a_search(clinic, monkeypatch):
    def refuse(*_args, **_options):
        raise AssertionError("searched")

    monkeypatch.setattr(groups, "find_duplicates", refuse)
    names = [c.name for c in find_cases(clinic)]
    rows = [f"{n},{'pair' if n in ('normal (1)', 'normal (2)') else n}" for n in names]
    (clinic / "groups.csv").write_text("\n".join(["image,group", *rows]) + "\n")
    cases, origin = group_cases(find_cases(clinic, audit=None), clinic)
    assert origin == "groups.csv"
    assert [c.name for c in cases if c.has_twins] == ["normal (1)", "normal (2)"]
    assert find_cases(clinic) == cases
    (clinic / "groups.csv").write_text("\n".join(["image,group", *rows[1:]]) + "\n")
    with pytest.raises(DatasetError, match=r"groups.csv: does not list 1 of the 20 .*'benign \(1"):
        open_dataset(clinic, progress=False)


def test_pairs_are_kept_by_content(clinic, monkeypatch):
    def pairs(folder):
        return duplicate_pairs(find_cases(folder, audit=None), progress=False)

    searches = []
    search = groups.find_duplicates
    monkeypatch.setattr(
        groups, "find_duplicates", lambda *a, **o: searches.append(1) or search(*a, **o)
    )
    first = pairs(clinic)
    moved = clinic.rename(clinic.with_name("moved"))
    assert pairs(moved) == first and len(searches) == 1
    (kept,) = groups.CACHE_FOLDER.rglob("output.pkl")
    kept.write_bytes(b"damaged")
    assert pairs(moved) == first and len(searches) == 2  # a damaged file is made anew
    image = moved / "normal" / "normal (5).png"
    write_png(image, cv2.imread(str(image), cv2.IMREAD_UNCHANGED)[::-1].copy())
    assert pairs(moved) == first and len(searches) == 3  # another picture


def test_without_a_place_to_keep_pairs_they_are_found_all_the_same(clinic, monkeypatch, tmp_path):
    (tmp_path / "file").write_text("")
    monkeypatch.setattr(groups, "CACHE_FOLDER", tmp_path / "file" / "cache")
    cases = find_cases(clinic, audit=None)
    with pytest.warns(UserWarning, match="cannot be written"):
        assert len(duplicate_pairs(cases, progress=False)) == 1


def test_the_command_lists_pairs_and_writes_groups(clinic, tmp_path, capsys):
    out = tmp_path / "groups.csv"
    assert main(["duplicates", str(clinic), "--out", str(out)]) == 0
    said = capsys.readouterr().out
    assert "benign (1)  malignant (2)  1.00" in said
    assert "20 images, no known patients; 1 pairs" in said and "2 images lie in 1 groups" in said
    out.rename(clinic / "groups.csv")
    assert open_dataset(clinic, progress=False).provenance.groups == "groups.csv"
    out.write_text("mended by hand")
    assert main(["duplicates", str(clinic), "--out", str(out)]) == 2
    assert "exists" in capsys.readouterr().err and out.read_text() == "mended by hand"


def close(cases: list[Case]) -> set[tuple[str, str]]:
    """All pairs of images that share a group."""
    pairs = combinations(sorted(cases, key=lambda case: case.name), 2)
    return {(a.name, b.name) for a, b in pairs if a.group == b.group}


@pytest.mark.slow
def test_a_part_of_busi_against_its_audit(busi_dir):
    """What is asked of all 780 images (README: .984 and .996), of 170 here."""
    cases = find_cases(busi_dir)
    some = [c for c in cases if c.has_twins][:110] + [c for c in cases if not c.has_twins][:60]
    audited = close(some)
    bare = [make_case(c.name) for c in some]
    found = find_duplicates([c.image_path for c in some], progress=False)
    mine = close(join_groups(bare, found))
    assert len(mine & audited) >= 0.95 * len(audited)
    assert len(mine & audited) >= 0.95 * len(mine)


def test_an_interrupted_search_leaves_nothing(clinic, monkeypatch, tmp_path, capsys):
    def interrupt(*_args, **_options):
        raise KeyboardInterrupt

    monkeypatch.setattr(groups, "find_duplicates", interrupt)
    out = tmp_path / "groups.csv"
    assert main(["duplicates", str(clinic), "--out", str(out)]) == 130
    assert "interrupted" in capsys.readouterr().err
    assert not out.exists() and not list(groups.CACHE_FOLDER.rglob("*.pkl"))
