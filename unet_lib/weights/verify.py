"""Whether a model folder is what its settings and its card say."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from unet_lib.phantoms import make_phantom
from unet_lib.weights.check import WeightsError
from unet_lib.weights.folder import CARD, find_folder, load_segmenter

__all__ = ["verify_model"]


def verify_model(model: str | Path) -> list[str]:
    """Check a model folder: SHA-256, arrays, card, and a forward pass on a phantom.

    Parameters
    ----------
    model : str or Path
        As for `load_segmenter`.

    Returns
    -------
    list of str
        What is wrong; empty when nothing is.
    """
    try:
        folder = find_folder(model)
        segmenter = load_segmenter(folder)
    except WeightsError as error:
        return [str(error)]
    findings = []
    card = folder / CARD
    text = card.read_text(encoding="utf-8") if card.is_file() else ""
    parameters = segmenter.network.count_params()
    facts = {
        "its title": f"# {folder.name}\n",
        "the number of parameters": f"{parameters:,}",
        "the threshold": f"{segmenter.threshold:g}",
        "the warning": "Not a medical device",
    }
    if not text:
        findings.append(f"{card}: missing")
    else:
        findings += [
            f"{card}: {what} ({fact.strip()!r}) is not in it"
            for what, fact in facts.items()
            if fact not in text
        ]
    image = (make_phantom("benign", seed=5)[0].astype(np.float32) / 255.0)[..., None]
    probabilities = segmenter.probabilities(image)
    low, high = float(probabilities.min()), float(probabilities.max())
    if not (0 <= low < high <= 1):
        findings.append(
            f"the forward pass gives probabilities from {low:g} to {high:g}, the same everywhere "
            "or out of range"
        )
    return findings
