"""What the program tells the overlord once, at its start."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from vigil.plan.types import Plan
from vigil.shim.messages import Format


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """Settings of one boot of a plan; the same again for every control of that boot."""

    plan: Plan
    environment: Mapping[bytes, bytes] = {}  # vigild's own; what services must not see of it is left out here
    forward_format: Format = Format.TEXT
    version: str = ""  # control's
    began_real_ns: int = 0  # when this boot did; 0: with vigild
    http_address: str | None = None
    https_address: str | None = None
