"""JSON Schema of one layer (draft-07, which editors know), out of the tables that validate.

    vigil plan schema > vigil.schema.json

and in the first line of a layer, for the YAML extension of VS Code and whatever else speaks to yaml-language-server:

    # yaml-language-server: $schema=./vigil.schema.json

or, for all layers of a folder, in the settings: ``"yaml.schemas": {"./vigil.schema.json": "layers/*.yaml"}``.

It refuses nothing that vigil takes. What needs more than one layer, or the machine, it cannot see: missing keys, names
that nobody has, cycles, users; that is for ``vigil plan check``.
"""

from __future__ import annotations

from typing import Any

import msgspec

from vigil.model import duration as durations
from vigil.model import signals
from vigil.plan import alerts, checks, describe, fields, foreign, identities, limits, values, web
from vigil.plan.fields import KINDS, fields_of
from vigil.plan.types import (
    NAME_MAX,
    RESERVED_NAME,
    Alert,
    AlertSettings,
    Check,
    ExecProbe,
    HttpProbe,
    Identity,
    Policy,
    Service,
    TcpProbe,
)
from vigil.plan.values import Parser

Schema = dict[str, Any]

_SCALAR = ["string", "number", "boolean"]  # a text is what was written, whatever an editor's YAML takes it for
_REFERENCE = "^env:[A-Za-z_][A-Za-z0-9_]*$"
_NUMBER = r"(?:[0-9]+\.?[0-9]*|\.[0-9]+)"
_DURATION = r"(?=[0-9.])" + "".join(f"(?:{_NUMBER}{unit} *)?" for unit in ("d", "h", "m", "s", "ms", "[uµμ]s"))
_LIMIT = "(?:[0-9]+|infinity|unlimited)"
_HASH = "[./0-9A-Za-z]"


def schema() -> Schema:
    """The schema, as something that JSON can hold."""
    definitions: dict[str, Schema] = {}
    for kind, (name, struct) in _OF_KIND.items():
        keys = {key: field.parse for key, field in fields_of(kind).items()}
        definitions[name] = _object(name, keys, struct, definitions)
        definitions[name]["patternProperties"] |= _hints(foreign.OF_KIND[kind], keys)
        if name in _RULES:
            definitions[name]["allOf"] = _RULES[name]
        for alias, key in fields.ALIASES.items():
            shape = {"$ref": f"#/definitions/{name}/properties/{key}"}
            definitions[name]["patternProperties"][f"^{_spellings(alias)}$"] = shape
    layer = _object("layer", {key: field.parse for key, field in fields.TOP.items()}, None, definitions)
    layer["properties"] |= {
        kind: {"description": describe.KEYS["layer"][kind], **_or_null(_by_name(kind, definitions))} for kind in KINDS
    }
    layer["patternProperties"] = _hints(foreign.OF_TOP, layer["properties"])
    return {
        "$schema": "http://json-schema.org/draft-07/schema#",
        "title": "A layer of a plan of vigil",
        **layer,
        "definitions": definitions,
    }


def _hints(words: dict[str, str], keys: dict[str, Any]) -> dict[str, Schema]:
    """Words of other supervisors are refused with what to write instead."""
    plain = {key.replace("-", "") for key in keys}
    by_advice: dict[str, list[str]] = {}
    for word, advice in words.items():
        if word not in plain:
            by_advice.setdefault(advice, []).append("[-_]?".join(word))
    return {
        f"^(?:{'|'.join(spelled)})$": {"type": "null", "errorMessage": advice} for advice, spelled in by_advice.items()
    }


def _by_name(kind: str, definitions: dict[str, Schema]) -> Schema:
    names: Schema = {"pattern": r"^[^,\s]([^,]*[^,\s])?$", "maxLength": NAME_MAX}
    if kind == "services":
        names["pattern"] = f"^(?!{RESERVED_NAME}$)[A-Za-z0-9][A-Za-z0-9_.-]*$"
    one = {"$ref": f"#/definitions/{_OF_KIND[kind][0]}"}
    if kind != "alerts":
        return {"type": "object", "propertyNames": names, "additionalProperties": one}
    settings = {key: field.parse for key, field in alerts.SETTINGS.items()}
    definitions["settings"] = _object("settings", settings, AlertSettings, definitions)
    return {**definitions["settings"], "type": "object", "propertyNames": names, "additionalProperties": one}


