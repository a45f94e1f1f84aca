"""The command ``vigil``. Its usage text, in ``usage``, is its documentation."""
