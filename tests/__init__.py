"""Tests of vigil; a package, so that they can share modules by name."""
