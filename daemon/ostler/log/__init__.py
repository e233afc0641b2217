"""The log: set up once, to journald with fields when there is a journal, else to stderr.

Everybody logs through the standard `logging`. This room decides where lines go and how they look, adds what they are
about (`fields`, `adapter`), gives known messages an id (`event`), and keeps secrets and needless tracebacks out.
"""

from ostler.log.fields import About, FieldAdapter, adapter, detail, extra, fields
from ostler.log.guard import LogGuard
from ostler.log.journal import journal_is_stderr
from ostler.log.messages import MESSAGE_IDS, event
from ostler.log.setup import FORMATS, LEVELS, flush, install_hooks, levels, log_status, protect, set_level, set_up

__all__ = [
    "FORMATS", "LEVELS", "MESSAGE_IDS", "About", "FieldAdapter", "LogGuard", "adapter", "detail",
    "event", "extra", "fields", "flush", "install_hooks", "journal_is_stderr", "levels", "log_status", "protect",
    "set_level", "set_up",
]  # fmt: skip
