"""The plan as it would be written in one layer: for people, for the API, and to load it again."""

from __future__ import annotations

from typing import Any

from vigil.plan import secrets as masks
from vigil.plan import values
from vigil.plan.fields import KINDS, fields_of
from vigil.plan.merge import Merged, merge
from vigil.plan.problems import Problems
from vigil.plan.tree import Node, Scalar, Sequence
from vigil.plan.types import Sources


def merged(sources: Sources, *, secrets: bool) -> dict[str, Any]:
    """The merged layers of a plan that is right: keys in kebab-case, scalars as the texts that the layers have.

    Loading it with the same env-files, certificates and users gives the same plan, but for the hashes of passwords,
    which are never shown. ``secrets`` False: nor is what looks like any other secret.
    """
    layers = merge(sources.layers, Problems())
    shown: dict[str, Any] = {key: _text(key, node, hide=not secrets) for key, node in layers.top.items()}
    for kind in KINDS:
        found = {**_settings(layers)} if kind == "alerts" else {}
        fields = fields_of(kind) if layers.kinds[kind] else {}
        for item in layers.kinds[kind].values():
            found[item.name] = {
                key: _alert_url(node, hide=not secrets)
                if kind == "alerts" and key == "url"
                else _value(key, node, fields[key].parse, hide=not secrets)
                for key, node in item.fields.items()
            }
        if found:
            shown[kind] = found
    return shown


def _settings(layers: Merged) -> dict[str, Any]:
    return {key: _text(key, node, hide=False) for key, node in layers.settings.items()}


def _value(key: str, node: Node, parse: values.Parser[Any], *, hide: bool) -> Any:
    if isinstance(node, Scalar):
        # A word out of few is no secret, whatever the name: ``on-check-failure: {auth: restart}``.
        open_to_all = isinstance(parse, values.Choice | values.Member | values.Integer | values.Duration)
        return node.text if open_to_all else _text(key, node, hide=hide)
    if isinstance(node, Sequence):
        words = [entry.text for entry in node.items if isinstance(entry, Scalar)]  # there are no other lists
        return masks.masked_argv(words) if hide and key == "command" else words
    if isinstance(parse, values.Block):
        nodes = parse.nodes(node, "", Problems())
        return {name: _value(name, value, parse.fields[name], hide=hide) for name, value in nodes.items()}
    item = parse.item if isinstance(parse, values.Mapped) else values.string
    entries = {entry.key: entry.value for entry in node.entries if not values.is_null(entry.value)}
    return {name: _value(name, value, item, hide=hide) for name, value in entries.items()}


def _text(key: str, node: Node, *, hide: bool) -> str:
    text = node.text if isinstance(node, Scalar) else ""
    if key == "password-hash":
        return masks.MASK
    return masks.masked(key, text) if hide else text


def _alert_url(node: Node, *, hide: bool) -> str:
    text = node.text if isinstance(node, Scalar) else ""
    return masks.masked_url(text) if hide else text
