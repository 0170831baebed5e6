"""The command line: the same functions as the notebooks."""

from unet_lib.cli.parser import main

__all__ = ["main"]
