"""Alerts: their keys, and how merged fields become them. Entered only by a plan that has alerts."""

from __future__ import annotations

from typing import Any

from vigil.model.suggest import quote
from vigil.plan import values, web
from vigil.plan.fields import Field, Merge, names, override, positive
from vigil.plan.merge import Item, Merged
from vigil.plan.problems import Problems
from vigil.plan.tree import Node, Scalar, Sequence
from vigil.plan.types import Alert, AlertSettings

SETTINGS: dict[str, Field] = {
    "max-queue-depth": Field(positive),
    "max-queue-time": Field(values.positive_duration),
}
"""Keys of the block itself; all others are alerts."""

_text = web.Referring(values.string)
_texts = Field(values.Mapped(_text), Merge.UNION)
_path = Field(web.Referring(values.path))

ALERT: dict[str, Field] = {
    "override": override,
    "url": Field(web.Referring(web.Url(secret=True))),
    "format": Field(values.Choice("webhook", "alertmanager", "cloud-events", "otlp-logs")),
    "on-check": names,
    "headers": Field(web.Headers(web.Referring(web.header)), Merge.UNION, fold=str.lower),
    "labels": _texts,
    "send-info-fields": _texts,
    "tls-insecure": Field(values.boolean),
    "tls-ca": _path,
    "proxy": Field(web.Referring(web.Url())),
    "proxy-ca": _path,
    "no-proxy": Field(_text),
    "retry-attempts": Field(values.Integer(0, 2**31 - 1)),
    "retry-backoff": Field(values.Listed(values.duration)),
    "timeout": Field(values.positive_duration),
    "body-template": Field(values.string),
}


def settings(merged: Merged, problems: Problems) -> AlertSettings:
    """What holds for all alerts."""
    given = {}
    for key, node in merged.settings.items():
        value = SETTINGS[key].parse(node, f"alerts.{key}", problems)
        if value is not None:
            given[key.replace("-", "_")] = value
    return AlertSettings(**given)


def build(merged: Merged, problems: Problems, *, templates: bool) -> dict[str, Alert]:
    """All alerts that are right. ``templates``: try whether body-templates parse, which takes Jinja2 into the process.

    A template that is wrong is no error unless the plan is only checked: the alert goes out with the default body.
    """
    alerts = {}
    for item in merged.kinds["alerts"].values():
        alert = _alert(item, merged, problems)
        if alert is None:
            continue
        alerts[item.name] = alert
        if alert.body_template is not None:
            _judge_template(alert, alert.body_template, item.fields["body-template"], problems, parse=templates)
    return alerts


def _alert(item: Item, merged: Merged, problems: Problems) -> Alert | None:
    at = f"alerts.{item.name}"
    parsed = {key: ALERT[key].parse(node, f"{at}.{key}", problems) for key, node in item.fields.items()}
    given: dict[str, Any] = {key: value for key, value in parsed.items() if value is not None}
    for key in ("url", "on-check"):
        if key not in item.fields:
            place = item.removed[key].place if key in item.removed else item.place
            problems.consequence(place, f"{at}.{key}", f"is missing (write {key}: and its value)", at, key)
    if given.get("on-check") == ():
        problems.error(item.fields["on-check"].place, f"{at}.on-check", "is an empty list, so nothing would be sent")
    if given.get("retry-backoff") == ():
        problems.error(item.fields["retry-backoff"].place, f"{at}.retry-backoff", "is an empty list (write [1s])")
    _judge_names(at, item.fields.get("on-check"), merged, problems)
    if "url" not in given or "on-check" not in given:
        return None
    given["on-check"] = tuple(dict.fromkeys(given["on-check"]))
    return Alert(name=item.name, **{key.replace("-", "_"): value for key, value in given.items()})


def _judge_names(at: str, watched: Node | None, merged: Merged, problems: Problems) -> None:
    checks = merged.kinds["checks"]
    for name in watched.items if isinstance(watched, Sequence) and not problems.broken else ():
        if isinstance(name, Scalar) and not name.is_null and name.text not in checks:
            text = problems.absent("check", name.text, checks)
            problems.consequence(name.place, f"{at}.on-check", text, "", "checks")


def _judge_template(alert: Alert, template: str, node: Node, problems: Problems, *, parse: bool) -> None:
    at = f"alerts.{alert.name}.body-template"
    if alert.format != "webhook":
        problems.doubt(node.place, at, f"is not used with format {alert.format} (only a webhook has a body of its own)")
    elif parse:
        fault = _template_fault(template)
        if fault:
            problems.doubt(node.place, at, fault)


def _template_fault(template: str) -> str:
    """What is wrong with a template; nothing of it is executed or computed."""
    from jinja2 import TemplateSyntaxError, nodes  # a plan with templates pays for it, and not before services start
    from jinja2.sandbox import SandboxedEnvironment

    environment = SandboxedEnvironment()
    try:
        tree = environment.parse(template)
    except TemplateSyntaxError as error:
        return f"does not parse: {error.message} (in its line {error.lineno})"
    except RecursionError:
        return "does not parse: it is nested too deep"
    for kind, known in ((nodes.Filter, environment.filters), (nodes.Test, environment.tests)):
        for found in tree.find_all(kind):
            if found.name not in known:
                word = kind.__name__.lower()
                return f"does not parse: there is no {word} {quote(found.name)} (in its line {found.lineno})"
    for statement in (nodes.Extends, nodes.Include, nodes.Import, nodes.FromImport):
        for taken in tree.find_all(statement):
            return f"cannot be rendered: there are no other templates to take in (in its line {taken.lineno})"
    return ""
