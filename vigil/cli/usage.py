"""What ``vigil --help`` prints, and what docopt reads."""

from __future__ import annotations

TEXT = """\
vigil - look at the services of a vigild, and command them

Usage:
  vigil [options] services (start | stop | restart) [--no-wait] [--timeout TIME] NAME...
  vigil [options] services signal SIGNAL NAME...
  vigil [options] services [list] [NAME...]
  vigil [options] (start | stop | restart) [--no-wait] [--timeout TIME] NAME...
  vigil [options] signal SIGNAL NAME...
  vigil [options] logs [-f] [-n N] [--since TIME] [SERVICE...]
  vigil [options] changes [ID]
  vigil [options] system-info
  vigil [options] vigild (status | stop | restart)
  vigil (-h | --help)
  vigil --version

Commands:
  services               List services, all or the named ones.
  start, stop, restart   Start, stop or restart services, and wait until that is done: a start, until each has been
                         running for a second. Also spelled "vigil services start".
  signal                 Send a signal (HUP, SIGUSR1, 10) to the main process of services.
  logs                   Show what services wrote, oldest first, times in local time. The log of vigild itself is
                         shown where it is named: "vigil logs vigild".
  changes                List what was asked of services and what became of it, or show one change.
  system-info            Show what vigild is and since when.
  vigild status          Show the state of vigild.
  vigild stop            Stop all services in order, then vigild.
  vigild restart         Stop all services in order, then start from scratch.

Options, before or after the command:
  --socket PATH          The socket of vigild [env: VIGIL_SOCKET]. Otherwise /run/vigil/vigild.sock,
                         $XDG_RUNTIME_DIR/vigil/vigild.sock or /tmp/vigil-UID/vigild.sock, the first that answers.
  --format FORMAT        table, json or yaml; for logs text or json (one entry per line).
  --no-color             No colours, not even on a terminal [env: NO_COLOR].
  -h, --help             Show this text.
  --version              Show the version.

Options of start, stop and restart:
  --no-wait              Do not wait for the end of the change.
  --timeout TIME         Wait so long at most (10s, 1m30s). The change goes on without us.

Options of logs:
  -f, --follow           Go on with what is written from now on, until Ctrl-C.
  -n N, --lines N        Show at most the last N lines, of all services together. Otherwise 100, with -f 10, and
                         with --since all.
  --since TIME           Only what was written since: a time (2026-03-21T12:00:00Z), a duration back (10m), or after
                         a sequence number (that of an entry in --format json).

Exit: 0 done; 1 vigild said no, or cannot be reached; 2 the command line is wrong; 130 Ctrl-C.
"""
