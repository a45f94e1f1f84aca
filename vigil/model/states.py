"""What a service, a change and an exit can be; the values are what users see."""

from __future__ import annotations

from enum import Enum


class ServiceState(Enum):
    """State of a service (shown as ``current``)."""

    INACTIVE = "inactive"
    STARTING = "starting"
    ACTIVE = "active"
    STOPPING = "stopping"
    BACKOFF = "backoff"
    ERROR = "error"
    EXITED = "exited"  # a oneshot that is done


class ChangeStatus(Enum):
    """Status of a change and of each of its tasks."""

    DOING = "doing"
    DONE = "done"
    ERROR = "error"
    HOLD = "hold"


class Access(Enum):
    """Access levels, lowest first."""

    OPEN = "open"
    METRICS = "metrics"
    READ = "read"
    WRITE = "write"
    ADMIN = "admin"

    def allows(self, needed: Access) -> bool:
        """Whether a caller of this level may do what asks for ``needed``."""
        order = list(Access)
        return order.index(self) >= order.index(needed)
