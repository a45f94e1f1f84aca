"""Layers become one: trees go in, and for every key comes out the node that counts, which knows the file it came from.

Nothing is judged here but the shape that merging needs. What a later layer replaces or removes is kept aside, so that a
wrong value in it is reported although nobody will use it.
"""

from __future__ import annotations

import msgspec

from vigil.model.suggest import quote
from vigil.plan import tree
from vigil.plan.fields import ALIASES, KINDS, TOP, Field, Merge, fields_of
from vigil.plan.problems import Place, Problems
from vigil.plan.secrets import quoted
from vigil.plan.tree import Entry, Mapping, Node, Scalar, Sequence
from vigil.plan.types import NAME_MAX, RESERVED_NAME
from vigil.plan.values import is_null, keyed, refusal, warn_of_cut

_NAME_FIRST = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789")
_NAME_REST = _NAME_FIRST | frozenset("_.-")


class Item(msgspec.Struct):
    """A service (or check, alert, identity) on its way through the layers."""

    name: str
    place: Place  # where it is named first
    fields: dict[str, Node] = {}
    removed: dict[str, Scalar] = {}  # the nulls that removed or emptied a key, for messages about what is missing


class Merged(msgspec.Struct):
    """All layers as one. ``kinds`` has the items of ``services``, ``checks``, ``alerts`` and ``identities``."""

    layers: tuple[tuple[str, bytes], ...]  # that it is made of
    top: dict[str, Node]
    settings: dict[str, Node]  # of alerts
    kinds: dict[str, dict[str, Item]]
    discarded: list[tuple[str, Field, Node]]  # what no longer counts: the name of the field, the field, the value


def merge(layers: tuple[tuple[str, bytes], ...], problems: Problems) -> Merged:
    """All layers, first to last."""
    merged = Merged(layers, {}, {}, {kind: {} for kind in KINDS}, [])
    for path, content in layers:
        root = tree.parse(path, content, problems)
        if isinstance(root, Mapping):
            _merge_layer(merged, root, problems)
        elif root is not None and not is_null(root):
            problems.error(root.place, "", f"is {root.what}, not a mapping (a layer begins with services: or the like)")
            problems.broken = True
    return merged


def _merge_layer(merged: Merged, root: Mapping, problems: Problems) -> None:
    for key, entry in keyed(root, (*TOP, *KINDS), "", problems).items():
        if key in TOP:
            _apply(merged, merged.top, key, entry.value, TOP[key], key, problems)
        else:
            _merge_kind(merged, key, entry.value, problems)


def _merge_kind(merged: Merged, kind: str, node: Node, problems: Problems) -> None:
    items = merged.kinds[kind]
    if is_null(node):
        for item in items.values():
            _discard(merged, kind, item)
        items.clear()
        if kind == "alerts":
            settings = _settings_of_alerts() if merged.settings else {}
            merged.discarded.extend((f"{kind}.{key}", settings[key], value) for key, value in merged.settings.items())
            merged.settings.clear()
        return
    if not isinstance(node, Mapping):
        dashes = ", without dashes" if isinstance(node, Sequence) else ""
        text = f"is {node.what}, not a mapping (write a name, a colon, and its keys below{dashes})"
        problems.error(node.place, kind, text)
        problems.broken = True
        return
    settings = _settings_of_alerts() if kind == "alerts" else {}
    given: dict[str, int] = {}
    misplaced = _misplaced(kind, node)
    if misplaced:
        above = next((entry for entry in reversed(node.entries) if entry.place.line < misplaced[0].place.line), None)
        whom = f"to be a key of {quote(above.key)}" if above is not None else "below a name"
        text = f"stands where the names of {kind} do (indent it, {whom})"
        problems.error(misplaced[0].place, f"{kind}.{misplaced[0].key}", text)
        problems.broken = True
    for entry in node.entries:
        key = entry.key.replace("_", "-")
        if entry in misplaced or (misplaced and is_null(entry.value)):
            continue
        if key in settings:
            if key in given:
                text = f"duplicate key {quote(entry.key)} (it is in line {given[key]} under another spelling)"
                problems.error(entry.place, f"{kind}.{key}", text)
            given[key] = entry.place.line
            _apply(merged, merged.settings, key, entry.value, settings[key], f"{kind}.{key}", problems)
        elif _good_name(kind, entry, problems):
            _merge_item(merged, kind, entry, problems)


def _misplaced(kind: str, node: Mapping) -> list[Entry]:
    """Keys of a service (or check...) that stand one level too high, as when they are not indented enough."""
    known = fields_of(kind)
    return [
        entry
        for entry in node.entries
        if not isinstance(entry.value, Mapping) and not is_null(entry.value) and entry.key.replace("_", "-") in known
    ]


def _settings_of_alerts() -> dict[str, Field]:
    from vigil.plan.alerts import SETTINGS  # entered only by a plan that has alerts

    return SETTINGS


