"""`ostler dump`: the internal state of the daemon."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from ostler.cli import kit
from ostler.types import CONTROL_TOPIC

app = kit.app(group=False)


@app.command()
@kit.shows(dict[str, Any])
def dump() -> None:
    """Show the internal state: threads, tasks, queues, services, configuration; secrets are masked."""
    with kit.client() as client:
        found = client.on(type=dict[str, Any]).call(CONTROL_TOPIC, "dump")
    if kit.json_wanted():
        from ostler.cli.json_values import moments_by_name  # only for programs

        kit.emit(moments_by_name(found))
        return
    for line in _lines(found, 0):
        kit.say(line)


def _lines(value: Any, depth: int) -> Iterator[str]:
    pad = "  " * depth
    if isinstance(value, dict):
        for key, item in value.items():
            if isinstance(item, dict | list) and item:
                yield f"{pad}{kit.printable(str(key))}:"
                yield from _lines(item, depth + 1)
            else:
                yield f"{pad}{kit.printable(str(key))}: {kit.text_of(item)}"
    elif isinstance(value, list):
        for item in value:
            lines = list(_lines(item, 0))
            yield f"{pad}- {lines[0] if lines else '-'}"
            yield from (f"{pad}  {line}" for line in lines[1:])
    else:
        yield f"{pad}{kit.text_of(value)}"
