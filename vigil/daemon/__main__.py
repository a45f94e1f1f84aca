"""``python -m vigil.daemon``: what vigild executes as control, with its own arguments."""

import sys

from vigil.daemon.main import main

sys.exit(main(sys.argv[1:]))
