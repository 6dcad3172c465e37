"""``python -m knowshift``."""

import sys

from knowshift.cli import main

sys.exit(main())
