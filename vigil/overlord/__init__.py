"""The overlord: owns the plan and the services' actors, routes commands and events, decides the order."""

from vigil.overlord.overlord import Overlord
from vigil.overlord.settings import Settings

__all__ = ["Overlord", "Settings"]
