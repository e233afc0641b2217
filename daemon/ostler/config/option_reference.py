"""Generates the shipped configuration file, the reference page and the JSON Schema from the declared options.

The models of managers, drivers and plugins belong to higher layers: callers pass them as `ReferenceSection`s.
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

from ostler.config.core_sections import CORE_SECTIONS
from ostler.config.layers import dotted
from ostler.config.option_reference_text import PAGE_HEADER, SHIPPED_FILE_HEADER
from ostler.config.options import OptionsModel, option_metadata
from ostler.config.type_descriptions import ConstrainedType, describe_type, is_secret_type, type_of_field, unit_of
from ostler.config.units import format_seconds, format_size

_LINE_WIDTH = 110
CHANGE_REQUIREMENTS = {
    "live": "no restart",
    "driver": "a restart of the driver",
    "service": "a restart of the service",
    "daemon": "a restart of the daemon",
}
"""What a change of an option needs, in words."""


@dataclass(frozen=True, kw_only=True)
class ReferenceSection:
    """A table of the configuration, for the reference.

    Attributes:
        path: The table's path; a part in capitals (`TOPIC`) stands for any name.
        model: Its options.
        description: Its purpose; by default the model's docstring.
        base: A model whose options are shown elsewhere, and omitted here.
        values: The values that the shipped file sets.
        examples: The values that the shipped file shows for options without a default.
    """

    path: tuple[str, ...]
    model: type[OptionsModel]
    description: str = ""
    base: type[OptionsModel] | None = None
    values: Mapping[str, object] = field(default_factory=dict)
    examples: Mapping[str, object] = field(default_factory=dict)

    @property
    def is_pattern(self) -> bool:
        """Whether the path stands for many tables."""
        return any(part.isupper() for part in self.path)


def core_sections() -> list[ReferenceSection]:
    """Return the sections of the daemon itself."""
    examples = {"daemon": {"host": "node1"}}
    return [
        ReferenceSection(path=(name,), model=model, examples=examples.get(name, {}))
        for name, model in CORE_SECTIONS.items()
    ]


def service_sections(manager_options: type[OptionsModel], driver_options: type[OptionsModel]) -> list[ReferenceSection]:
    """Return the sections that every service and every driver has."""
    return [
        ReferenceSection(
            path=("services", "TOPIC"),
            model=manager_options,
            description="A service: a manager on the topic that is the name of the table. All services have "
            "these options;"
            " a manager may have further ones.",
            examples={"manager": "volume"},
        ),
        ReferenceSection(
            path=("services", "TOPIC", "drivers", "NAME"),
            model=driver_options,
            description="A driver (backend) of a service, under a name of your choice. All drivers have these options;"
            " most have further ones.",
            examples={"driver": "file"},
        ),
    ]


def render_toml(sections: Sequence[ReferenceSection]) -> str:
    """Return the shipped configuration file: every option with its help, commented out if it has its default."""
    parts = [SHIPPED_FILE_HEADER.strip()]
    for section in sections:
        mark = "#" if section.is_pattern else ""
        lines = ["", *_comment(section_text(section)), f"{mark}[{dotted(section.path)}]"]
        for name, info in shown_options(section, sections):
            lines += ["", *_comment(_option_comment(name, info)), *_option_lines(section, name, info, mark)]
        parts.append("\n".join(lines))
    return "\n\n".join(parts) + "\n"


def render_markdown(sections: Sequence[ReferenceSection]) -> str:
    """Return the reference page."""
    parts = [PAGE_HEADER.strip()]
    for section in sections:
        parts += [f"## `[{dotted(section.path)}]`", section_text(section)]
        rows = [_option_row(name, info) for name, info in shown_options(section, sections)]
        if rows:
            head = "| option | value | default | a change needs | description |\n| --- | --- | --- | --- | --- |"
            parts.append("\n".join([head, *rows]))
        else:
            parts.append("No options.")
    return "\n\n".join(parts) + "\n"


def json_schema(sections: Sequence[ReferenceSection]) -> dict[str, Any]:
    """Return the JSON Schema (draft 2020-12) of a configuration file, for editors and other checkers."""
    root: dict[str, Any] = {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "ostler.toml",
        **_table_schema(),
    }
    definitions: dict[str, Any] = {}
    for section in sections:
        schema = _section_schema(definitions, section)
        definitions.update(schema.pop("$defs", {}))
        node = _schema_node(root, section.path)
        node.update({**schema, "description": section_text(section)})
        node["additionalProperties"] = section.is_pattern  # a concrete table has further options
        node.pop("required", None)  # each layer may set a part
    return root | ({"$defs": definitions} if definitions else {})


def _section_schema(definitions: Mapping[str, Any], section: ReferenceSection) -> dict[str, Any]:
    """Return the schema of a section; equal names of models are distinguished by the section."""
    schema: dict[str, Any] = _clean_schema(section.model.model_json_schema())
    inner = schema.get("$defs", {})
    if all(definitions.get(name, definition) == definition for name, definition in inner.items()):
        return schema
    prefix = ".".join(section.path)
    schema = _clean_schema(section.model.model_json_schema(ref_template=f"#/$defs/{prefix}.{{model}}"))
    return schema | {"$defs": {f"{prefix}.{name}": value for name, value in schema["$defs"].items()}}


def section_text(section: ReferenceSection) -> str:
    """Return the description of a section, as Markdown."""
    text = section.description or cleandoc(section.model.__doc__ or "").removeprefix(f"`[{dotted(section.path)}]`: ")
    return text[:1].upper() + text[1:]


def shown_options(section: ReferenceSection, sections: Sequence[ReferenceSection]) -> Iterator[tuple[str, FieldInfo]]:
    """Yield the options of a section to show: not those of its base, nor those that are sections themselves."""
    depth = len(section.path)
    deeper = {other.path[depth] for other in sections if len(other.path) > depth and _matches(section.path, other.path)}
    shared = section.base.model_fields if section.base is not None else {}
    for name, info in section.model.model_fields.items():
        if name in deeper or (name in shared and name not in section.values):
            continue
        yield name, info


def _matches(pattern: tuple[str, ...], path: tuple[str, ...]) -> bool:
    return all(one == other or one.isupper() or other.isupper() for one, other in zip(pattern, path, strict=False))


def _comment(text: str) -> list[str]:
    lines = []
    for paragraph in text.split("\n\n"):
        lines += [*textwrap.wrap(paragraph, _LINE_WIDTH, break_long_words=False, break_on_hyphens=False), ""]
    return [f"# {line}".rstrip() for line in lines[:-1]]


def _option_comment(name: str, info: FieldInfo) -> str:
    facts = option_metadata(info)
    sentences = [(info.description or name).rstrip(".")]
    if info.is_required():
        sentences.append("Required")
    elif facts.shown or default_of(info) is None:
        sentences.append(f"Default: {facts.shown or 'not set'}")
    value = _describe_value(info)
    if value != "text":
        sentences.append(f"Value: {value}")
    if facts.reload != "live":
        sentences.append(f"A change needs {CHANGE_REQUIREMENTS[facts.reload]}")
    return f"{'. '.join([*sentences, *_name_sentences(info)])}."


def _name_sentences(info: FieldInfo) -> list[str]:
    """Return what is to be known of an option's earlier name, and of its removal."""
    facts = option_metadata(info)
    found = []
    if facts.renamed_from:
        name = dotted((facts.renamed_from,))
        found.append(f"Its earlier name `{name}` is accepted until the next minor version")
    if facts.deprecated:
        found.append(f"Deprecated, and removed in the next minor version: {facts.deprecated.rstrip('.')}")
    return found


