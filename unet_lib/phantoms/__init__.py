"""Synthetic B-mode phantoms of the breast, in memory or written in BUSI's own layout.

They stand in for BUSI where nothing was downloaded: the whole pipeline runs on them. They look like
ultrasound and are neither trivial nor impossible, but a score on them says nothing about patients.
"""

from unet_lib.phantoms.picture import KINDS, Phantom, PhantomConfig, make_phantom, phantom_pictures
from unet_lib.phantoms.writing import (
    GENERATOR,
    PHANTOM_MARKER,
    is_phantoms,
    make_phantoms,
    phantom_kind,
)

__all__ = [
    "GENERATOR",
    "KINDS",
    "PHANTOM_MARKER",
    "Phantom",
    "PhantomConfig",
    "is_phantoms",
    "make_phantom",
    "make_phantoms",
    "phantom_kind",
    "phantom_pictures",
]
