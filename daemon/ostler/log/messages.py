"""The ids of the messages that matter to operators: `journalctl MESSAGE_ID=…` finds them in any language or version.

An id never changes and is never used for something else.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

MESSAGE_IDS: Mapping[str, str] = MappingProxyType(
    {
        "daemon-ready": "1cb3d995983543888ed4b731fdfdcd75",
        "daemon-stopping": "24ea1af20b3542eca02031f48997a64c",
        "daemon-failed": "4e88c38eecfb40ecaecd8548cd31a51c",
        "reload-applied": "56cafef66fc7407db17c457f867f0341",
        "reload-refused": "836d732fbd5a47b3972d6b4a1a81e85a",
        "watchdog-withheld": "8fde407e76d54c41beb20d0d00bf08bb",
        "stop-hung": "456c49c4b3814bf48f2bcdd2a06745d1",
        "service-up": "21a37a6535124dd4baaee7438da81e36",
        "service-degraded": "f2b1f4aa578640789f23812bd82a81f6",
        "service-failed": "48b5b47b9fbd476ba5a10f883f178b69",
        "service-record-restored": "58165a82749f424da3f74f0fe649d4e5",
        "driver-ready": "de0f6882cc5e4489a6a2ee08140f7c64",
        "driver-failed": "8040a4b138a646b58d4e4d8b71e37d28",
        "driver-stuck": "e67b7c2515f744f98864178d34620521",
        "plugin-failed": "36ae55965eea44268107e76fff90eae9",
        "store-outage": "06f088c4b835468d8538934e75d0c8e2",
        "store-back": "06beceeb609746febdbf171c167c7dfe",
        "store-migrated": "bd08c5efb77a41c08913d3d262215b55",
        "refused": "73dbb52d975d47f89199fc71e5f1cc8a",
    }
)


def event(name: str) -> dict[str, str]:
    """Return what to pass as `extra` so that a line carries the id of a known message.

    Raises:
        KeyError: There is no message of that name.
    """
    return {"message_id": MESSAGE_IDS[name]}
