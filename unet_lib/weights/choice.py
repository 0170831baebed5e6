"""Which model a session uses, and why."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import unet_lib
from unet_lib.dataset import Case
from unet_lib.images import Preprocessing
from unet_lib.inference import Segmenter
from unet_lib.provenance import Provenance
from unet_lib.weights.folder import (
    SETTINGS,
    WEIGHTS,
    find_folder,
    load_segmenter,
    read_settings,
    registered_models,
)
from unet_lib.weights.hdf5 import WeightsError, load_weights_file

if TYPE_CHECKING:
    from unet_lib.model import UNetConfig


def choose_model(
    model: str | Path = "auto",
    *,
    data: str,
    fold: int,
    config: UNetConfig | None = None,
    preprocessing: Preprocessing | None = None,
    validation: Sequence[Case] | None = None,
    root: str | Path = ".",
) -> tuple[Segmenter, str]:
    """Load the model that a session uses, in Keras, and say which one and why.

    "auto" takes, in this order: ``model.weights.h5`` in the root; the newest finished run under
    ``runs/`` on the same data and fold; the registered model that was trained without this fold
    of these data, else the first registered one. A weights file that is not of the
    configured network is read by `load_foreign_weights`; one that cannot be read is an error,
    never passed over. Of runs newer than the one taken those with damaged settings are named.

    Parameters
    ----------
    model : str or Path
        "auto", a weights file, or what `load_segmenter` takes.
    data : str
        Name of the data, as in `open_dataset`.
    fold : int
    config : UNetConfig, optional
        Network of a bare weights file; the default one when left out.
    preprocessing : Preprocessing, optional
        Of a bare weights file, which does not say.
    validation : sequence of Case, optional
        Cases on which what a foreign file does not tell is settled; never test cases.
    root : str or Path
        Where ``model.weights.h5`` and ``runs/`` are looked for.

    Returns
    -------
    segmenter : Segmenter
    why : str
        One sentence.

    Raises
    ------
    WeightsError
        A file does not fit, or there is no model at all.
    """
    root, bare = Path(root), None
    if model != "auto":
        path = Path(model)
        if path.name == WEIGHTS and (path.parent / SETTINGS).is_file():
            path = path.parent
        bare = path if names_file(path) else None
        why = f"You named the {'file' if bare else 'model'} {path}"
    elif (root / WEIGHTS).is_file():
        bare, why = root / WEIGHTS, f"You put {WEIGHTS} into the root"
    else:
        path, why = _newest(root, data, fold)
    if bare is None:
        return load_segmenter(path, runtime="keras"), f"{why}."
    segmenter, fit = _load_bare(bare, config, preprocessing or Preprocessing(), validation)
    return segmenter, f"{why}; {fit}"


def names_file(model: str | Path) -> bool:
    """Whether a weights file is meant, by whatever name: any file, or what ends like one."""
    return Path(model).is_file() or str(model).endswith((".h5", ".keras"))


def _left_out(name: str, data: str, fold: int) -> bool:
    """Whether a registered model was trained without this fold of these data."""
    about = read_settings(find_folder(name))["about"]
    return data in str(about.get("data")).split(" + ") and about.get("fold") == fold


def _load_bare(
    path: Path,
    config: UNetConfig | None,
    preprocessing: Preprocessing,
    validation: Sequence[Case] | None,
) -> tuple[Segmenter, str]:
    """Load a weights file as the configured network, else as what it is; threshold .5."""
    from unet_lib.model import build_unet

    network = build_unet(config, preprocessing.size, pretrained=False)
    try:
        load_weights_file(network, path)
    except WeightsError:  # read again, which names damage as well
        foreign = unet_lib.load_foreign_weights(path, validation)
        fit = "its network was found out from the file. Training images unknown. Assumed:"
        return foreign.segmenter(), "\n  ".join([fit, *map(str, foreign.assumed)])
    segmenter = Segmenter(network, preprocessing, provenance=Provenance(name=path.name))
    return segmenter, "it fits the configured network."


def _newest(root: Path, data: str, fold: int) -> tuple[str | Path, str]:
    """Return the newest run on data and fold, else a registered model; and why."""
    damaged = ""
    paths = (root / "runs").glob(f"**/model/{SETTINGS}")
    for _, path in sorted(((path.stat().st_mtime, path) for path in paths), reverse=True):
        try:
            about = read_settings(path.parent)["about"]
        except WeightsError as error:
            damaged += f". Passed over: {error}".removesuffix(".")
            continue
        if (about.get("data"), about.get("fold")) == (data, fold):
            run = path.parent.parent
            return run, f"The last finished run on {data}, fold {fold}: {run}{damaged}"
    registered = registered_models()
    if not registered:
        raise WeightsError(
            f"no model: there is no {root / WEIGHTS}, no finished run on {data}, fold {fold}, and "
            f"none is registered. Run Training_Unet.ipynb first{damaged}."
        )
    name = next((name for name in registered if _left_out(name, data, fold)), registered[0])
    return name, f"No run on {data}, fold {fold}; registered model {name}{damaged}"
