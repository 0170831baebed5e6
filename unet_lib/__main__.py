"""``python -m unet_lib``."""

import sys

from unet_lib.cli import main

if __name__ == "__main__":
    sys.exit(main())
