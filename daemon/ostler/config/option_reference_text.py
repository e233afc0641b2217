"""The introductions of the shipped configuration file and of the reference page; the rest is generated."""

from __future__ import annotations

SHIPPED_FILE_HEADER = """
# The configuration of Ostler. Lines that start with `#name = ` show an option with its default: remove the `#` to
# change it. `ostler check` validates the configuration without starting anything; `ostler reload` applies changes;
# `ostler config cat` shows each value with its origin.
#
# Prefer a file of your own in conf.d/*.toml, next to this one, to editing this file: tables are merged, and later
# files override earlier ones.
#
# Time spans are written 30, "30s", "5min" or "1h30min", sizes 4096, "500MB" or "10GiB". `ostler reload` applies a
# change, unless the option says that it needs a restart; the reload lists the changes that wait for one.
"""

PAGE_HEADER = """
# Configuration

This page and `conf/ostler.toml` are generated from the declarations of the options; a test fails if they are out of
date.

## Files

Later layers override earlier ones. Tables are merged; any other value, including a list, is replaced.

- root, and system services of systemd: `/usr/lib/ostler/conf.d/*.toml`, `/etc/ostler/ostler.toml`,
  `/etc/ostler/conf.d/*.toml`, `/run/ostler/conf.d/*.toml`
- any other user: `$XDG_CONFIG_HOME/ostler/ostler.toml`, `$XDG_CONFIG_HOME/ostler/conf.d/*.toml` (`~/.config` if the
  variable is not set)
- with `--root DIR` or `OSTLER_ROOT`: `DIR/etc/ostler.toml`, `DIR/etc/conf.d/*.toml`

Files of a directory are read in the order of their names. Only names that end in `.toml` and do not begin with a dot
are read, so that leftovers of editors and package tools (`x.toml~`, `.x.toml.swp`, `#x.toml#`, `x.toml.rpmsave`,
`x.toml.dpkg-dist`, `x.toml.bak`) are ignored. As in systemd, a file masks the files of the same name in earlier
directories, whole: `/etc/ostler/conf.d/x.toml` replaces `/usr/lib/ostler/conf.d/x.toml`, and an empty file or a link to
`/dev/null` switches it off. `ostler check` lists masked files. Links are followed, within `conf.d` and out of it, and
the file that a link leads to must be as trusted as any. A dangling link, a loop, a directory, a FIFO, a file that
cannot be read, is not valid UTF-8 or has more than 1 MiB is an error. A byte order mark and CRLF are accepted. All
layers are optional. The last layer is `ostler run --set services.volume.workers=4`: a value that is not TOML is taken
as text.

## Values

- *Time spans* are seconds, or text with units: `30`, `"30s"`, `"5min"`, `"2h"`, `"1h30min"`. Units are us, ms, s, min
  (or m), h, d and w.
- *Sizes* are bytes, or text with a unit: `4096`, `"500MB"` (powers of 1000), `"10GiB"` (powers of 1024).
- *Secrets* are never written in a configuration file. `{credential = "name"}` is the file of that name in
  `$CREDENTIALS_DIRECTORY`, where systemd's `LoadCredential=` puts it; `{file = "/path"}` is the content of a file. One
  trailing newline is dropped. They are always shown as `***`.
- Names of services (topics) and drivers consist of letters, digits, `-` and `_`. The topic `ostler` is reserved for the
  daemon.

## Errors

All problems are reported at once, each with file, line and column of the value, that line, and a mark under the value;
with `--json` as fields. Secrets, values of unknown keys and comments are not quoted, and of a line that is not valid
TOML only the part before the `=`. The exit code is 78. Unknown keys are errors. A reload of an invalid configuration
changes nothing.

`ostler check` does the same without starting anything, for the user who runs it; it reads credentials only if
`$CREDENTIALS_DIRECTORY` is set. Then it checks what a start checks first as well: whether the state and runtime
directories can be used, and whether the database and the migrations of plugins fit. It changes nothing, and a daemon
may be running. The exit code is 1 if only these keep a daemon from starting.

At a reload it is an error if `ostler.toml` or a directory that existed before is missing, which may not be mounted or
be being replaced, or if a file that was not empty has 0 bytes, or is masked by a file of 0 bytes, which may be being
written, or the disk is full. To undo the settings of a file in a directory, remove it, or leave only a `#` in it; to
mask one, use a link to `/dev/null` or a file with a `#`.

## Setting one value

`ostler config set TABLE.KEY VALUE` edits the last file that sets the option, as that is the one whose value is in
effect. If no file sets it, or only one of a package (`/usr/lib/ostler/conf.d`), it is `conf.d/90-set.toml`; `--file`
names another: `ostler.toml`, a name in `conf.d`, or the path of a file in a directory above. `ostler config unset
TABLE.KEY` removes an option, a table or an item of a list by the same rules, and names the file whose value is in
effect then.

- Comments, order, formatting, line ends and a byte order mark stay. Of a list or table only the items that differ
  change; `plugins.disabled[0]` is one item. A new option goes below its commented-out default, or else to the end of
  its table. A file of mixed line ends keeps each; a new line has that of the line before it.
- Nothing is written if the configuration would be invalid, if a file that is read later sets the same option (it is
  named), if the file is masked, or would mask another. A note says what else is to be known: entries of the same
  table in other files, a file below `/run` that is lost when the machine restarts.
- A file is replaced atomically, under a lock, with its mode, owner, group and access control list. If another program
  has changed it meanwhile, nothing is written.
- A file that is a symbolic link, or in a `conf.d` that is one, is neither replaced nor followed: edit it where the
  link leads, in the tool that manages it. A file that this user may not write, is not valid UTF-8 or is not valid
  TOML is left as it is.
- An option that is given or set by its earlier name gets its present one. A secret is never a value: set a reference,
  such as `'{file = "/path"}'`.

## Completion and checks in an editor

`ostler config schema --write` writes the JSON Schema of the configuration, with the installed plugins and the
configured services and drivers, to `ostler.schema.json` next to `ostler.toml`, and puts the line
`#:schema ./ostler.schema.json` (in `conf.d`: `#:schema ../ostler.schema.json`) at the top of the files there that have
none. Editors with [taplo](https://taplo.tamasfe.dev) read it: VS Code with Even Better TOML, Neovim, Helix. A file that
`ostler config set` makes gets the line if there is a schema; a link and an empty file do not. Run it again after
plugins were installed or services configured. `ostler config schema` prints the schema.

## Changes

| a change needs | |
| --- | --- |
| no restart | `ostler reload` (or SIGHUP) applies the new value while everything keeps running |
| a restart of the driver | `ostler reload` initialises the driver again |
| a restart of the service | `ostler reload` restarts the service |
| a restart of the daemon | `systemctl restart ostler` |

`ostler reload --plan` shows what a reload would change, and how. If a part of it fails, everything runs as before: see
[reload.md](reload.md).
"""
