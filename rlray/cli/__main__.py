"""``python -m rlray.cli``: the same as ``rlray``."""

import sys

from rlray.cli import main

sys.exit(main())
