"""The limits that the API keeps, all in one place; tests shorten the times."""

from __future__ import annotations

import os
import resource

import msgspec


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """What a caller may cost. Sizes are bytes, times are seconds."""

    head_bytes: int = 16 * 1024
    body_bytes: int = 2 * 1024 * 1024
    head_seconds: float = 10.0  # from the first byte of a head (of the first: from the connection) to its end
    body_seconds: float = 30.0  # from the end of the head to the end of the body
    idle_seconds: float = 75.0  # between two requests of a connection
    stall_seconds: float = 60.0  # how long a reader may take nothing
    ping_seconds: float = 15.0  # silence after which an event stream gets a comment
    drain_bytes: int = (
        8 * 1024 * 1024
    )  # how much of a refused request is still read, so that the client sees the answer
    drain_seconds: float = 5.0
    connections: int = 0  # 0: min(1024, descriptors / 4)
    reserved: int = 16  # more, for uid 0 and vigild's own uid
    owner: int = -1  # the uid that may do everything besides 0; -1: that of this process

    def resolved(self) -> Settings:
        """The same with what depends on the process filled in."""
        soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
        room = 1024 if soft == resource.RLIM_INFINITY else max(8, min(1024, soft // 4))
        return msgspec.structs.replace(
            self,
            connections=self.connections or room,
            owner=os.geteuid() if self.owner < 0 else self.owner,
        )
