"""What every settings dataclass of the library shares: to and from a plain dictionary."""

from __future__ import annotations

import dataclasses
import reprlib
from collections.abc import Mapping
from typing import Any, Self

__all__ = ["Settings"]


class Settings:
    """Mixin of the frozen settings dataclasses: JSON-able, refusing unknown keys."""

    def to_dict(self) -> dict[str, Any]:
        """Return the settings as a dictionary that `json.dumps` takes.

        Returns
        -------
        dict
            One entry a field; nested settings are dictionaries, tuples are lists.
        """
        return {field.name: _plain(getattr(self, field.name)) for field in dataclasses.fields(self)}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """Build the settings from a dictionary, refusing keys that do not exist.

        Parameters
        ----------
        values : mapping
            Field names and values; fields left out take their defaults.

        Raises
        ------
        ValueError
            A key is not a field of this class (the message lists the fields), a field without
            default is missing, or a value cannot work.
        """
        if not isinstance(values, Mapping):
            raise ValueError(
                f"{cls.__name__}: expected a dictionary of settings, "
                f"received {type(values).__name__}."
            )
        allowed = [field.name for field in dataclasses.fields(cls)]
        unknown = sorted(set(values) - set(allowed))
        if unknown:
            raise ValueError(
                f"{cls.__name__}: unknown setting {', '.join(map(reprlib.repr, unknown[:5]))}. "
                f"Allowed are: {', '.join(allowed)}."
            )
        try:
            return cls(**values)
        except (TypeError, OverflowError) as error:  # from comparing what a setting cannot be
            raise ValueError(
                f"{cls.__name__}: a setting is missing or has the wrong type ({error})."
            ) from error


def _plain(value: Any) -> Any:
    if hasattr(value, "to_dict"):
        return value.to_dict()
    if isinstance(value, tuple | list):
        return [_plain(item) for item in value]
    return value
