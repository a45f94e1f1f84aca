"""The compiled half: structs of the wire, format and readers of logs (see csrc/protocol.h, ring.h, ext/ext.h)."""

from __future__ import annotations

from vigil._native._vigil import ffi, lib

__all__ = ["ffi", "lib"]
