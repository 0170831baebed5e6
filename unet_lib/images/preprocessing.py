"""Bring an image to the network's size, and the network's output back to the image's size."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from unet_lib.settings import Settings

_ROUNDING = 1e-5  # how far arithmetic may carry a probability out of [0, 1]


@dataclass(frozen=True)
class Geometry:
    """Where an image of any size lies in the network's square input; all in pixels."""

    height: int  # of the original image
    width: int
    resized_height: int  # of the image inside the square
    resized_width: int
    top: int  # its first row and column there
    left: int

    @property
    def window(self) -> tuple[slice, slice]:
        """Rows and columns of the square that hold the image."""
        return (
            slice(self.top, self.top + self.resized_height),
            slice(self.left, self.left + self.resized_width),
        )


@dataclass(frozen=True)
class Prepared:
    """An image at the network's size."""

    image: np.ndarray  # float32 (S, S, 1) in [0, 1]; padding is 0
    mask: np.ndarray | None  # bool (S, S), for training only: scores are of the original size
    geometry: Geometry


@dataclass(frozen=True)
class Preprocessing(Settings):
    """How an image of any size becomes the network's square input.

    Attributes
    ----------
    size : int
        Side of the square, in pixels.
    keep_aspect : bool
        True: resize with the aspect ratio kept, centre, pad with 0. False: squeeze to the square.
    """

    size: int = 128
    keep_aspect: bool = True

    def __post_init__(self) -> None:
        self.check(size=(8, 4096))

    def geometry(self, height: int, width: int) -> Geometry:
        """Return where an image of `height` x `width` pixels comes to lie in the square."""
        if height < 1 or width < 1:
            raise ValueError(f"An image of {height} x {width} pixels has no content.")
        if not self.keep_aspect:
            return Geometry(height, width, self.size, self.size, 0, 0)
        longest = max(height, width)
        new_height = max(1, round(height * self.size / longest))
        new_width = max(1, round(width * self.size / longest))
        top, left = (self.size - new_height) // 2, (self.size - new_width) // 2
        return Geometry(height, width, new_height, new_width, top, left)

    def apply(self, image: np.ndarray, mask: np.ndarray | None = None) -> Prepared:
        """Resize and pad an image (and its mask) to the square.

        Shrinking takes the mean over the area of each new pixel, enlarging is bilinear. A mask is
        resized as fractions of lesion and cut at one half.

        Parameters
        ----------
        image : ndarray of float, shape (H, W, 1)
            Values in ``[0, 1]``, as `read_image` returns.
        mask : ndarray of bool, shape (H, W), optional

        Raises
        ------
        ValueError
            Other shape, type or range.
        """
        shape = getattr(image, "shape", ())
        if len(shape) != 3 or shape[2] != 1 or not image.size or image.dtype.kind != "f":
            raise ValueError(
                "The image must be a float array of shape (H, W, 1), as read_image returns, not "
                f"{getattr(image, 'dtype', type(image).__name__)} {shape}."
            )
        image = image[..., 0].astype(np.float32)
        low, high = float(image.min()), float(image.max())
        if not (low >= 0.0 and high <= 1.0):  # also NaN
            raise ValueError(
                f"The image must lie in [0, 1]; it has values from {low:g} to {high:g}."
            )
        geometry = self.geometry(*image.shape)
        square = np.zeros((self.size, self.size, 1), np.float32)
        size = geometry.resized_height, geometry.resized_width
        square[(*geometry.window, 0)] = np.clip(_resize(image, *size), 0.0, 1.0)
        if mask is None:
            return Prepared(square, None, geometry)
        if not isinstance(mask, np.ndarray) or mask.dtype != bool or mask.shape != image.shape:
            raise ValueError(
                f"The mask must be a bool array of shape {image.shape}, like its image, not "
                f"{getattr(mask, 'dtype', type(mask).__name__)} {getattr(mask, 'shape', '')}."
            )
        square_mask = np.zeros((self.size, self.size), bool)
        square_mask[geometry.window] = _resize(mask.astype(np.float32), *size) >= 0.5
        return Prepared(square, square_mask, geometry)

    def restore(self, probabilities: np.ndarray, geometry: Geometry) -> np.ndarray:
        """Bring a map at the network's size back to the original image: cut the padding, resize.

        Parameters
        ----------
        probabilities : ndarray of float, shape (S, S) or (S, S, 1)
        geometry : Geometry
            Of the same image, from `apply`.

        Returns
        -------
        ndarray of float32, shape (H, W)
            Enlarged bilinearly, shrunk by area mean; what rounding moves out of ``[0, 1]`` is
            cut.

        Raises
        ------
        ValueError
            The map is not S x S, holds NaN or values outside ``[0, 1]``, or the geometry belongs
            to another size.
        """
        square, expected = (self.size, self.size), self.geometry(geometry.height, geometry.width)
        if probabilities.shape not in (square, (*square, 1)) or geometry != expected:
            raise ValueError(
                f"Expected probabilities of shape {square} and {expected}; received shape "
                f"{probabilities.shape} and {geometry}."
            )
        inside = probabilities.reshape(square).astype(np.float32)[geometry.window]
        low, high = float(inside.min()), float(inside.max())
        if not (low >= -_ROUNDING and high <= 1 + _ROUNDING):  # also NaN
            raise ValueError(
                f"The network gives values from {low:g} to {high:g}; probabilities lie in [0, 1]. "
                "End it with a sigmoid; with NaN the network is broken."
            )
        return np.clip(_resize(inside, geometry.height, geometry.width), 0.0, 1.0)


def _resize(values: np.ndarray, height: int, width: int) -> np.ndarray:
    """Resize (H, W) float32: area mean along axes that shrink, bilinear along those that grow."""
    small = min(height, values.shape[0]), min(width, values.shape[1])
    if small != values.shape:
        values = cv2.resize(values, small[::-1], interpolation=cv2.INTER_AREA)
    if small != (height, width):
        values = cv2.resize(values, (width, height), interpolation=cv2.INTER_LINEAR)
    return values
