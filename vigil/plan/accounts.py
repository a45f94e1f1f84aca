"""Users and groups by name become numbers, once, when a plan is read. Owns all questions to the user database.

Which of the four keys says what: ``user`` or ``user-id`` is who; both may be given where they agree. ``group`` or
``group-id`` replaces the primary group. The supplementary groups are those that the user database has for that user,
with the primary group among them; without an entry there, and where only a group is given, the primary group is all.
"""

from __future__ import annotations

import os
from collections.abc import Iterable

import msgspec

from vigil.model.suggest import quote
from vigil.plan.types import Account, Credentials

_NO_GROUP = " (make it in the image, or write group-id)"

_CAP_SETGID, _CAP_SETUID = 6, 7


class Request(msgspec.Struct, frozen=True):
    """What a service says about its user; at least one of the four is not None."""

    user: str | None = None
    user_id: int | None = None
    group: str | None = None
    group_id: int | None = None


class Own(msgspec.Struct, frozen=True):
    """Who vigild is, and what it may change."""

    uid: int
    gid: int
    may_set_uid: bool
    may_set_gid: bool


def own() -> Own:
    """This process: control has the ids and rights of PID 1, which starts the services."""
    rights = effective_capabilities()
    return Own(os.geteuid(), os.getegid(), bool(rights >> _CAP_SETUID & 1), bool(rights >> _CAP_SETGID & 1))


def resolve(requests: Iterable[Request], me: Own) -> tuple[Account, ...]:
    """An account, or an error, for each different request."""
    return tuple(_resolve(request, me) for request in dict.fromkeys(requests))


class _Refused(Exception):
    """``key`` is to blame. ``forbidden``: it would be right where vigild may more."""

    def __init__(self, key: str, text: str, *, forbidden: bool = False) -> None:
        super().__init__(text)
        self.key = key
        self.forbidden = forbidden


def _resolve(request: Request, me: Own) -> Account:
    credentials, error, key, forbidden = None, None, "user", False
    try:
        credentials = _credentials(request, me)
    except _Refused as refused:
        error, key, forbidden = str(refused), refused.key, refused.forbidden
    who = (request.user, request.user_id, request.group, request.group_id)
    return Account(*who, credentials, error=error, error_key=key, forbidden=forbidden)


def _credentials(request: Request, me: Own) -> Credentials:
    user_given = request.user is not None or request.user_id is not None
    gid = _group(request)
    uid, home, name = me.uid, None, None
    if user_given:
        entry = _user(request)
        if entry is not None:
            uid, name, home = entry[1], entry[0], entry[3]
            gid = entry[2] if gid is None else gid
        elif request.user_id is not None:
            uid, home = request.user_id, "/"
            if gid is None:
                raise _Refused("user-id", f"user id {uid} is not in the user database (give it a group-id)")
    if gid is None:
        gid = me.gid
    groups = tuple(dict.fromkeys((gid, *os.getgrouplist(name, gid)))) if name is not None else (gid,)
    return _allowed(request, Credentials(uid, gid, groups, home, name), me)


def _allowed(request: Request, wanted: Credentials, me: Own) -> Credentials:
    user_key = "user" if request.user is not None else "user-id"
    group_key = "group" if request.group is not None else "group-id" if request.group_id is not None else user_key
    fix = "start it as root, or leave the key out"
    if wanted.uid != me.uid and not me.may_set_uid:
        why = f"vigild runs as user id {me.uid} and may not start anything as user id {wanted.uid} ({fix})"
        raise _Refused(user_key, why, forbidden=True)
    if me.may_set_gid:
        return wanted
    if wanted.gid != me.gid or wanted.uid != me.uid:
        why = f"vigild runs with group id {me.gid} and may not start anything with group id {wanted.gid} ({fix})"
        raise _Refused(group_key, why, forbidden=True)
    return msgspec.structs.replace(wanted, switch=False)


def _user(request: Request) -> tuple[str, int, int, str] | None:
    """Name, uid, gid and home; None for a user id that the user database does not know."""
    import pwd  # most plans name no user

    try:
        if request.user is not None:
            entry = pwd.getpwnam(request.user)
            if request.user_id not in (None, entry.pw_uid):
                why = (
                    f"user {quote(request.user)} has the id {entry.pw_uid}, not {request.user_id} (give one of the two)"
                )
                raise _Refused("user-id", why)
        elif request.user_id is not None:
            entry = pwd.getpwuid(request.user_id)
    except (KeyError, ValueError):  # ValueError: a text that no user database could hold
        if request.user is None:
            return None
        raise _Refused("user", f"there is no user {quote(request.user)}{_as_two(request.user)}") from None
    except OSError as error:
        shown = quote(request.user) if request.user is not None else str(request.user_id)
        raise _Refused("user", f"cannot look up user {shown}: {error.strerror}") from None
    return entry.pw_name, entry.pw_uid, entry.pw_gid, entry.pw_dir or "/"


def _as_two(user: str) -> str:
    """How to write a number, or what docker calls a user, ``name:group``."""

    def key(kind: str, word: str) -> str:
        return f"{kind}-id: {word}" if word.isascii() and word.isdigit() else f"{kind}: {word}"

    name, colon, group = user.partition(":")
    if colon and name and group and ":" not in group and user.isprintable():
        return f" (write {key('user', name)}, and {key('group', group)})"
    if key("user", user).startswith("user-id"):
        return f" (write user-id: {user} if it is a number)"
    return " (make it in the image, or write user-id and group-id)"


def _group(request: Request) -> int | None:
    if request.group is None:
        return request.group_id
    import grp  # see _user

    try:
        number = grp.getgrnam(request.group).gr_gid
    except (KeyError, ValueError):
        numeric = request.group.isascii() and request.group.isdigit()
        hint = f" (write group-id: {request.group} if it is a number)" if numeric else _NO_GROUP
        raise _Refused("group", f"there is no group {quote(request.group)}{hint}") from None
    except OSError as error:
        raise _Refused("group", f"cannot look up group {quote(request.group)}: {error.strerror}") from None
    if request.group_id not in (None, number):
        why = f"group {quote(request.group)} has the id {number}, not {request.group_id} (give one of the two)"
        raise _Refused("group-id", why)
    return number


def effective_capabilities() -> int:
    """Of this process, as bits. Root has all of them unless told otherwise; where /proc is missing nobody tells."""
    try:
        with open("/proc/self/status", "rb") as status:
            for line in status:
                if line.startswith(b"CapEff:"):
                    return int(line.split()[1], 16)
    except OSError:
        pass
    return -1 if os.geteuid() == 0 else 0