def _describe_value(info: FieldInfo) -> str:
    unit = option_metadata(info).unit
    return describe_type(type_of_field(info), examples=False) + (f", in {unit}" if unit else "")


def _option_lines(section: ReferenceSection, name: str, info: FieldInfo, mark: str) -> list[str]:
    kind = type_of_field(info)
    if name in section.values:
        return [f"{mark}{dotted((name,))} = {toml_value(section.values[name])}"]
    value = section.examples.get(name, default_of(info))
    if value is None:
        if is_secret_type(kind):
            return ['#%s = {credential = "name"}' % dotted((name,))]  # noqa: UP031  (braces)
        return [f"# {name}: not set"]
    return [f"#{dotted((name,))} = {_format_default(kind, value)}"]


def default_of(info: FieldInfo) -> Any:
    """Return an option's declared default; None if it has none or a computed one."""
    return None if info.default is PydanticUndefined or info.default_factory is not None else info.default


def _format_default(kind: ConstrainedType, value: object) -> str:
    if isinstance(value, int | float) and not isinstance(value, bool) and unit_of(kind):
        text = format_seconds(value) if unit_of(kind) == "s" else format_size(int(value))
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


def _option_row(name: str, info: FieldInfo) -> str:
    facts, kind = option_metadata(info), type_of_field(info)
    default = default_of(info)
    if facts.shown:
        written = facts.shown
    elif info.is_required():
        written = "**required**"
    else:
        written = "not set" if default is None else f"`{_format_default(kind, default)}`"
    cells = [
        f"`{dotted((name,))}`",
        _describe_value(info),
        written,
        CHANGE_REQUIREMENTS[facts.reload],
        _described(info),
    ]
    return f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |"


def _described(info: FieldInfo) -> str:
    more, text = _name_sentences(info), info.description or ""
    return ". ".join([part for part in (text.rstrip("."), *more) if part]) + "." if more else text


def _table_schema() -> dict[str, Any]:
    return {"type": "object", "properties": {}, "additionalProperties": False}


def _schema_node(root: dict[str, Any], path: tuple[str, ...]) -> dict[str, Any]:
    node = root
    for part in path:
        if part.isupper():
            if not isinstance(node.get("additionalProperties"), dict):
                node["additionalProperties"] = _table_schema()
            node = node["additionalProperties"]
        else:
            node = node.setdefault("properties", {}).setdefault(part, _table_schema())
    return node


def _clean_schema(schema: Any) -> Any:
    if isinstance(schema, list):
        return [_clean_schema(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    if schema.get("format") == "password":
        source = {"type": "object", "additionalProperties": False, "minProperties": 1, "maxProperties": 1}
        return source | {"properties": {"credential": {"type": "string"}, "file": {"type": "string"}}}
    tidied = {key: _clean_schema(value) for key, value in schema.items() if key not in {"title", "x-ostler"}}
    facts = schema.get("x-ostler")
    if isinstance(facts, dict) and "reload" in facts:
        tidied |= {"x-reload": facts["reload"]} | ({"deprecated": True} if facts.get("deprecated") else {})
    return _with_earlier_names(tidied, schema)


def _with_earlier_names(tidied: dict[str, Any], schema: Mapping[str, Any]) -> dict[str, Any]:
    """Return the schema of a table that accepts options by their earlier names as well, marked as deprecated."""
    options = schema.get("properties")
    for new, option in options.items() if isinstance(options, dict) else ():
        facts = option.get("x-ostler") if isinstance(option, dict) else None
        old = facts.get("renamed_from") if isinstance(facts, dict) else None
        if old and old not in tidied["properties"]:
            known = {"description": f"Its name is now {new}.", "deprecated": True}
            tidied["properties"][old] = tidied["properties"][new] | known
            tidied["required"] = [name for name in tidied.get("required", ()) if name != new]
    return tidied
