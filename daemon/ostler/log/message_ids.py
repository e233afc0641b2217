"""The ids of messages that matter to operators: `journalctl MESSAGE_ID=…` finds them in any language or version.

An id never changes and is never used for something else.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

MESSAGE_IDS: Mapping[str, str] = MappingProxyType(
    {
        "ready": "bf6b534fc1d1405cb9fe63485716ad4d",
        "stopping": "5ddb90320e984b8b99d4b57eff3f3b31",
        "stopped": "f34959cfbef44457a50fb20ba73225a7",
        "start-failed": "c83c6ed718f04acba3204a44b2343103",
        "dump": "9540676625034dba8280ba31593785b0",
        "reload": "cc3aa4e5763b4c08bca32bf53c8fae89",
        "watchdog": "adabbc38831d4025ae20373c5144d4ba",
        "hung": "fbe3df9e651a40b289de9d4d847c55df",
        "service-up": "94498e2548554ba48e3137b99cbe0429",
        "service-degraded": "a57abb37f02b475d9faae6407c0f5d96",
        "service-failed": "5c1c5ffcffe44d23bc1b37dc0dad9871",
        "service-restored": "02ae447f2cbf4b17bfa509d02a45af51",
        "driver-ready": "a36d25ec5991409390d6930cdd60f473",
        "driver-failed": "e784074552cf479582a4cd098c48f0cf",
        "driver-stuck": "715484f43fa342528862cdbb130b1594",
        "breaker-open": "5d0c6f5bb1f94b0fb0f2a4e7bb1d8a63",
        "plugin-quarantined": "0b8f7f1e2c5a4c0b9d36a1f4e7c2d590",
        "loop-blocked": "a4c39e0d7d8e4a51b27f60c5d1938e4f",
        "plugin-failed": "33a61e93749c4149977bcdcbca9db167",
        "outage": "3e85d3b2d307438faa11f02d26f26ac3",
        "outage-over": "83028753de9f4661930e9ed4dcdce91d",
        "store-migrated": "ddd851d0dd034c5cb1ad43aa20917578",
        "refused": "d46d7caaeb2846dcb2a423edc43e2276",
    }
)
"""Name of an event to the id of its message. Any line with a field `event` of such a name carries the id."""


def message_id(name: str) -> dict[str, object]:
    """Return what to pass as `extra` so that a line carries the id of a known message.

    Raises:
        KeyError: There is no message of that name.
    """
    if name not in MESSAGE_IDS:
        raise KeyError(name)
    return {"event": name}
