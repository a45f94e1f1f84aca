"""The logs as control has them: made here, written by logger, read without disturbing it."""

from __future__ import annotations

from vigil.logs.feed import Follower
from vigil.logs.store import LogStore

__all__ = ["Follower", "LogStore"]
