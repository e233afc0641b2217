"""`ostler scheduler …`."""

from __future__ import annotations

from typing import Annotated

import typer

from ostler import format_seconds, format_size
from ostler.cli import kit
from ostler_scheduler.api_types import Candidate, Explanation, Judgement

app = kit.app(help="Show how backends are chosen")

_TopicArgument = Annotated[
    str, typer.Argument(help="Topic of the services that provide the backends, for example volume")
]


@app.command()
@kit.view
@kit.shows(Explanation)
def explain(
    topic: _TopicArgument,
    size: Annotated[str, typer.Option(help="Space that is needed, such as 10GiB; 0 for any")] = "0",
    feature: Annotated[
        list[str] | None, typer.Option(help="A required feature, or FACT=VALUE; may be repeated")
    ] = None,
    host: Annotated[str, typer.Option(help="Only this host")] = "",
    exclude: Annotated[list[str] | None, typer.Option(help="Exclude HOST or HOST/BACKEND; may be repeated")] = None,
) -> None:
    """Show which backend would be chosen and why: each candidate with its weights, or the filter that dropped it.

    Nothing is promised.
    """
    with kit.client() as client:
        said = client.on(type=Explanation).call(
            "scheduler", "explain", topic=topic, size=size, features=feature or [], on_host=host, exclude=exclude or []
        )
    if kit.json_wanted():
        kit.emit(said)
        return
    chosen = next((one for one in said.candidates if one.chosen), None)
    kit.say(f"{chosen.backend} on {chosen.host} is chosen: {said.why}" if chosen else kit.printable(said.why))
    if said.candidates:
        kit.say()
        kit.show_table(sorted(said.candidates, key=_rank), _JUDGEMENT_COLUMNS)


@app.command()
@kit.view
@kit.shows(Candidate, many=True)
def candidates(
    topic: Annotated[str, typer.Argument(help="Only the backends of this topic")] = "",
) -> None:
    """List the backends that have reported to the scheduler, with their capabilities."""
    with kit.client() as client:
        listed = client.on(type=list[Candidate]).call("scheduler", "candidates", topic=topic)
    kit.show_table(listed, _CANDIDATE_COLUMNS, empty="No service has reported a backend yet.")


def _rank(one: Judgement) -> tuple[bool, bool, float, str, str]:
    return bool(one.dropped_by), not one.chosen, -one.total, one.host, one.backend


def _verdict(one: Judgement) -> str:
    verdict = f"dropped by {one.dropped_by}: {one.reason}" if one.dropped_by else "chosen" if one.chosen else ""
    return "; ".join(text for text in (verdict, one.refused) if text)


def _weights(one: Judgement) -> str:
    return ", ".join(f"{name} {weight:.2f}" for name, weight in one.weights.items())


def _total(one: Judgement) -> str:
    return "" if one.dropped_by else f"{one.total:.2f}"


def _size(value: object) -> str:
    if isinstance(value, bool) or not isinstance(value, int | float) or value < 0:
        return ""
    return format_size(value)


def _free(one: Candidate) -> str:
    try:
        return _size(max(0, one.free)) if one.free is not None else ""
    except TypeError:  # a fact that is not a number
        return "?"


def _features(one: Candidate) -> object:
    return one.facts.get("features")


def _note(one: Candidate) -> str:
    return one.gone or ("" if one.enabled else "disabled")


_JUDGEMENT_COLUMNS = [
    kit.Column("host", priority=0, key=True),
    kit.Column("backend", priority=0, key=True),
    kit.Column("free", lambda one: _size(one.free), right=True),
    kit.Column("weights", _weights, priority=2),
    kit.Column("total", _total, right=True),
    kit.Column("verdict", _verdict, priority=0),
]
_CANDIDATE_COLUMNS = [
    kit.Column("topic", priority=2, key=True),
    kit.Column("host", priority=0, key=True),
    kit.Column("backend", priority=0, key=True),
    kit.Column("total", lambda one: _size(one.facts.get("total_bytes")), right=True, priority=2),
    kit.Column("free", _free, right=True, priority=0),
    kit.Column("promised", lambda one: _size(one.promised), right=True),
    kit.Column("features", _features, priority=3),
    kit.Column("reported", lambda one: f"{format_seconds(one.age, units=2)} ago", right=True, priority=3),
    kit.Column("note", _note),
]