def _good_name(kind: str, entry: Entry, problems: Problems) -> bool:
    name = entry.key
    at = f"{kind}.{name if 0 < len(name) <= NAME_MAX else quote(name)}"
    if kind == "services" and name == RESERVED_NAME:
        problems.error(entry.place, at, f'the name "{RESERVED_NAME}" is reserved for vigild\'s own log (take another)')
    elif kind == "services" and (not name or name[0] not in _NAME_FIRST or set(name) - _NAME_REST):
        fix = "letters, digits, _ . and -, beginning with a letter or digit"
        problems.error(entry.place, at, f"{quote(name)} cannot be the name of a service ({fix})")
    elif not name or not name.isprintable() or name.strip() != name or "," in name:
        fix = "printable, without commas, and no blanks at its ends"
        problems.error(entry.place, at, f"{quote(name)} cannot be a name ({fix})")
    elif len(name) > NAME_MAX:
        problems.error(entry.place, at, f"the name is {len(name)} characters long ({NAME_MAX} at most)")
    else:
        return True
    return False


def _merge_item(merged: Merged, kind: str, entry: Entry, problems: Problems) -> None:
    items, name, node, fields = merged.kinds[kind], entry.key, entry.value, fields_of(kind)
    at = f"{kind}.{name}"
    if isinstance(node, Scalar) and node.is_null:
        if name in items:
            _discard(merged, kind, items.pop(name))
        elif not node.text:
            problems.warn(entry.place, at, "is empty, so there is no such thing (are the lines below it indented?)")
        return
    if not isinstance(node, Mapping):
        expected = f"a mapping{_as_keys(kind, name, node)}"
        if isinstance(node, Scalar) and kind in ("alerts", "identities"):  # a URL with a key in it, or a password
            problems.error(node.place, at, f"is {node.what}, not {expected}")
        else:
            problems.error(node.place, at, refusal(node, at, expected))
        problems.broken = True
        return
    found = keyed(node, fields, at, problems, ALIASES)
    mode = found.pop("override", None)
    if mode is not None and not is_null(mode.value):
        word = fields["override"].parse(mode.value, f"{at}.override", problems)
        if word == "replace" and name in items:
            _discard(merged, kind, items[name])
            items[name].fields, items[name].removed = {}, {}
    item = items.setdefault(name, Item(name, entry.place))
    for key, value in found.items():
        if _apply(merged, item.fields, key, value.value, fields[key], f"{at}.{key}", problems):
            item.removed.pop(key, None)
        elif isinstance(value.value, Scalar):
            item.removed[key] = value.value


def _as_keys(kind: str, name: str, node: Node) -> str:
    """How to write a service (or check...) that is no mapping."""
    if isinstance(node, Sequence):
        return " (leave out the dashes)"
    if not isinstance(node, Scalar):
        return ""
    if " = " in node.text:
        return " (write KEY: value, not KEY = value)"
    if kind == "services" and len(node.text) <= 60:
        return f" (write {{command: {quoted(node.text, name)}}})"
    return " (write its keys below, indented)"


def _apply(
    merged: Merged, fields: dict[str, Node], key: str, node: Node, field: Field, at: str, problems: Problems
) -> bool:
    """Puts the value of a later layer over what is there; False where it is null, which removes."""
    old = fields.get(key)
    if isinstance(node, Scalar) and node.is_null:
        if old is not None:
            merged.discarded.append((at, field, fields.pop(key)))
        if key != "command":  # without one it is told that it is nothing but a comment
            warn_of_cut(node, at, problems, careful=False)
        return False
    if field.merge is Merge.APPEND:
        if field.single:
            node = _listed(node)
        if isinstance(node, Sequence) and isinstance(old, Sequence):
            fields[key] = _append(old, node)
            return True
    elif field.merge is Merge.UNION and isinstance(node, Mapping) and (old is None or isinstance(old, Mapping)):
        fields[key] = _union(merged, old, node, field, at, problems)
        return True
    if old is not None:
        merged.discarded.append((at, field, old))
    fields[key] = node
    return True


def _append(old: Sequence, new: Sequence) -> Sequence:
    present = {item.text for item in old.items if isinstance(item, Scalar)}
    missing = tuple(item for item in new.items if not (isinstance(item, Scalar) and item.text in present))
    return Sequence(new.place, old.items + missing)


def _union(merged: Merged, old: Mapping | None, new: Mapping, field: Field, at: str, problems: Problems) -> Mapping:
    fold = field.fold or str
    entries = {fold(entry.key): entry for entry in old.entries} if old is not None else {}
    given: set[str] = set()
    for entry in new.entries:
        name = fold(entry.key)
        if name in given:
            problems.error(entry.place, at, f"duplicate key {quote(entry.key)} (it is there under another spelling)")
        given.add(name)
        earlier = entries.pop(name, None)
        if earlier is not None:
            merged.discarded.append((at, field, Mapping(earlier.place, (earlier,))))
        if not is_null(entry.value):
            entries[name] = entry
        elif earlier is None and isinstance(entry.value, Scalar) and not entry.value.text:
            if ":" in entry.key:  # and what follows it may be a secret
                problems.warn(entry.place, at, 'a name without a value (write a blank behind its ":")')
            else:
                text = 'is empty, so it is not set (write "" for an empty value)'
                problems.warn(entry.place, f"{at}.{entry.key}", text)
    return Mapping(new.place, tuple(entries.values()))


def _listed(node: Node) -> Node:
    return Sequence(node.place, (node,)) if isinstance(node, Scalar) else node


def _discard(merged: Merged, kind: str, item: Item) -> None:
    fields = fields_of(kind)
    for key, node in item.fields.items():
        merged.discarded.append((f"{kind}.{item.name}.{key}", fields[key], node))
