"""The shipped configuration file, the reference page and the JSON Schema, all from the declarations of the options.

The models of managers, drivers and plugins live on higher floors: who calls this hands them in, as `Section`s.
"""

from __future__ import annotations

import json
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from inspect import cleandoc
from typing import Any

from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from ostler.config.core import CORE_SECTIONS
from ostler.config.expectations import Kind, expected, has_unit, holds_secret, kind_of
from ostler.config.layers import dotted
from ostler.config.options import OptionsModel, facts_of
from ostler.config.reference_text import PAGE_START, SHIPPED_START
from ostler.config.units import format_seconds, format_size

_WIDTH = 110
NEEDS = {"live": "nothing", "driver": "a new driver", "service": "a new service", "daemon": "a new daemon"}
"""What a change of an option needs, in words."""


@dataclass(frozen=True, kw_only=True)
class Section:
    """One table of the configuration, as the reference shows it.

    Attributes:
        path: The table's path; a part in capitals (`TOPIC`) stands for any name.
        model: Its options.
        about: What it is for; by default the model's docstring.
        base: A model whose options are shown elsewhere, and left out here.
        values: What the shipped file sets.
        examples: What the shipped file shows where an option has no default of its own.
    """

    path: tuple[str, ...]
    model: type[OptionsModel]
    about: str = ""
    base: type[OptionsModel] | None = None
    values: Mapping[str, object] = field(default_factory=dict)
    examples: Mapping[str, object] = field(default_factory=dict)

    @property
    def is_pattern(self) -> bool:
        """Whether the path stands for many tables."""
        return any(part.isupper() for part in self.path)


def core_sections() -> list[Section]:
    """Return the sections of the daemon itself."""
    examples = {"daemon": {"host": "node1"}}
    return [
        Section(path=(name,), model=model, examples=examples.get(name, {})) for name, model in CORE_SECTIONS.items()
    ]


def service_sections(manager_options: type[OptionsModel], driver_options: type[OptionsModel]) -> list[Section]:
    """Return what every service and every driver has."""
    return [
        Section(
            path=("services", "TOPIC"),
            model=manager_options,
            about="A service: one manager on the topic that the table is named after. These options are those of every"
            " service; a manager may have more of its own.",
            examples={"manager": "volume"},
        ),
        Section(
            path=("services", "TOPIC", "drivers", "NAME"),
            model=driver_options,
            about="A driver (backend) of a service, under a name of your choice. These options are those of every"
            " driver; most have more of their own.",
            examples={"driver": "file"},
        ),
    ]


def render_toml(sections: Sequence[Section]) -> str:
    """Return the shipped configuration file: every option with its help, commented out where it has its default."""
    parts = [SHIPPED_START.strip()]
    for section in sections:
        mark = "#" if section.is_pattern else ""
        lines = ["", *_comment(about(section)), f"{mark}[{dotted(section.path)}]"]
        for name, info in options(section, sections):
            lines += ["", *_comment(_help(name, info)), *_assignment(section, name, info, mark)]
        parts.append("\n".join(lines))
    return "\n\n".join(parts) + "\n"


def render_markdown(sections: Sequence[Section]) -> str:
    """Return the reference page."""
    parts = [PAGE_START.strip()]
    for section in sections:
        parts += [f"## `[{dotted(section.path)}]`", about(section)]
        rows = [_row(name, info) for name, info in options(section, sections)]
        if rows:
            head = "| option | value | default | a change needs | what it does |\n| --- | --- | --- | --- | --- |"
            parts.append("\n".join([head, *rows]))
        else:
            parts.append("No options of its own.")
    return "\n\n".join(parts) + "\n"


def json_schema(sections: Sequence[Section]) -> dict[str, Any]:
    """Return the JSON Schema (draft 2020-12) of a configuration file, for editors and other checkers."""
    root: dict[str, Any] = {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "ostler.toml",
        **_table_schema(),
    }
    definitions: dict[str, Any] = {}
    for section in sections:
        schema = _schema_beside(definitions, section)
        definitions.update(schema.pop("$defs", {}))
        node = _node(root, section.path)
        node.update({**schema, "description": about(section)})
        node["additionalProperties"] = section.is_pattern  # what a pattern stands for has options of its own
        node.pop("required", None)  # layers may each give a part
    return root | ({"$defs": definitions} if definitions else {})


def _schema_beside(definitions: Mapping[str, Any], section: Section) -> dict[str, Any]:
    """Return the schema of a section; models named as others there are told apart by the section."""
    schema: dict[str, Any] = _tidy(section.model.model_json_schema())
    inner = schema.get("$defs", {})
    if all(definitions.get(name, definition) == definition for name, definition in inner.items()):
        return schema
    prefix = ".".join(section.path)
    schema = _tidy(section.model.model_json_schema(ref_template=f"#/$defs/{prefix}.{{model}}"))
    return schema | {"$defs": {f"{prefix}.{name}": value for name, value in schema["$defs"].items()}}


