"""The compiled half: structs of the wire, format and readers of logs. ``csrc/ext/ext.h`` and ``csrc/protocol.h`` say what there is."""

from __future__ import annotations

from vigil._native._vigil import ffi, lib

__all__ = ["ffi", "lib"]
