"""The HTTP API: Falcon on gunicorn's protocol, inside control's own loop.

``from vigil.api.server import serve`` loads Falcon and gunicorn (about 0.1 s): control does it in a thread, after its
first SPAWNs. ``from vigil.api.settings import Settings`` loads neither.
"""
