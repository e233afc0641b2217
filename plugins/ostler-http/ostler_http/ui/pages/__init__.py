"""One module for each page. A page reads with the rights of its visitor, and names the template that shows it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any, ClassVar

if TYPE_CHECKING:
    from ostler_http.ui.visit import Visit


class Page(ABC):
    """A page.

    Attributes:
        path: Where it is, below the mount; may have parameters, as in `/services/{topic}`.
        title: Its title, and its words in the menu.
        template: The template that shows it; its block `live` is what is kept up to date.
        methods: The methods of the daemon without which there is nothing to see.
        interval: Seconds between two looks at what has changed; None for a page that is not kept up to date.
        in_menu: Whether the menu has it.
    """

    path: ClassVar[str]
    title: ClassVar[str]
    template: ClassVar[str]
    methods: ClassVar[tuple[str, ...]] = ()
    interval: ClassVar[float | None] = 2.0
    in_menu: ClassVar[bool] = True

    @abstractmethod
    async def load(self, visit: Visit) -> dict[str, Any]:
        """Return the values of the template.

        Raises:
            OstlerError: There is nothing to show; the error is shown instead.
        """


def all_pages() -> list[Page]:
    """Return all pages, those of the menu in its order."""
    from ostler_http.ui.pages.audit import AuditPage
    from ostler_http.ui.pages.configuration import ConfigurationPage, ReloadPlanPage
    from ostler_http.ui.pages.dump import DumpPage
    from ostler_http.ui.pages.events import EventsPage
    from ostler_http.ui.pages.hosts import HostsPage
    from ostler_http.ui.pages.log import LogPage
    from ostler_http.ui.pages.operations import OperationPage, OperationsPage
    from ostler_http.ui.pages.overview import OverviewPage
    from ostler_http.ui.pages.periodic import PeriodicPage, PeriodicTaskPage
    from ostler_http.ui.pages.plugins import PluginsPage
    from ostler_http.ui.pages.services import ServicePage, ServicesPage
    from ostler_http.ui.pages.topics import TopicPage, TopicsPage

    return [
        OverviewPage(), ServicesPage(), ServicePage(), TopicsPage(), TopicPage(), OperationsPage(), OperationPage(),
        PeriodicPage(), PeriodicTaskPage(), EventsPage(), LogPage(), AuditPage(), ConfigurationPage(), ReloadPlanPage(),
        PluginsPage(), HostsPage(), DumpPage(),
    ]  # fmt: skip
