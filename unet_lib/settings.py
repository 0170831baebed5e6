"""What every settings dataclass of the library shares: to and from a plain dictionary."""

from __future__ import annotations

import dataclasses
import reprlib
from collections.abc import Mapping
from typing import Any, Self

__all__ = ["Settings"]

_KINDS = {
    "int": ("a whole number", int),
    "float": ("a number", int | float),
    "bool": ("true or false", bool),
    "str": ("text", str),
}


class Settings:
    """Mixin of the frozen settings dataclasses: JSON-able, refusing unknown keys."""

    def check(self, where: str = "", /, **allowed: tuple[float, float] | list[Any]) -> None:
        """Refuse fields of another type than declared, out of a range or not in a list."""
        for field in dataclasses.fields(self):
            value, limits = getattr(self, field.name), allowed.get(field.name, ())
            kinds = str(getattr(field.type, "__name__", field.type))
            declared, _, optional = kinds.partition(" | ")
            if isinstance(limits, list):
                expected, fits = f"one of {', '.join(map(repr, limits))}", value in limits
            elif declared in _KINDS and not (optional and value is None):
                expected, kind = _KINDS[declared]
                fits = isinstance(value, kind) and isinstance(value, bool) == (kind is bool)
                if limits:
                    expected += f" from {limits[0]:g} to {limits[1]:g}"
                    fits = fits and limits[0] <= value <= limits[1]
            else:
                continue
            if not fits:
                name = f"{type(self).__name__}: {field.name}"
                raise ValueError(f"{name} must be {expected}{where}; received {value!r}.")

    def to_dict(self) -> dict[str, Any]:
        """Return the settings as a dictionary that `json.dumps` takes."""
        return {field.name: _plain(getattr(self, field.name)) for field in dataclasses.fields(self)}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """Build the settings from a dictionary, refusing keys that do not exist, at each level."""
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
        nested = {field.name: field.default_factory for field in dataclasses.fields(cls)}
        try:
            return cls(
                **{
                    name: nested[name].from_dict(value)
                    if hasattr(nested[name], "from_dict")
                    else value
                    for name, value in values.items()
                }
            )
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
