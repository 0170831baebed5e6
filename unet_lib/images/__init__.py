"""Read an image or a set of masks, check them, bring them to the network's size and back.

Images are float32 ``(H, W, 1)`` in ``[0, 1]``, masks are bool ``(H, W)``. A file that cannot be
used raises :class:`ImageError`, which names the file, what was expected and what was found.
"""

from unet_lib.images.decode import (
    IMAGE_SUFFIXES,
    is_dicom,
    is_picture,
    is_turned,
    name_of,
    read_frame,
    read_frames,
    read_image,
    read_pixels,
    read_size,
)
from unet_lib.images.frames import (
    Frame,
    ImageError,
    Region,
    as_grey,
    as_image,
    picture_name,
    pixel_size,
    write_image,
)
from unet_lib.images.masks import (
    MaskSet,
    oddity_of,
    read_mask_pixels,
    read_masks,
)
from unet_lib.images.outlines import is_outline, outlines_in
from unet_lib.images.preprocessing import Geometry, Prepared, Preprocessing

__all__ = [
    "IMAGE_SUFFIXES",
    "Frame",
    "Geometry",
    "ImageError",
    "MaskSet",
    "Prepared",
    "Preprocessing",
    "Region",
    "as_grey",
    "as_image",
    "is_dicom",
    "is_outline",
    "is_picture",
    "is_turned",
    "name_of",
    "oddity_of",
    "outlines_in",
    "picture_name",
    "pixel_size",
    "read_frame",
    "read_frames",
    "read_image",
    "read_mask_pixels",
    "read_masks",
    "read_pixels",
    "read_size",
    "write_image",
]