def about(section: Section) -> str:
    """Return what a section is for, as Markdown."""
    text = section.about or cleandoc(section.model.__doc__ or "").removeprefix(f"`[{dotted(section.path)}]`: ")
    return text[:1].upper() + text[1:]


def options(section: Section, sections: Sequence[Section]) -> Iterator[tuple[str, FieldInfo]]:
    """Yield the options of a section that are shown there: not those of its base, nor what has sections of its own."""
    depth = len(section.path)
    deeper = {other.path[depth] for other in sections if len(other.path) > depth and _fits(section.path, other.path)}
    shared = section.base.model_fields if section.base is not None else {}
    for name, info in section.model.model_fields.items():
        if name in deeper or (name in shared and name not in section.values):
            continue
        yield name, info


def _fits(pattern: tuple[str, ...], path: tuple[str, ...]) -> bool:
    return all(one == other or one.isupper() or other.isupper() for one, other in zip(pattern, path, strict=False))


def _comment(text: str) -> list[str]:
    lines = []
    for paragraph in text.split("\n\n"):
        lines += [*textwrap.wrap(paragraph, _WIDTH, break_long_words=False, break_on_hyphens=False), ""]
    return [f"# {line}".rstrip() for line in lines[:-1]]


def _help(name: str, info: FieldInfo) -> str:
    facts = facts_of(info)
    sentences = [(info.description or name).rstrip(".")]
    if info.is_required():
        sentences.append("Required")
    elif facts.shown or default_of(info) is None:
        sentences.append(f"Default: {facts.shown or 'not set'}")
    value = _value_words(info)
    if value != "text":
        sentences.append(f"Value: {value}")
    if facts.reload != "live":
        sentences.append(f"A change needs {NEEDS[facts.reload]}")
    return f"{'. '.join(sentences)}."


def _value_words(info: FieldInfo) -> str:
    unit = facts_of(info).unit
    return expected(kind_of(info), examples=False) + (f", in {unit}" if unit else "")


def _assignment(section: Section, name: str, info: FieldInfo, mark: str) -> list[str]:
    kind = kind_of(info)
    if name in section.values:
        return [f"{mark}{dotted((name,))} = {toml_value(section.values[name])}"]
    value = section.examples.get(name, default_of(info))
    if value is None:
        if holds_secret(kind):
            return ['#%s = {credential = "name"}' % dotted((name,))]  # noqa: UP031  (braces)
        return [f"# {name}: not set"]
    return [f"#{dotted((name,))} = {_written(kind, value)}"]


def default_of(info: FieldInfo) -> Any:
    """Return an option's default as it was declared; None when it has none, or one that is computed."""
    return None if info.default is PydanticUndefined or info.default_factory is not None else info.default


def _written(kind: Kind, value: object) -> str:
    if isinstance(value, int | float) and not isinstance(value, bool) and has_unit(kind):
        text = format_seconds(value) if has_unit(kind) == "s" else format_size(int(value))
        return toml_value(text) if value else "0"
    return toml_value(value)


def toml_value(value: object) -> str:
    """Return a value as TOML writes it."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int | float):
        return str(value)
    if isinstance(value, Mapping):
        inner = ", ".join(f"{dotted((str(key),))} = {toml_value(item)}" for key, item in value.items())
        return f"{{{inner}}}"
    if isinstance(value, list | tuple | set | frozenset):
        return f"[{', '.join(map(toml_value, value))}]"
    return json.dumps(str(value), ensure_ascii=False)


def _row(name: str, info: FieldInfo) -> str:
    facts, kind = facts_of(info), kind_of(info)
    default = default_of(info)
    if facts.shown:
        written = facts.shown
    elif info.is_required():
        written = "**required**"
    else:
        written = "not set" if default is None else f"`{_written(kind, default)}`"
    cells = [f"`{dotted((name,))}`", _value_words(info), written, NEEDS[facts.reload], info.description or ""]
    return f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |"


def _table_schema() -> dict[str, Any]:
    return {"type": "object", "properties": {}, "additionalProperties": False}


def _node(root: dict[str, Any], path: tuple[str, ...]) -> dict[str, Any]:
    node = root
    for part in path:
        if part.isupper():
            if not isinstance(node.get("additionalProperties"), dict):
                node["additionalProperties"] = _table_schema()
            node = node["additionalProperties"]
        else:
            node = node.setdefault("properties", {}).setdefault(part, _table_schema())
    return node


def _tidy(schema: Any) -> Any:
    if isinstance(schema, list):
        return [_tidy(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    if schema.get("format") == "password":
        source = {"type": "object", "additionalProperties": False, "minProperties": 1, "maxProperties": 1}
        return source | {"properties": {"credential": {"type": "string"}, "file": {"type": "string"}}}
    tidied = {key: _tidy(value) for key, value in schema.items() if key not in {"title", "x-ostler"}}
    facts = schema.get("x-ostler")
    return tidied | ({"x-reload": facts["reload"]} if isinstance(facts, dict) and "reload" in facts else {})
