"""Contexts of TLS, shared: one that trusts the system's certificates takes 20 ms and 840 kB to make.

A file of certificates that was changed is read again with the next connection.
"""

from __future__ import annotations

import os
import ssl
import threading
from collections import OrderedDict

_BUNDLES = (
    "/etc/ssl/certs/ca-certificates.crt",  # Debian, Alpine, Arch
    "/etc/pki/tls/certs/ca-bundle.crt",  # Fedora
    "/etc/ssl/ca-bundle.pem",  # SUSE
    "/etc/ssl/cert.pem",  # Alpine without ca-certificates
)
_KEPT = 64  # contexts; a plan has a handful

_Key = tuple[bool, str, tuple[int, int, int]]

_lock = threading.Lock()
_contexts: OrderedDict[_Key, ssl.SSLContext] = OrderedDict()
_making: dict[_Key, threading.Lock] = {}


def context(*, insecure: bool, ca: str | None) -> ssl.SSLContext:
    """The context for these two. OSError where ``ca`` cannot be read, ssl.SSLError where it holds no certificate."""
    path = "" if insecure else ca if ca is not None else _of_system()
    status = os.stat(path) if path else None
    key = (insecure, path, (0, 0, 0) if status is None else (status.st_mtime_ns, status.st_size, status.st_ino))
    with _lock:
        making = _making.setdefault(key, threading.Lock())
    with making:  # once, also where fifty checks begin together; a file that cannot be read now delays no other
        try:
            with _lock:
                found = _contexts.get(key)
            if found is None:
                found = _make(insecure, path)
        finally:
            with _lock:
                _making.pop(key, None)
        with _lock:
            for old in [old for old in _contexts if old[:2] == key[:2] and old != key]:
                del _contexts[old]  # of the file as it was
            _contexts[key] = found
            _contexts.move_to_end(key)
            if len(_contexts) > _KEPT:
                _contexts.popitem(last=False)
    return found


def _make(insecure: bool, path: str) -> ssl.SSLContext:
    made = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    made.set_alpn_protocols(["http/1.1"])
    if insecure:
        made.check_hostname = False
        made.verify_mode = ssl.CERT_NONE
    elif not path:
        made.load_default_certs()
    elif os.path.isdir(path):
        made.load_verify_locations(capath=path)
    else:
        made.load_verify_locations(cafile=path)
    return made


def _of_system() -> str:
    """The bundle of the system, of a usual place, or the one that comes with requests. Empty: OpenSSL knows better."""
    paths = ssl.get_default_verify_paths()
    for bundle in (paths.cafile, *_BUNDLES):  # typeshed says that the two are always there; they may be None
        if bundle and os.path.exists(bundle):
            return bundle
    if paths.capath and os.listdir(paths.capath):
        return ""
    import certifi

    return certifi.where()
