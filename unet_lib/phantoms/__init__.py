"""Synthetic B-mode phantoms of the breast, in memory or written in BUSI's own layout.

They stand in for BUSI where nothing was downloaded: the whole pipeline runs on them. They look like
ultrasound and are neither trivial nor impossible, but a score on them says nothing about patients.
"""

from unet_lib.phantoms.pictures import (
    KINDS,
    PHANTOM_MARKER,
    PhantomConfig,
    is_phantoms,
    make_phantom,
    make_phantoms,
    phantom_kind,
    phantom_pictures,
)

__all__ = [
    "KINDS",
    "PHANTOM_MARKER",
    "PhantomConfig",
    "is_phantoms",
    "make_phantom",
    "make_phantoms",
    "phantom_kind",
    "phantom_pictures",
]
