"""What is vigild's own in control's environment."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

from vigil.daemon.environment import of_vigild


def test_vigilds_own_variables_stay_and_what_was_added_goes():
    environ = {b"A": b"\xff", b"VIGIL_SOCKET": b"/x", b"VIGIL_LINK": b"3", b"LC_CTYPE": b"C.UTF-8"}
    assert of_vigild(environ) == {b"A": b"\xff", b"VIGIL_SOCKET": b"/x"}
    environ = {b"LC_CTYPE": b"C.UTF-8", b"VIGIL_LINK": b"3"}
    assert of_vigild(environ) == {b"LC_CTYPE": b"C.UTF-8"}
    assert of_vigild({b"LC_CTYPE": b"C.UTF-8", b"B": b""}) == {b"LC_CTYPE": b"C.UTF-8", b"B": b""}


@pytest.mark.parametrize("given", [{}, {"LC_CTYPE": "C.UTF-8"}, {"LANG": "C"}, {"LC_ALL": "C.UTF-8"}])
def test_what_python_adds_for_itself_is_not_passed_on(given):
    """Python in the C locale sets LC_CTYPE for its children; here it is asked what it did."""
    program = "import json, os; from vigil.daemon.environment import of_vigild as f;"
    program += "print(json.dumps({k.decode(): v.decode() for k, v in f(os.environb).items()}))"
    done = subprocess.run(
        [sys.executable, "-c", program],
        env={"PATH": os.environ["PATH"], "PYTHONPATH": os.getcwd(), **given, "VIGIL_LINK": "3"},
        capture_output=True,
        check=True,
    )
    assert json.loads(done.stdout) == {"PATH": os.environ["PATH"], "PYTHONPATH": os.getcwd(), **given}
