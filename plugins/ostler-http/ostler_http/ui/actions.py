"""What buttons do: an action is a method, its arguments, and what is asked before it is called."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec


class Field(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Something that is asked before a method is called.

    Args:
        name: The argument.
        label: What stands beside it; by default its name.
        help: A sentence below it.
        kind: `text`, `number`, `flag`, or `choice` (of `choices`).
        required: Whether it must not be empty. What is left empty is not sent.
        value: What it begins with.
        choices: The values of a choice.
    """

    name: str
    label: str = ""
    help: str = ""
    kind: str = "text"
    required: bool = False
    value: str = ""
    choices: Sequence[str] = ()


class Action(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A method that a button calls.

    Args:
        label: The words of the button.
        method: The method.
        topic: Its topic.
        fields: What is asked first.
        question: What is to be confirmed first; empty for an action that begins at once unless it asks something.
            `{name}` stands for an argument.
        confirm: The words of the button that answers the question; by default those of its button.
        done: What is said when it has succeeded.
        danger: Whether what it does cannot be undone, or takes something away from others.
        submit: Whether it is submitted as an operation, whose progress is then shown.
        cast: Whether nobody waits for its end: it takes long, and the page shows what comes of it. What a browser waits
            for is limited, and who no longer waits for a call cancels it.
        timeout: Seconds to wait for its end.
    """

    label: str
    method: str
    topic: str = "ostler"
    fields: Sequence[Field] = ()
    question: str = ""
    confirm: str = ""
    done: str = ""
    danger: bool = False
    submit: bool = False
    cast: bool = False
    timeout: float = 50.0

    @property
    def asks(self) -> bool:
        """Whether something stands between its button and its beginning."""
        return bool(self.fields or self.question)


_REASON = Field(name="reason", label="Reason", required=True, help="It is shown wherever the service is")
_WAIT = Field(
    name="wait",
    label="Seconds to wait for work in progress",
    kind="number",
    help="Empty: the service's `drain_timeout`",
)

ACTIONS: Mapping[str, Action] = {
    "service.enable": Action(label="Enable", method="service_enable", done="{topic} is enabled"),
    "service.disable": Action(
        label="Disable…", method="service_disable", fields=[_REASON], done="{topic} is disabled",
        question="Disable {topic}? Schedulers no longer choose it; it continues its work and answers calls.",
    ),
    "service.freeze": Action(
        label="Freeze…", method="service_freeze", fields=[_REASON], done="{topic} is frozen",
        question="Freeze {topic}? It takes no new work and finishes what it has, until it is thawed.",
    ),
    "service.thaw": Action(label="Thaw", method="service_thaw", done="{topic} takes work again"),
    "service.drain": Action(
        label="Drain…", method="service_drain", fields=[_WAIT], done="{topic} is being drained", cast=True,
        question="Drain {topic}? New requests are refused until it is resumed.",
    ),
    "service.resume": Action(label="Resume", method="service_resume", done="{topic} takes work again"),
    "service.start": Action(label="Start", method="service_start", done="{topic} is being started", cast=True),
    "service.stop": Action(
        label="Stop…", method="service_stop", fields=[_WAIT], danger=True, done="{topic} is being stopped", cast=True,
        question="Stop {topic}? It answers nothing until it is started again, here or with the daemon.",
    ),
    "service.restart": Action(
        label="Restart…", method="service_restart", fields=[_WAIT], done="{topic} is being restarted", cast=True,
        question="Restart {topic}? Calls are refused meanwhile, with the advice to try again.",
    ),
    "service.forget": Action(
        label="Delete its record…", method="service_delete", danger=True, done="the record of {topic} was removed",
        question="Remove the record of {topic} on {on_host}? That is for services that no longer exist.",
    ),
    "driver.restart": Action(
        label="Restart…", method="driver.restart", done="driver {name} was initialised again",
        question="Initialise the driver {name} of {service} again? Calls wait meanwhile.",
    ),
    "driver.reset": Action(label="Let calls through", method="driver.reset", done="calls of {name} are let through"),
    "driver.abandon": Action(
        label="Abandon…", method="driver.abandon", danger=True, done="the hanging instance of {name} was given up",
        question="Give the hanging instance of {name} up and create another one? Its threads stay until they return.",
    ),
    "operation.cancel": Action(
        label="Cancel…", confirm="Cancel the operation", method="operation.cancel", danger=True,
        done="cancellation was requested",
        question="Cancel the operation {operation}? One that waits ends at once; one that runs is asked to stop, "
        "and may still succeed.",
    ),
    "operation.retry": Action(label="Retry", method="operation.retry", done="the operation is queued again"),
    "periodic.run": Action(label="Run now", method="periodic_run", done="{task} of {service} runs"),
    "periodic.pause": Action(
        label="Pause…", method="periodic_pause", done="{task} of {service} is paused",
        fields=[Field(name="reason", label="Reason", help="It is shown wherever the task is")],
        question="Pause {task} of {service}? It does not run until it is resumed, also after a restart.",
    ),
    "periodic.resume": Action(label="Resume", method="periodic_resume", done="{task} of {service} runs again"),
    "reload": Action(
        label="Reload…", method="reload", done="the configuration was reloaded",
        question="Apply the configuration as it is in the files now? A failure undoes all of it.",
    ),
}  # fmt: skip
"""The buttons of our own pages, by name. What differs between two buttons of one kind are their arguments."""


def filled(text: str, arguments: Mapping[str, Any]) -> str:
    """Return a sentence with the arguments in it; one that is not known stays as it is written."""
    for name, value in arguments.items():
        text = text.replace(f"{{{name}}}", str(value))
    return text
