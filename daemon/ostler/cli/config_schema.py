"""`ostler config schema --write`: the JSON Schema next to the configuration, and the line that names it to editors."""

from __future__ import annotations

import re
from pathlib import Path

from ostler.cli import invocation, without_daemon
from ostler.cli.config_files import (
    BOM,
    SCHEMA_FILE_NAME,
    EditedFile,
    FileNotEditable,
    lock_directory,
    read_editable,
    replace_edited,
    schema_line,
)
from ostler.cli.output import to_json
from ostler.cli.results import SchemaWritten
from ostler.config import load
from ostler.files import replace_file

_HAS_LINE = re.compile(rb"^#:schema\b", re.MULTILINE)


def write_schema() -> SchemaWritten:
    """Write the schema with the installed plugins next to the configuration, and name it in the files there.

    A file that names a schema already, that is empty, or that is not in the directory of the configuration or its
    `conf.d` is left as it is; so is a link or a file that this user may not write, with a note. Blocks; any thread.

    Raises:
        Busy: Another process holds the lock of the configuration.
        OSError: The schema cannot be written.
    """
    content = f"{to_json(without_daemon.configuration_schema())}\n".encode()
    paths = invocation.current_invocation().paths()
    schema = paths.config_file.with_name(SCHEMA_FILE_NAME)
    done = SchemaWritten(file=str(schema), files=[], notes=[])
    with lock_directory(schema.parent):
        replace_file(schema, content, mode=0o644)
        for file in map(Path, load(paths).files):
            try:
                if _name_schema(file):
                    done.files.append(str(file))
            except (FileNotEditable, OSError) as error:
                done.notes.append(f"{file} does not name the schema: {error}")
    return done


def _name_schema(file: Path) -> bool:
    """Put the line at the top of a file; return whether it was changed."""
    line = schema_line(file)
    before = read_editable(file) if line else None
    if not before or _HAS_LINE.search(before.removeprefix(BOM)):
        return False
    bom, text = (BOM, before.removeprefix(BOM)) if before.startswith(BOM) else (b"", before)
    if text.partition(b"\n")[0].endswith(b"\r"):
        line = line.replace(b"\n", b"\r\n")
    replace_edited(file, EditedFile(before, bom + line + text))
    return True
