"""Words of other supervisors, and of people who never saw this one, with what a plan says instead.

Looked at only when a word is wrong, so a right plan never loads this module. A word is compared without its case,
dashes and underscores: ``stopWaitSecs`` is ``stopwaitsecs``.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import NamedTuple

from vigil.plan.secrets import quoted
from vigil.plan.tree import Mapping, Node, Scalar

_NOT_HERE = "leave it out: that is the container's"
_LINES = "leave it out: both streams are always captured, and logs-forward says whether they are passed on"
_TREE = "leave it out: a stop always ends all that a service has started"
_CLOCK = "nothing here is started by the clock: run cron as a service"


def _each(words: str, advice: str) -> dict[str, str]:
    return dict.fromkeys(words.split(), advice)


# Keys of a service, from supervisord, systemd, docker-compose, s6, dinit, pm2, circus, process-compose, Kubernetes.
OF_SERVICE = {
    **_each("autostart enabled enable wantedby requiredby boot", "write startup: enabled"),
    **_each("disabled manual", "write startup: disabled"),
    **_each("autorestart restart restartpolicy", "write on-failure and on-success: restart or ignore"),
    **_each("startretries maxrestarts startlimitburst retries restartlimitcount maxretry", "write restart-limit"),
    **_each("startsecs minuptime warmupdelay", "leave it out: a start is done once the service stayed up for 1 s"),
    **_each("restartsec restartdelay backoff throttleinterval", "write backoff-delay"),
    **_each("exitcodes successexitstatus", "write success-exit-codes"),
    **_each(
        "stopwaitsecs stopgraceperiod timeoutstopsec timeoutkill killtimeout stoptimeout "
        "terminationgraceperiodseconds gracefultimeout gracefulperiod exittimeout",
        "write kill-delay",
    ),
    **_each("killsignal downsignal termsignal signal", "write stop-signal"),
    **_each("stopasgroup killasgroup killmode sendsighup", _TREE),
    **_each("numprocs instances numprocesses replicas scale", "write one service for each"),
    **_each("dependson dependencies bindsto needs wants requisite", "write requires"),
    **_each("priority waitsfor order startafter", "write after, or requires"),
    **_each("directory cwd workdir workingdirectory chdir dir", "write working-dir"),
    **_each(
        "redirectstderr stdoutlogfile stderrlogfile stdoutlogfilemaxbytes stderrlogfilemaxbytes "
        "stdoutlogfilebackups stderrlogfilebackups standardoutput standarderror logfile loglocation "
        "outfile errorfile logging log logs stdout stderr",
        _LINES,
    ),
    **_each("execstart cmd entrypoint run script program exec", "write command"),
    **_each("args arguments parameters", "write them behind the program, in command"),
    **_each("shell usepty", "write command: sh -c '...'"),
    **_each("execstartpre prestart beforestart setup", "write a service of type: oneshot, and name it in requires"),
    **_each("execstop stopcommand down", "leave it out: a stop sends stop-signal"),
    **_each("execreload reload", "leave it out: vigil signal HUP NAME does that"),
    **_each("execstoppost finish poststop hooks", "leave it out: nothing is run after the end of a service"),
    **_each("env environ vars variables", "write environment: {NAME: value}"),
    **_each("environmentfile dotenv envfiles", "write env-file"),
    **_each("uid runasuser setuid", "write user-id"),
    **_each("gid runasgroup setgid", "write group-id"),
    **_each("runas username owner", "write user"),
    **_each("ulimits rlimits resources", "write limits: {nofile: 65536}"),
    **_each("oomscoreadjust oomscore", "write oom-score-adj"),
    **_each("healthcheck livenessprobe readinessprobe check probe", "write it below checks:"),
    **_each("timeoutstartsec startuptimeout starttimeout timeoutup", "write ready-timeout"),
    **_each("notificationfd notify waitready", "write ready: notify"),
    **_each("watchdogsec", "write watchdog"),
    **_each("remainafterexit", "write type: oneshot"),
    **_each("pidfile daemonize isdaemon forking", "leave it out: a service stays in the foreground"),
    **_each(
        "image build ports expose volumes networks networkmode hostname containername links capadd "
        "capdrop privileged deploy labels pullpolicy platform devices tmpfs dns extrahosts ipc pid "
        "readonly securityopt shmsize sysctls tty restartcount memlimit memory cpus imagepullpolicy "
        "volumemounts",
        _NOT_HERE,
    ),
    **_each("schedule cron interval oncalendar every", _CLOCK),
    **_each("name processname title", "leave it out: the key above is the name"),
    **_each("watch interpreter serverurl nodeargs", "leave it out: there is no such thing here"),
}

OF_CHECK = {
    **_each("url headers method successstatuses insecure ca proxy bodycontains unixsocket", "it belongs below http:"),
    **_each("host port", "it belongs below tcp:"),
    **_each("command servicecontext environment workingdir user", "it belongs below exec:"),
    **_each("type kind", "leave it out: http:, tcp: or exec: says that, with its keys below it"),
    **_each("httpget", "write http"),
    **_each("tcpsocket socket", "write tcp"),
    **_each("test cmd script", "write exec: {command: ...}"),
    **_each("interval periodseconds every schedule cron frequency", "write period: 10s"),
    **_each("retries failurethreshold failures attempts", "write threshold"),
    **_each("initialdelay initialdelayseconds startperiod graceperiod", "write delay"),
    **_each("timeoutseconds", "write timeout"),
    **_each("path scheme", "write the whole url below http:"),
    **_each("onfailure restart action", "write on-check-failure: {NAME: restart} in the service"),
    **_each("enabled autostart", "write startup: enabled"),
    **_each("disabled", "write startup: disabled"),
}

OF_ALERT = {
    **_each("check checks on when", "write on-check: [NAME]"),
    **_each("type kind", "write format"),
    **_each("webhook endpoint target address", "write url"),
    **_each("template body message payload", "write body-template"),
    **_each("retries attempts", "write retry-attempts"),
    **_each("backoff retrydelay", "write retry-backoff: [1s, 2s]"),
    **_each("annotations info", "write send-info-fields"),
    **_each("insecure skipverify", "write tls-insecure"),
    **_each("email to slack", "alerts go to a url"),
}

_HASH = "only a hash is kept: write password-hash, and what openssl passwd -6 prints"
OF_IDENTITY = {
    **_each("password passwordhash", "write basic: {password-hash: ...}"),
    **_each("userid uid user", "write local: {user-id: N}"),
    **_each("level role permission permissions", "write access"),
    **_each("cert cacert certificate ca", "write tls: {ca-cert: ...}"),
}

OF_KIND = {"services": OF_SERVICE, "checks": OF_CHECK, "alerts": OF_ALERT, "identities": OF_IDENTITY}

OF_TOP = {
    **_each(
        "processes programs program apps jobs tasks daemons units containers supervisord unit install "
        "processgroups watchers",
        "write services:, below it names, and below those their keys",
    ),
    **_each("version", "leave it out: a layer has none"),
    **_each("volumes networks configs secrets", _NOT_HERE),
    **_each("healthchecks probes monitors", "write checks"),
    **_each("notifications alerting webhooks", "write alerts"),
    **_each("users accounts auth", "write identities"),
    **_each("logtargets", "write logs-push-socket or logs-push-addr in the services"),
    **_each("include includes extends files", "leave it out: all *.yaml of the folder are read"),
}

_NO = frozenset(("no", "false", "off", "n", "0", "never"))

# Words in place of one of a few: by a word that tells the set of right ones.
_VALUES: dict[str, dict[str, str]] = {
    "failure-shutdown": {
        **_each(
            "yes true on y 1 always auto automatic boot unlessstopped onfailure unexpected respawn",
            "write restart",
        ),
        **_each("no false off n 0 never none manual stop nothing leave", "write ignore"),
        **_each("exit halt poweroff reboot abort terminate kill quit", "write shutdown"),
    },
    "oneshot": {
        **_each("forking daemon fork bgprocess", "write simple, and keep the program in the foreground"),
        **_each("notify", "write ready: notify, and leave type out"),
        **_each("longrun exec process service idle dbus normal scripted", "write simple"),
        **_each("job task once script init batch", "write oneshot"),
    },
    "enabled": {
        **_each("yes true on y 1 always auto automatic boot", "write enabled"),
        **_each("no false off n 0 never none manual", "write disabled"),
    },
    "inherit": {
        **_each("/dev/null none closed off no false empty", "write null"),
        **_each("tty console yes true on stdin /dev/stdin", "write inherit"),
    },
    "replace": {
        **_each("overwrite override yes true on reset", "write replace"),
        **_each("append extend add no false off combine", "write merge"),
    },
    "alive": {
        **_each("live liveness health", "write alive"),
        **_each("readiness", "write ready"),
    },
    "webhook": {
        **_each("slack teams discord mattermost json http custom", "write webhook, with a body-template"),
        **_each("prometheus", "write alertmanager"),
        **_each("otlp opentelemetry otel", "write otlp-logs"),
    },
    "admin": {
        **_each("root all full superuser owner administrator", "write admin"),
        **_each("readonly ro viewer view user guest", "write read"),
        **_each("readwrite rw operator", "write write"),
        **_each("none public anonymous", "write open"),
    },
}


class Advice(NamedTuple):
    """What to write instead. One ``cause`` that makes many keys of a file wrong is told once."""

    text: str
    cause: str = ""


def key(word: str, value: Node | None, field: str, known: Collection[str]) -> Advice | None:
    """What to write instead of an unknown key; ``known`` are the keys that could stand there."""
    plain = _plain(word)
    strange = next((letter for letter in word if letter.isspace() or not letter.isprintable()), "")
    if strange and plain.strip(strange) in map(_plain, known):
        return Advice(f"U+{ord(strange):04X} is part of it: delete it")
    if any(_plain(other) == plain for other in known):
        return None
    if "services" in known:
        return _at_the_top(word, value)
    if "kill-delay" in known:
        return _in_a_service(plain, value, field)
    if "success-threshold" in known:
        return _from(OF_CHECK, plain)
    if "on-check" in known:
        return _from(OF_ALERT, plain)
    if "access" in known:
        return _from(OF_IDENTITY, plain)
    if "password-hash" in known and plain in ("password", "hash"):
        return Advice(_HASH)
    return None


def value(text: str, options: Collection[str]) -> str:
    """What to write instead of a word that is none of ``options``, in brackets; empty where nothing is known."""
    plain = _plain(text)
    for sign, words in _VALUES.items():
        if sign in options and plain in words:
            return f" ({words[plain]})"
    return ""


def no_service(name: str, services: Collection[str], checks: Collection[str]) -> str:
    """What to do about the name of a service that there is not, in brackets; empty where nothing is known."""
    if name in checks:
        return " (that is a check: name the service that it looks at)"
    base, dot, kind = name.rpartition(".")
    if dot and kind in ("target", "socket", "mount", "timer", "path", "device", "slice"):
        return " (units of systemd are not needed here: leave it out)"
    if kind == "service" and base in services:
        return f" (write {base})"
    if "- " in name:
        return " (is the item behind the - indented like the one above it?)"
    return ""


def _from(table: dict[str, str], plain: str) -> Advice | None:
    return Advice(table[plain]) if plain in table else None


def _at_the_top(word: str, value: Node | None) -> Advice | None:
    plain = _plain(word)
    if plain in OF_TOP:
        return Advice(OF_TOP[plain])
    if word.startswith("x-"):  # as files of Compose have them
        return Advice("a text with an anchor needs no key of its own: write its &name where it stands first")
    from vigil.plan.fields import SERVICE, fields_of

    name = word.rpartition(":")[2] or word
    cause = "services"
    if isinstance(value, Mapping) and any(_known(entry.key, SERVICE) for entry in value.entries):
        return Advice(f"is it a service? Then it belongs below services:, indented, as {name}:", cause)
    if _known(word, SERVICE) or plain in OF_SERVICE:
        return Advice("it belongs to a service: write services:, a name below it, and this below the name", cause)
    if _known(word, fields_of("checks")):
        return Advice("it belongs to a check: write checks:, a name below it, and this below the name", cause)
    if isinstance(value, Scalar) and not value.is_null:
        command = f"{{command: {quoted(value.text, name)}}}" if len(value.text) <= 50 else "and its command"
        text = f"{name}: {command}"
        return Advice(f"is it a line of a Procfile? Write services:, and below it {text}", cause)
    return None


def _in_a_service(plain: str, value: Node | None, field: str) -> Advice | None:
    from vigil.plan.fields import SERVICE, fields_of

    if isinstance(value, Mapping) and any(_known(entry.key, SERVICE) for entry in value.entries):
        if field.startswith("services.services."):
            return Advice("services: stands there twice: leave out one, and indent the rest less", "nested")
        return Advice("is it a service? Then it must begin below the name of the one above it")
    if plain in ("autostart", "enabled", "enable") and isinstance(value, Scalar) and _plain(value.text) in _NO:
        return Advice("write startup: disabled")
    if plain.startswith("limit") and plain != "limits":
        return Advice(f"write limits: {{{plain[5:]}: ...}}")
    if plain in OF_SERVICE:
        return Advice(OF_SERVICE[plain])
    if any(_plain(other) == plain for other in fields_of("checks")):
        return Advice("it belongs to a check, below checks:")
    return None


def _known(word: str, keys: Collection[str]) -> bool:
    return word.replace("_", "-") in keys


def _plain(word: str) -> str:
    return word.lower().replace("-", "").replace("_", "")
