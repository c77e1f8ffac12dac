#!/usr/bin/env python
"""Measure a run: ``python scripts/evaluate.py --run DIR --episodes N --video``. The same as ``rlray evaluate``."""

import sys

from rlray.cli import evaluate_main

if __name__ == "__main__":
    sys.exit(evaluate_main())
