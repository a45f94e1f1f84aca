"""``python -m vigil.daemon``: what vigild executes as control, with its own arguments."""

import gc
import sys

# Importing and reading a plan make much that stays and no garbage: looking for some costs 4 of the 50 ms to the first
# SPAWN. ``serve`` switches it on again.
gc.disable()

from vigil.daemon.main import main  # noqa: E402

sys.exit(main(sys.argv[1:]))
