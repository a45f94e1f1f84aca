"""The typed client of the API. ``from vigil.client.client import Client``; small, because every command pays for it."""
