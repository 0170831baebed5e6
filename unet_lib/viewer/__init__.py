"""The local page: drop pictures, see their masks; nothing leaves the machine."""

from unet_lib.viewer.page import serve

__all__ = ["serve"]
