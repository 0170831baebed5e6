"""Copy a trained model folder into weights/, with a card made of its figures.

    python -m tools.ship_model runs/recipe/fold0 busi-fold0 --results experiments/recipe
    python -m tools.ship_model runs/recipe/all busi-best --results experiments/recipe

Make it small before (`tools/compact_weights.py`), so that the scores are those of the shipped file.
"""

from __future__ import annotations

import argparse
import json
import shutil
from pathlib import Path

from unet_lib.experiments import headline, load_crossvalidation, write_card
from unet_lib.files import atomic_path, write_atomic
from unet_lib.weights import load_segmenter
from unet_lib.weights.folder import MONITOR, SETTINGS, WEIGHTS, settings_digest

ROOT = Path(__file__).parent.parent


def main() -> None:
    """Ship one model."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", type=Path, help="run folder")
    parser.add_argument("name", help="name below weights/")
    parser.add_argument("--results", type=Path, required=True, help="published cross-validation")
    options = parser.parse_args()
    source, target = options.run / "model", ROOT / "weights" / options.name
    done = load_crossvalidation(options.results)
    load_segmenter(source)  # refuses what is damaged
    with atomic_path(target / WEIGHTS) as temporary:
        shutil.copyfile(source / WEIGHTS, temporary)
    settings = json.loads((source / SETTINGS).read_text(encoding="utf-8"))
    settings["about"]["name"] = options.name
    settings["settings_sha256"] = settings_digest(settings)  # absent in older folders
    settings["about"]["results"] = headline(done, settings["about"].get("fold"))
    if (source / MONITOR).is_file():
        write_atomic(target / MONITOR, (source / MONITOR).read_bytes())
    write_atomic(target / SETTINGS, json.dumps(settings, indent=2) + "\n")
    print(write_card(target, done))


if __name__ == "__main__":
    main()
