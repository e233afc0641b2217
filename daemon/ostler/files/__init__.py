"""Files of others: opened without following links, read within bounds, replaced whole, and judged by their owner.

Every file that is read from a path of the configuration, or written, goes through here. `beneath` opens below a
directory that is held open, `reading` reads regular files within bounds, `writing` makes and replaces files and
directories with set modes, `ownership` says whose they are.
"""

from ostler.files.beneath import open_beneath, open_directory
from ostler.files.ownership import Trust, check_trusted, distrusted, user_name
from ostler.files.reading import Content, FileRefused, open_regular, read_bounded, read_regular
from ostler.files.writing import create_file, make_directory, move_file, replace_file, tighten

__all__ = [
    "Content", "FileRefused", "Trust", "check_trusted", "create_file", "distrusted", "make_directory", "move_file",
    "open_beneath", "open_directory", "open_regular", "read_bounded", "read_regular", "replace_file", "tighten",
    "user_name",
]  # fmt: skip
