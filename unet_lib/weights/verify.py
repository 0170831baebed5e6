"""Whether a model folder is what its settings and its card say."""

from __future__ import annotations

from pathlib import Path

from unet_lib.images import as_image
from unet_lib.phantoms import make_phantom
from unet_lib.weights.check import WeightsError
from unet_lib.weights.folder import CARD, find_folder, load_segmenter

__all__ = ["verify_model"]


def verify_model(model: str | Path) -> list[str]:
    """Return what is wrong with a model: SHA-256, arrays, card, a forward pass on a phantom."""
    try:
        folder = find_folder(model)
        segmenter = load_segmenter(folder)
    except WeightsError as error:
        return [str(error)]
    card = folder / CARD
    expected = {
        "its title": f"# {folder.name}\n",
        "the number of parameters": f"{segmenter.network.count_params():,}",
        "the threshold": f"{segmenter.threshold:g}",
        "the warning": "Not a medical device",
    }
    findings = [f"{card}: missing"]
    if card.is_file():
        text = card.read_text(encoding="utf-8")
        absent = {what: words.strip() for what, words in expected.items() if words not in text}
        findings = [f"{card}: {what} ({words!r}) is not in it" for what, words in absent.items()]
    probabilities = segmenter.probabilities(as_image(make_phantom("benign", seed=5)[0], "phantom"))
    low, high = float(probabilities.min()), float(probabilities.max())
    if not (0 <= low < high <= 1):
        findings.append(
            f"the forward pass gives probabilities from {low:g} to {high:g}, the same everywhere "
            "or out of range"
        )
    return findings
