"""What stands at the head of the shipped configuration file and of the reference page; the rest is generated."""

from __future__ import annotations

SHIPPED_START = """
# The configuration of Ostler. Lines that start with `#name = ` show an option with its default: take the `#` away to
# change it. `ostler check` looks at everything and starts nothing; `ostler reload` takes over what was changed;
# `ostler config cat` shows each value in force and where it comes from.
#
# Better than editing this file is one of your own in conf.d/*.toml beside it: tables merge, and later files win.
#
# Time spans are written 30, "30s", "5min" or "1h30min", sizes 4096, "500MB" or "10GiB". A changed value is at work
# after `ostler reload`, unless the option says what a change needs; the reload names what waits for a restart.
"""

PAGE_START = """
# Configuration

This page is generated from the declarations of the options, as `conf/ostler.toml` is; a test compares both with them.

## Where it is read

Later layers win. Tables merge; any other value, lists as well, is replaced.

- root, and a service of the system's systemd: `/usr/lib/ostler/conf.d/*.toml`, `/etc/ostler/ostler.toml`,
  `/etc/ostler/conf.d/*.toml`, `/run/ostler/conf.d/*.toml`
- any other user: `$XDG_CONFIG_HOME/ostler/ostler.toml`, `$XDG_CONFIG_HOME/ostler/conf.d/*.toml` (`~/.config` when the
  variable is not set)
- anybody with `--root DIR` or `OSTLER_ROOT`: `DIR/etc/ostler.toml`, `DIR/etc/conf.d/*.toml`

Files of a folder are read in the order of their names, those whose names end in `.toml` and do not begin with a dot:
what editors and package tools leave behind (`x.toml~`, `.x.toml.swp`, `#x.toml#`, `x.toml.rpmsave`,
`x.toml.dpkg-dist`, `x.toml.bak`) is passed over. A link to `/dev/null` is an empty file. No layer has to be there.
Last comes `ostler run --set services.volume.workers=4`: the value is TOML, or else taken as text.

## How values are written

- *Time spans* are seconds, or text with units: `30`, `"30s"`, `"5min"`, `"2h"`, `"1h30min"`. Units are us, ms, s, min
  (or m), h, d and w.
- *Sizes* are bytes, or text with a unit: `4096`, `"500MB"` (powers of 1000), `"10GiB"` (powers of 1024).
- *Secrets* never stand in a file. `{credential = "name"}` is the file of that name in `$CREDENTIALS_DIRECTORY`, where
  systemd's `LoadCredential=` puts it; `{file = "/path"}` is the content of a file. One newline at the end is dropped.
  They are shown as `***` everywhere.
- Names of services (topics) and drivers are made of letters, digits, `-` and `_`. The topic `ostler` is the
  daemon's own.

## When something is wrong

Everything that is wrong is reported at once, each line with file, line and column, as compilers do; exit code 78.
Unknown keys are errors. `ostler check` does the same without starting anything, and does not ask for credentials. A
reload with mistakes changes nothing.

At a reload the file `ostler.toml` or a folder that was there before and is gone is a mistake, and so is a file that
held something and now has not one byte: the one is not mounted or just being replaced, the other just being written,
or the disk is full. Removing one file of a folder takes back what it said, and so does a file with nothing but a `#`.

## Setting one value

`ostler config set TABLE.KEY VALUE` writes to the file `conf.d/90-set.toml` and to no other, under a lock, and replaces
the file whole; its comments, mode, owner, group and access control list stay. It is refused when the whole
configuration would be wrong with the value, when a file that is read later (`conf.d/95-x.toml`, `/run/ostler/conf.d`)
sets the same option, and when `conf.d` or the file is a symbolic link: whatever manages such a link has its own place
for the value.

## What a change needs

| | |
| --- | --- |
| nothing | `ostler reload` (or SIGHUP) takes the new value over while everything goes on |
| a new driver | the driver is cleaned up and initialised again |
| a new service | the service is stopped and started again |
| a new daemon | `systemctl restart ostler` |

What a reload cannot do by itself it names as waiting for a restart.
"""
