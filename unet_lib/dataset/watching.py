"""Whether files are still what they were when the work on them began."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from pathlib import Path

from unet_lib.dataset.cases import Case, DatasetError

__all__ = ["Watched"]


class Watched:
    """The files of cases, as they are now: size and time of the last change.

    Long work reads a file more than once. Had it changed in between, its parts would be of
    different data.

    Parameters
    ----------
    cases : sequence of Case
    others : iterable of Path
        More files, such as predictions.
    """

    def __init__(self, cases: Sequence[Case], others: Iterable[Path] = ()) -> None:
        paths = [path for case in cases for path in (case.image_path, *case.mask_paths)]
        self._found = {path: _state(path) for path in (*paths, *others)}

    def check(self) -> None:
        """Refuse files that were changed or deleted since.

        Raises
        ------
        DatasetError
            The message names the first one.
        """
        changed = [path for path, state in self._found.items() if _state(path) != state]
        if changed:
            what = "changed" if _state(changed[0]) else "deleted"
            more = f" (and {len(changed) - 1} other files)" if len(changed) > 1 else ""
            raise DatasetError(
                f"{changed[0]}: was {what} while it was in use{more}. Nothing was made of it: put "
                "the files in order, and give the same command again."
            )


def _state(path: Path) -> tuple[int, int] | None:
    try:
        found = os.stat(path)
    except OSError:
        return None
    return found.st_size, found.st_mtime_ns
