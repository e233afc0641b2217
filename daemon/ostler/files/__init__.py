"""Files of other users: opened without following links, read within bounds, replaced whole, checked by owner.

Every file that is read from a path of the configuration, or written, goes through here. `beneath` opens below a
directory that is held open, `reading` reads regular files within bounds, `writing` makes and replaces files and
directories with set modes, `ownership` says whose they are.
"""

from ostler.files.beneath import open_beneath, open_directory
from ostler.files.ownership import Trust, check_trusted, distrust_reason, user_name
from ostler.files.reading import FileContent, UnreadableFile, open_regular, read_bounded, read_regular
from ostler.files.writing import create_file, make_directory, move_file, replace_file, restrict_mode

__all__ = [
    "FileContent",
    "Trust",
    "UnreadableFile",
    "check_trusted",
    "create_file",
    "distrust_reason",
    "make_directory",
    "move_file",
    "open_beneath",
    "open_directory",
    "open_regular",
    "read_bounded",
    "read_regular",
    "replace_file",
    "restrict_mode",
    "user_name",
]  # fmt: skip