def _object(
    name: str, keys: dict[str, Parser[Any]], struct: type[msgspec.Struct] | None, definitions: dict[str, Schema]
) -> Schema:
    """A mapping with keys of ours, in both spellings; each may be null, which removes it."""
    defaults = _defaults(struct) if struct is not None else {}
    described = {}
    for key, parse in keys.items():
        shape = _or_null(_shape(parse, definitions, key))
        text = describe.KEYS[name][key]
        default = _spelled(parse, defaults.get(key))
        if default is not None and key not in describe.DEPENDS:
            shown = default if isinstance(default, str) else msgspec.json.encode(default).decode()
            text, shape = f"{text} Default: {shown}.", {**shape, "default": default}
        described[key] = {"description": text, **shape}
    return {
        "type": ["object", "null"],
        "properties": described,
        "patternProperties": {
            f"^(?!{key}$){_spellings(key)}$": {"$ref": f"#/definitions/{name}/properties/{key}"}
            for key in keys
            if "-" in key
        },
        "additionalProperties": False,
    }


def _spellings(key: str) -> str:
    """kebab-case and snake_case, and whatever lies between."""
    return key.replace("-", "[-_]")


def _or_null(shape: Schema) -> Schema:
    if "$ref" in shape:  # beside it nothing counts in draft-07, and what it names may be null itself
        return {"allOf": [shape]}
    if "anyOf" in shape:
        return {**shape, "anyOf": [*shape["anyOf"], {"type": "null"}]}
    if "enum" in shape:
        return {**shape, "enum": [*shape["enum"], None]}
    kinds = shape["type"] if isinstance(shape["type"], list) else [shape["type"]]
    return {**shape, "type": [*kinds, "null"]}


def _shape(parse: Parser[Any], definitions: dict[str, Schema], name: str) -> Schema:
    """What a parser takes."""
    if parse in _FUNCTIONS:
        return _FUNCTIONS[parse]
    match parse:
        case values.Integer(low=low, high=high):
            return {
                "type": ["integer", "string"],
                "minimum": low,
                "maximum": high,
                **_pattern("[-+]?[0-9]+", "a number"),
            }
        case values.Duration(words_for_none=words, positive=positive):
            zero = "" if positive else r"0|0\.0|"
            pattern = "|".join((*words, rf"{zero}\s*{_DURATION}\s*"))
            shape = {"type": "string", **_pattern(pattern, durations.EXAMPLES), "errorMessage": durations.EXAMPLES}
            if positive:
                return shape
            # A number is one without a unit, and 0 needs none.
            number = {"if": {"type": "number"}, "then": {"enum": [0], "errorMessage": durations.EXAMPLES}}
            return {**shape, "type": ["string", "number"], **number}
        case values.Choice(options=options):
            return {"enum": list(options)}
        case values.Member(choice=choice):
            return {"enum": list(choice.options)}
        case values.OneOrListed(item=item):
            one = _shape(item, definitions, name)
            return {"anyOf": [one, {"type": "array", "items": one}]}
        case values.Listed(item=item):
            return {"type": "array", "items": _shape(item, definitions, name)}
        case web.Headers(item=item):
            token = r"[!#$%&'*+.^_`|~0-9A-Za-z-]+"
            return {**_mapping(_shape(item, definitions, name)), "propertyNames": {"pattern": f"^{token}$"}}
        case values.Mapped(item=item):
            return _mapping(_shape(item, definitions, name))
        case web.Referring(inner=inner):
            shape = _shape(inner, definitions, name)
            pattern, hint = shape.get("pattern", r"^(?!env:\S*$)"), shape.get("patternErrorMessage", "write a text")
            return {**shape, "pattern": f"{_REFERENCE}|{pattern}", "patternErrorMessage": f"{hint}, or env:NAME"}
        case web.Url():
            host = r"(?:[^\s/?#]*@)?(?:\[[0-9a-fA-F:.%\w]+\]|[^\s/?#@:\[\]]+)(?::[0-9]{1,5})?"
            return {
                "type": "string",
                **_pattern(rf"[Hh][Tt][Tt][Pp][Ss]?://{host}(?:[/?#]\S*)?", "http://HOST:PORT/PATH"),
            }
        case values.Block(fields=keys, required=required):
            definitions[name] = _object(name, keys, _PROBES.get(name), definitions)
            if required:
                definitions[name]["allOf"] = [_given(key) for key in required]
            return {"$ref": f"#/definitions/{name}"}
    raise TypeError(f"cannot describe {name}: {parse!r}")


