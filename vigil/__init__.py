"""vigil: a container supervisor. ``docs/architecture.md`` tells which room holds what."""

__version__ = "0.1.0"
