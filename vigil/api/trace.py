"""Where an exception came from, in one line of vigild's diagnostics."""

from __future__ import annotations


def where(problem: BaseException | None) -> str:
    """Where it was raised and through which functions, innermost first, short enough for one line."""
    places = []
    trace = problem.__traceback__ if problem is not None else None
    while trace is not None:
        code = trace.tb_frame.f_code
        places.append(f"{code.co_filename.rpartition('/')[2]}:{trace.tb_lineno} {code.co_name}")
        trace = trace.tb_next
    return " < ".join(reversed(places[-6:]))