def _mapping(item: Schema) -> Schema:
    return {"type": "object", "additionalProperties": _or_null(item)}


def _pattern(pattern: str, example: str) -> Schema:
    """All of a text; an editor shows what to write instead of the pattern."""
    return {
        "pattern": f"^(?:{pattern})$",
        "patternErrorMessage": example if example.startswith("write") else f"write {example}",
    }


def _any_case(word: str) -> str:
    return "".join(f"[{letter}{letter.lower()}]" if letter.isalpha() else letter for letter in word)


def _signal(besides: frozenset[int] = frozenset()) -> Schema:
    """A signal, but for some."""
    names = [name for name in (*sorted(map(signals.name, range(1, 65))), *signals.ALIASES) if name.startswith("SIG")]
    plain = [name[3:] for name in names if "RTM" not in name and signals.parse(name) not in besides]
    real_time = f"{_any_case('RTM')}(?:{_any_case('IN')}|{_any_case('AX')})(?:[-+][0-9]+)?"
    pattern = f"(?:{_any_case('SIG')})?(?:{'|'.join(map(_any_case, plain))}|{real_time})"
    return {
        "type": ["string", "integer"],
        "minimum": 1,
        "maximum": 64,
        **_pattern(
            rf"\s*(?:{pattern}|[0-9]+)\s*",
            "SIGTERM, TERM, 15 or SIGRTMIN+3" if not besides else "SIGHUP, HUP, 1 or SIGRTMIN+3",
        ),
        "defaultSnippets": [{"label": f"SIG{name}", "body": f"SIG{name}"} for name in plain],
    }


def _limits() -> Schema:
    one = {
        "type": ["integer", "string"],
        "minimum": 0,
        **_pattern(f"{_LIMIT}(?::{_LIMIT})?", "1024, 1024:4096 or unlimited"),
    }
    names = [name for name in sorted(limits.resources()) if name != limits.OURS]
    return {
        "type": "object",
        "properties": {name: _or_null(one) for name in names},
        "patternProperties": {
            f"^(?!{name}$)(?:{_any_case('RLIMIT_')})?{_any_case(name.upper())}$": _or_null(one) for name in names
        },
        "additionalProperties": False,
    }


def _functions() -> dict[Any, Schema]:
    text: Schema = {"type": _SCALAR}
    path = {"type": "string", "pattern": "^/", "patternErrorMessage": "write a path that begins with /"}
    code: Schema = {
        "type": ["integer", "string"],
        "minimum": 100,
        "maximum": 599,
        **_pattern("[1-5](?:[0-9]{2}|[xX]{2})", "200 or 2xx"),
    }
    signal = _signal()
    letter = r"[^\s/@:\[\]]"  # of a host; an IPv6 address has two colons at least
    port = "[0-9]{1,5}"
    return {
        values.string: text,
        values.boolean: {
            "type": ["boolean", "string"],
            **_pattern("true|True|TRUE|false|False|FALSE", "true or false"),
        },
        values.factor: {"type": ["number", "string"], "minimum": 1, **_pattern(r"[-+.0-9eE]+", "2.0")},
        values.octal: {"type": ["integer", "string"], "minimum": 0, "maximum": 777, **_pattern("(?:0o)?[0-7]+", "022")},
        values.signal: signal,
        values.path: path,
        values.command: {"type": [*_SCALAR, "array"], "minLength": 1, "minItems": 1, "items": text},
        values.environment: {**_mapping(text), "propertyNames": {"pattern": "^[^=]+$"}},
        fields.forward_signals: {
            "anyOf": [{"type": "array", "items": _signal(fields.NOT_FORWARDED)}, {"enum": ["none"]}]
        },
        fields.exit_codes: {"type": "array", "items": {"type": ["integer", "string"], "minimum": 0, "maximum": 255}},
        fields.ready: {
            "anyOf": [
                {"enum": ["notify"]},
                {
                    "type": "object",
                    "properties": {"check": {"description": "The name of a check.", **text}},
                    "required": ["check"],
                    "additionalProperties": False,
                },
            ]
        },
        fields.address: {
            "type": "string",
            **_pattern(rf"(?:\[[^\]]+\]|[^:\[\]]+):{port}", "HOST:PORT, IPv6 in brackets"),
        },
        limits.parse: _limits(),
        web.header: {"type": _SCALAR, "pattern": "^[\\t -~\\u00a0-\\u00ff]*$"},
        checks.status: code,
        checks.statuses: {"anyOf": [code, {"type": "array", "minItems": 1, "items": code}]},
        checks.host: {
            "type": "string",
            **_pattern(rf"{letter}+|{letter}*:{letter}*:[^\s/@\[\]]*", "a name or an address, without a port"),
        },
        identities.password_hash: {
            "type": "string",
            "pattern": rf"^\$6\$(?:rounds=[0-9]+\$)?{_HASH}{{0,16}}\${_HASH}{{86}}$",
            "patternErrorMessage": "write what openssl passwd -6 prints",
        },
        identities.ca_cert: {
            "type": "string",
            "pattern": "^/|-----BEGIN CERTIFICATE-----",
            "patternErrorMessage": "write a path, or the text of a certificate",
        },
    }


