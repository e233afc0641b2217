"""`Templates`: pages and parts of pages as HTML. Every value is escaped unless it was made here."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jinja2
from markupsafe import Markup

from ostler_http.ui import filters

_FILTERS = {
    "age": filters.moment, "badge": filters.badge, "clock": filters.clock_time, "count": filters.count,
    "cut": filters.cut, "lines": filters.lines, "paragraph": filters.paragraph, "plain": filters.plain,
    "rate": filters.rate, "seconds": filters.seconds, "size": filters.size, "span": filters.span,
    "sparkline": filters.sparkline, "tone": filters.tone,
}  # fmt: skip


class Templates:
    """The templates of this package, compiled when they are first used."""

    def __init__(self) -> None:
        self._environment = jinja2.Environment(
            loader=jinja2.PackageLoader("ostler_http.ui"),
            autoescape=True,
            finalize=filters.visible,
            undefined=jinja2.ChainableUndefined,  # a daemon of another version may not say everything
            trim_blocks=True,
            lstrip_blocks=True,
            auto_reload=False,
            cache_size=100,
        )
        self._environment.filters.update(_FILTERS)
        # A part of a page is rendered alone, without the imports of its template.
        self._environment.globals["ui"] = self._environment.get_template("macros.html").module

    def page(self, template: str, values: Mapping[str, Any]) -> str:
        """Return a whole page."""
        return self._environment.get_template(template).render(values)

    def part(self, template: str, block: str, values: Mapping[str, Any]) -> Markup:
        """Return one block of a page."""
        found = self._environment.get_template(template)
        # Escaped already: by this environment.
        return Markup("".join(found.blocks[block](found.new_context(dict(values)))))  # noqa: S704 - see above
