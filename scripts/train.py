#!/usr/bin/env python
"""Train: ``python scripts/train.py --config NAME|PATH [key=value …]``. The same as ``rlray train``."""

import sys

from rlray.cli import train_main

if __name__ == "__main__":
    sys.exit(train_main())
