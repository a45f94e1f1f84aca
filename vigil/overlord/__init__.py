"""The overlord: owns the plan and the services' actors, routes commands and events, decides the order."""

from vigil.overlord.overlord import NEXT_PLAN, Overlord
from vigil.overlord.settings import Settings

__all__ = ["NEXT_PLAN", "Overlord", "Settings"]
