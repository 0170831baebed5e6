"""Every word and figure of a report, as committed in tests/data/agreed.

A change of the text shows there as a change of these files; ``pytest --agree`` writes them anew.
"""

import re
from dataclasses import dataclass, field

import numpy as np
import pytest

from unet_lib.metrics import Evaluation
from unet_lib.report import compare, write_comparison, write_report

BUSI = {"model": "unet-a", "data": "BUSI", "data_kind": "clinical"}
FOLD = {**BUSI, "split": "busi_5fold, fold 0", "fold": 0, "part": "test"}
NEW = {"seen_in_training": False}


@dataclass(frozen=True)
class Sample:
    """A report: the classes of its images, what is said about it, what is known of it."""

    classes: tuple[str, ...]
    about: dict = field(default_factory=dict)
    count: int = 48
    probabilities: bool = True
    spacing: tuple[float, float] | None = None
    seed: int = 0
    show: bool = False
    group: int = 2  # images in each near-duplicate group


def overlap(*names, near=()):
    return {"compared_with": 624, "in_training": list(names), "near_duplicates": list(near)}


THREE = ("benign", "malignant", "normal")
SETTINGS = {
    "threshold": 0.45,
    "cleaning": {"minimum_area": 0.0, "minimum_peak": 0.9},
    "preprocessing": {"size": 128, "keep_aspect": False},
    "model_sha256": "10ab72bb",
    "normals": True,
    "sources": ["here", "there"],
    "started": None,
}
SAMPLES = {
    "all_that_is_known": Sample(
        THREE, {**FOLD, **NEW, **SETTINGS, "training_overlap": overlap()}, show=True
    ),
    "phantoms_few_groups": Sample(
        THREE, {**NEW, "model": "run", "data": "phantoms", "data_kind": "phantoms"}, 9
    ),
    "training_images": Sample(
        THREE,
        {
            **FOLD,
            "seen_in_training": True,
            "training_overlap": overlap("benign (0)", "normal (2)", near=["malignant (1)"]),
        },
        12,
        group=1,
    ),
    "leaking_split": Sample(
        THREE, {**FOLD, **NEW, "training_overlap": overlap(near=["benign (0)"])}, 6
    ),
    "masks_alone": Sample(THREE, BUSI, 12, probabilities=False),
    "millimetres": Sample(("benign", ""), {**FOLD, **NEW}, 24, spacing=(0.1, 0.08), group=1),
    "normals_alone": Sample(("normal",), {**FOLD, **NEW}, 12),
    "without_normals": Sample(("malignant",), {**FOLD, **NEW}, 12),
}
PAGES = ("all_that_is_known", "training_images")


def evaluation_of(sample):
    """Make pictures of half a lesion each, some missed, some marked where there is none."""
    rng = np.random.default_rng(sample.seed)
    evaluation, pictures = Evaluation(provenance=sample.about), {}
    for i in range(sample.count):
        label = sample.classes[i % len(sample.classes)]
        name = f"{label or 'picture'} ({i})"
        truth, marked = np.zeros((2, 40 + i % 5, 50), bool)
        if label != "normal":
            truth[8 : 24 + i % 7, 10 : 30 + i % 11] = True
        if (label == "normal") == (i % 7 == 5) and i % 11:
            marked[10 : 26 + i % 3, 9 + i % 4 : 28] = True
        if i % 6 == 1:
            marked[2:5, 40:44] = True
        # Eighths, so that sums are exact on every machine.
        p = (marked * 4 + rng.integers(0, 4, marked.shape) + (truth & (i % 4 == 0))) / 8
        evaluation.add(
            truth, p >= 0.5, p if sample.probabilities else None, name=name, label=label,
            group=f"group {i // sample.group}" if sample.group > 1 else "", spacing=sample.spacing,
        )  # fmt: skip
        pictures[name] = p[..., None].astype(np.float32), truth, p >= 0.5
    return evaluation, pictures.__getitem__ if sample.show else None


def page_text(html):
    """Return the page without style, script and pixels, which other tests look at."""
    html = re.sub(r"<(style|script)>.*?</\1>", r"<\1/>", html, flags=re.DOTALL)
    html = re.sub(r"sha256-[^'\"; ]+", "sha256", html)
    html = re.sub(r'(width|height)="\d+" (width|height)="\d+" (?=alt)', "", html)
    return re.sub(r"base64,[\w+/=]+", "base64", html)


def texts(name, folder):
    """Return the texts of a sample's report, by the name of the committed file."""
    evaluation, show = evaluation_of(SAMPLES[name])
    report = write_report(evaluation, folder, show=show)
    found = {f"{name}.md": report.read_text(encoding="utf-8")}
    if name in PAGES:
        page = (folder / "report.html").read_text(encoding="utf-8")
        found[f"{name}.html"] = page_text(page)
    return found


def comparison_texts(folder):
    """Return both files of a comparison of two models on the same images."""
    sample = SAMPLES["all_that_is_known"]
    first, _ = evaluation_of(sample)
    second, _ = evaluation_of(Sample(THREE, sample.about, seed=1))
    compared = compare(first.table, second.table)
    path = write_comparison(compared, folder, "unet-a", "other|program", about=sample.about)
    few, _ = evaluation_of(SAMPLES["phantoms_few_groups"])
    small = write_comparison(
        compare(few.table, few.table), folder / "few", "a", "b", about=few.provenance
    )
    return {
        "comparison.md": path.read_text(encoding="utf-8"),
        "comparison_few.md": small.read_text(encoding="utf-8"),
        "comparison_few.json": small.with_suffix(".json").read_text(encoding="utf-8"),
    }


@pytest.mark.parametrize("name", SAMPLES)
def test_report_says_what_was_agreed(name, tmp_path, agreed):
    for file, text in texts(name, tmp_path).items():
        agreed(text, file=file)


def test_comparison_says_what_was_agreed(tmp_path, agreed):
    for file, text in comparison_texts(tmp_path).items():
        agreed(text, file=file)
