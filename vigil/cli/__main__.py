"""``python -m vigil.cli``."""

import sys

from vigil.cli.main import main

sys.exit(main())
