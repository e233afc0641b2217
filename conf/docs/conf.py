"""The site of the documentation: `make docs`. Read by Sphinx."""

from __future__ import annotations

import ostler

project = "Ostler"
author = "The authors of Ostler"
version = release = ostler.__version__
extensions = ["myst_parser"]
source_suffix = {".md": "markdown"}
exclude_patterns = ["examples"]
root_doc = "index"
html_theme = "furo"
html_title = f"Ostler {version}"
html_copy_source = False
html_show_sourcelink = False
html_show_copyright = False
# Headings are linked as they are on the pages of a repository.
myst_heading_anchors = 4
nitpicky = True
# Words after the language, such as in "console run", are for the tests that type the commands.
suppress_warnings = ["misc.highlighting_failure"]
man_pages = [
    ("cli", "ostler", "run a daemon for the resources of a host, and talk to it", [author], 1),
    ("configuration", "ostler.toml", "the configuration of ostler", [author], 5),
    ("hooks", "ostler-plugins", "what a plugin of ostler can declare", [author], 7),
]