def _given(key: str) -> Schema:
    """That a key is there, in one spelling or the other, and not null."""
    spellings = {key, key.replace("-", "_")}
    there = [{"required": [word], "properties": {word: {"not": {"type": "null"}}}} for word in sorted(spellings)]
    return there[0] if len(there) == 1 else {"anyOf": there}


def _not_both(first: str, second: str, why: str) -> Schema:
    """Editors show the message of a type that does not fit, and none of a ``not``."""
    nothing = {"type": "null", "errorMessage": why}
    return {"if": _given(first), "then": {"patternProperties": {f"^{_spellings(second)}$": nothing}}}


_RULES: dict[str, list[Schema]] = {
    "service": [
        _not_both("logs-push-socket", "logs-push-addr", "logs are pushed to one place: write socket or address"),
        {
            "if": {"required": ["type"], "properties": {"type": {"enum": ["oneshot"]}}},
            "then": {
                "patternProperties": {
                    "^on[-_]success$": {
                        "enum": [*(policy.value for policy in Policy if policy is not Policy.RESTART), None],
                        "errorMessage": "a oneshot that succeeded is done and cannot be restarted: write ignore",
                    }
                }
            },
        },
    ],
    "check": [
        _not_both(first, second, "a check has one of http, tcp and exec: make two checks of it")
        for first, second in (("http", "tcp"), ("http", "exec"), ("tcp", "exec"))
    ],
}


def _defaults(struct: type[msgspec.Struct]) -> dict[str, Any]:
    """What an object has for a key that a plan leaves out."""
    import msgspec.structs

    return {field.name.replace("_", "-"): field.default for field in msgspec.structs.fields(struct)}


def _spelled(parse: Parser[Any], value: Any) -> Any:
    """A default as a plan would write it; None where there is none to write."""
    if isinstance(parse, values.Duration) and value is None and "off" in parse.words_for_none:
        return "off"
    if value is None or value is msgspec.NODEFAULT or value in ("", ()):
        return None
    if isinstance(parse, values.Duration):
        return durations.spell(value)
    if isinstance(parse, values.Member):
        return value.value
    if parse is values.signal:
        return signals.name(value)
    if parse is fields.forward_signals:
        return [signals.name(number).removeprefix("SIG") for number in sorted(value)]
    if parse is checks.statuses:
        return "2xx"
    if isinstance(value, frozenset):
        return sorted(value)
    return [durations.spell(item) for item in value] if isinstance(value, tuple) else value


_OF_KIND: dict[str, tuple[str, type[msgspec.Struct]]] = {
    "services": ("service", Service),
    "checks": ("check", Check),
    "alerts": ("alert", Alert),
    "identities": ("identity", Identity),
}
_PROBES: dict[str, type[msgspec.Struct]] = {"http": HttpProbe, "tcp": TcpProbe, "exec": ExecProbe}
_FUNCTIONS = _functions()
