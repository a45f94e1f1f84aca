"""The engine and the image of tests/container, for the page about containers."""

from tests.container.conftest import image, podman

__all__ = ["image", "podman"]
