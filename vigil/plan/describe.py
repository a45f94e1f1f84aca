"""What each key of a plan means, in a sentence or two, for editors. A key without one fails the schema's making."""

from __future__ import annotations

_WHO = {
    "user": "The user to run as, by name. Brings its groups, HOME, USER and LOGNAME.",
    "user-id": "The user to run as, by number. One without a passwd entry needs group-id.",
    "group": "The primary group, by name, in place of the user's own.",
    "group-id": "The primary group, by number, in place of the user's own.",
}

_OVERRIDE = "What this layer does to the entry of this name in earlier layers: merge into it, or replace all of it."

_POLICY = (
    "restart (with a growing delay), ignore, or end the container: shutdown with this service's exit code,"
    " failure-shutdown never with 0, success-shutdown with 0."
)

KEYS: dict[str, dict[str, str]] = {
    "layer": {
        "summary": "What this plan is, in a line.",
        "description": "What this plan is, at length.",
        "services": "What runs, by name.",
        "checks": "How services are looked at, by name: http, tcp or exec.",
        "alerts": "Who is told when a check goes down or up, by name; and settings of all alerts.",
        "identities": "Who may use the API, by name.",
    },
    "service": {
        "override": _OVERRIDE,
        "summary": "What the service is, in a line.",
        "description": "What the service is, at length.",
        "command": (
            "The program and its arguments. A text is split as a shell splits words (quotes and backslashes, no"
            " variables, no pipes); a list is taken as it is."
        ),
        "startup": "Whether it is started with vigild.",
        "after": "Services that must be active before this one starts, where they are on their way.",
        "before": "Services that wait for this one: after, said from the other side.",
        "requires": (
            "Services that must be active before this one starts. Starting it starts them; it stops when one of them"
            " becomes inactive or fails, and comes back with it."
        ),
        "environment": "Variables, added to those of vigild.",
        "env-file": "Files of KEY=VALUE lines, read with the plan. environment wins over them.",
        **_WHO,
        "working-dir": "The directory that it runs in.",
        "stop-signal": "The signal that asks it to stop: SIGTERM, USR1, 10, SIGRTMIN+3.",
        "kill-delay": "How long a stop waits before SIGKILL; infinity waits for ever.",
        "forward-signals": "Which signals that are sent to the container reach this service; none is none.",
        "on-success": f"When it ends with success: {_POLICY} A oneshot has ignore by default.",
        "on-failure": f"When it ends with failure: {_POLICY}",
        "success-exit-codes": "The exit codes that are success.",
        "on-check-failure": f"When a check goes down, by the check's name: {_POLICY}",
        "backoff-delay": "The wait before the first restart.",
        "backoff-factor": "What the wait grows by with each restart.",
        "backoff-limit": "The longest wait. A run that was active longer than this (10s at least) starts anew.",
        "restart-limit": "Give up after this many restarts without a good run. Without it: never.",
        "ready": "When it counts as active: notify (READY=1 by sd_notify), or check: NAME. Without it: once it runs.",
        "ready-timeout": "How long ready may take; then it is stopped, which counts as a failure.",
        "watchdog": "Without WATCHDOG=1 by sd_notify for this long it has failed.",
        "type": "simple runs for long. oneshot is done once it has exited with success, and others may wait for that.",
        "logs-forward": (
            "Its output: enabled is kept and written to the container's output, disabled is kept only, passthrough is"
            " the container's output itself, and nothing is kept."
        ),
        "logs-push-socket": "A Unix socket that its lines are pushed to as well.",
        "logs-push-addr": "HOST:PORT that its lines are pushed to as well, IPv6 in brackets.",
        "logs-push-format": "How lines are pushed.",
        "limits": "Resource limits, nofile: 1024 or nofile: 1024:4096 (soft and hard).",
        "nice": "Scheduling priority, from -20 (first) to 19 (last).",
        "umask": "File mode mask, in octal: 022.",
        "oom-score-adj": "From -1000 (never) to 1000 (first): whom the kernel kills when memory is short.",
        "stdin": "Its standard input: null is /dev/null, inherit is that of vigild.",
    },
    "check": {
        "override": _OVERRIDE,
        "level": "What it says about all: alive (else restart the container) or ready (else send no requests).",
        "startup": "Whether it runs from the start.",
        "delay": "The wait before the first run.",
        "period": "From the start of a run to the start of the next.",
        "timeout": "How long a run may take. Default: 3s, or the period where that is shorter.",
        "threshold": "How many failures in a row make it down.",
        "success-threshold": "How many successes in a row make it up again.",
        "http": "Healthy is an answer with the right status.",
        "tcp": "Healthy is a connection.",
        "exec": "Healthy is exit code 0.",
    },
    "http": {
        "url": "What to ask for: http:// or https://.",
        "headers": "Headers of the request.",
        "method": "Method of the request.",
        "success-statuses": "Status codes that are healthy: 200, [200, 404], 2xx.",
        "no-follow-redirects": "Whether a redirect is an answer like any other.",
        "insecure": "Whether any certificate will do.",
        "ca": "File with the certificates that the server's must come from.",
        "proxy": "Proxy to ask through. Without it none is used, whatever the environment says.",
        "insecure-proxy": "Whether any certificate of the proxy will do.",
        "body-contains": "A text that must be in the answer.",
        "unix-socket": "Unix socket to connect to, in place of the url's host and port.",
    },
    "tcp": {"host": "Name or address.", "port": "Port, from 1 to 65535."},
    "exec": {
        "command": "The program and its arguments, as of a service; no shell.",
        "service-context": "A service whose environment, user, group and working directory it gets; own keys win.",
        "environment": "Variables, added to those of vigild and of the service-context.",
        **_WHO,
        "working-dir": "The directory that it runs in.",
    },
    "settings": {
        "max-queue-depth": "How many deliveries of one alert may wait; the oldest is dropped.",
        "max-queue-time": "How old a delivery may get before it is dropped.",
    },
    "alert": {
        "override": _OVERRIDE,
        "url": "Where it is sent: http://, https:// or env:NAME.",
        "format": "What is sent.",
        "on-check": "Names of the checks that it tells about.",
        "headers": "Headers of the request. env:NAME is replaced as it is sent.",
        "labels": "Labels of what is sent. env:NAME is replaced as it is sent.",
        "send-info-fields": "More fields of what is sent. env:NAME is replaced as it is sent.",
        "tls-insecure": "Whether any certificate will do.",
        "tls-ca": "File with the certificates that the server's must come from, or env:NAME.",
        "proxy": "Proxy to send through, or env:NAME. Without it: HTTPS_PROXY, ALL_PROXY, HTTP_PROXY of vigild.",
        "proxy-ca": "File with the certificates that the proxy's must come from, or env:NAME.",
        "no-proxy": "Hosts without proxy, as in NO_PROXY: names, .domains, host:port, networks, *.",
        "retry-attempts": "How often a delivery is tried again.",
        "retry-backoff": "The waits before each try; the last one stands for all that follow.",
        "timeout": "How long a try may take. Default: 10s.",
        "body-template": (
            "Of a webhook: Jinja2 template of the JSON that is sent. It knows check, status, timestamp, labels, info."
        ),
    },
    "identity": {
        "override": _OVERRIDE,
        "access": "What it may do; each level includes those before it.",
        "local": "Who comes over the Unix socket: user-id: N, or {} for any local user.",
        "basic": "Who knows a password; the user name is the name of the identity.",
        "tls": "Who has a client certificate.",
    },
    "local": {"user-id": "The uid; any, where it is left out."},
    "basic": {"password-hash": "SHA-512-crypt hash, as openssl passwd -6 prints it."},
    "tls": {"ca-cert": "The certificate that clients' are issued under: its text, or the path of its file."},
}

DEPENDS = frozenset(("timeout",))
"""Keys whose default is more than a value, and in their description."""
