"""The log: set up once, to journald with fields when there is a journal, else to stderr.

Everybody logs through the standard `logging`. This package decides where lines go and how they look, adds what they are
about (`fields`), gives known messages an id (`message_ids`), and keeps secrets and needless tracebacks out.
"""

from ostler.log.fields import FieldAdapter, LogFields, adapter, detail, extra, fields
from ostler.log.guard import LogGuard
from ostler.log.journald import is_stderr_journal
from ostler.log.message_ids import MESSAGE_IDS, message_id
from ostler.log.setup import (
    FORMATS,
    LEVELS,
    effective_levels,
    flush,
    install_excepthooks,
    log_status,
    lost_line_count,
    parse_level,
    set_level,
    set_up,
    start_guard,
)

__all__ = [
    "FORMATS",
    "LEVELS",
    "MESSAGE_IDS",
    "FieldAdapter",
    "LogFields",
    "LogGuard",
    "adapter",
    "detail",
    "effective_levels",
    "extra",
    "fields",
    "flush",
    "install_excepthooks",
    "is_stderr_journal",
    "log_status",
    "lost_line_count",
    "message_id",
    "parse_level",
    "set_level",
    "set_up",
    "start_guard",
]  # fmt: skip
