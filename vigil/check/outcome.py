"""What a probe of any kind says."""

from __future__ import annotations

import msgspec


class Probed(msgspec.Struct, frozen=True):
    """``short``: it could not be made, for want of threads, processes, memory or descriptors."""

    ok: bool
    reason: str = ""  # why it is not ok
    short: bool = False
