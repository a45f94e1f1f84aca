"""What outlives control: the journal, the latest values in it, and the counters of metrics, each in a parked memfd."""

from vigil.journal.counters import Counters
from vigil.journal.journal import Journal, JournalError, Record
from vigil.journal.store import Store

__all__ = ["Counters", "Journal", "JournalError", "Record", "Store"]
