"""An honest operator who has events published: python publisher.py UID ROOT EVENTS-A-SECOND BYTES, until stdin ends."""

from __future__ import annotations

import select
import sys

from attackers import become

from ostler import Client, OstlerError

_SPACING = 0.25


def main() -> None:
    """Publish as the arguments say."""
    with Client(root=sys.argv[2]) as client:
        client.call("ostler", "echo")  # as root: what is imported on the way may lie where other users cannot read
    become(int(sys.argv[1]))
    count, size = max(1, int(int(sys.argv[3]) * _SPACING)), int(sys.argv[4])
    with Client(root=sys.argv[2], timeout=20) as client:
        client.call("target", "publish", count=1000, size=min(size, 900), names=1000)
        print("up", flush=True)
        while not select.select([sys.stdin], [], [], _SPACING)[0]:
            try:
                client.call("target", "publish", count=count, size=size, names=1000)
            except OstlerError as error:
                print(f"publisher: {error}", file=sys.stderr)


if __name__ == "__main__":
    main()
