"""YAML with one reading and bounded cost: no aliases, no tags, no duplicate keys."""

from __future__ import annotations

from typing import Any

import yaml

from sczoo.errors import RegistryError

__all__ = ["dump_yaml", "parse_yaml"]

_MAX_BYTES = 16 << 20
_MAX_DEPTH = 40
_MAX_NODES = 1_000_000
_Base: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


class _Loader(_Base):
    """The safe loader, without dates (they stay texts) and with duplicate keys refused."""

    yaml_implicit_resolvers = {  # noqa: RUF012  (PyYAML's own shape)
        first: [(tag, pattern) for tag, pattern in resolvers if not tag.endswith(":timestamp")]
        for first, resolvers in _Base.yaml_implicit_resolvers.items()
    }

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen = set()
        for key, _value in node.value:
            if not isinstance(key, yaml.ScalarNode) or key.tag.endswith(":merge"):
                raise yaml.constructor.ConstructorError(
                    None, None, "a key must be a plain text", key.start_mark
                )
            if key.value in seen:
                raise yaml.constructor.ConstructorError(
                    None, None, "a key occurs twice", key.start_mark
                )
            seen.add(key.value)
        return super().construct_mapping(node, deep=deep)


def parse_yaml(data: bytes, *, where: str) -> Any:
    """Parse a YAML document made of mappings, lists and plain values.

    Raises
    ------
    RegistryError
        If the document is malformed, too large or too deep, or uses aliases, anchors, tags or
        duplicate keys.
    """

    def refuse(reason: str) -> RegistryError:
        return RegistryError(f"{where} cannot be read: {reason}.")

    if len(data) > _MAX_BYTES:
        raise refuse(f"it is larger than {_MAX_BYTES} bytes")
    try:
        text = data.decode("utf-8")
        _check_events(text, refuse)
        return yaml.load(text, Loader=_Loader)
    except (
        yaml.YAMLError,
        ValueError,
        TypeError,
        KeyError,
        OverflowError,
        RecursionError,
    ) as error:
        # newer scanners stop at a depth of their own, before the events are counted
        if isinstance(error, RecursionError) or "nesting depth" in str(error):
            raise refuse(f"it is nested deeper than {_MAX_DEPTH} levels") from error
        raise refuse(" ".join(str(error).split())) from error


def _check_events(text: str, refuse: Any) -> None:
    depth = 0
    for count, event in enumerate(yaml.parse(text, Loader=_Base)):
        if count > _MAX_NODES:
            raise refuse(f"it has more than {_MAX_NODES} parts")
        if isinstance(event, yaml.AliasEvent) or getattr(event, "anchor", None):
            raise refuse("it uses anchors or aliases; write the values out")
        if getattr(event, "tag", None) and not isinstance(event, yaml.DocumentStartEvent):
            raise refuse("it uses tags; write plain values")
        if isinstance(event, yaml.CollectionStartEvent):
            depth += 1
        elif isinstance(event, yaml.CollectionEndEvent):
            depth -= 1
        if depth > _MAX_DEPTH:
            raise refuse(f"it is nested deeper than {_MAX_DEPTH} levels")


def dump_yaml(document: Any) -> bytes:
    """Write plain values so that :func:`parse_yaml` reads the same."""
    text = yaml.safe_dump(document, sort_keys=False, allow_unicode=True, width=100)
    return text.encode("utf-8")
