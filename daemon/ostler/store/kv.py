"""A small key-value store for parts without a table of their own."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from ostler.errors import InvalidInput
from ostler.store.models import KeyValueRow
from ostler.types import Json

if TYPE_CHECKING:
    from ostler.store.store import Store


class KeyValue:
    """Keys and JSON values in a namespace; a value is committed when `set` returns.

    The methods block, so they are for threads; on the loop use `await store.awrite(lambda: kv.set(…))`. Inside
    `store.write` they are part of that write.

    Args:
        store: Where the values are stored.
        namespace: The owner of the values, for instance `driver/volume/local`.
    """

    def __init__(self, store: Store, namespace: str) -> None:
        self._store = store
        self.namespace = namespace

    def get(self, key: str, default: Json = None) -> Json:
        """Return the value of `key`, or `default` when there is none."""

        def read() -> Json:
            row = self._own_rows(KeyValueRow.select(KeyValueRow.value), key).tuples().first()
            return default if row is None else _decode(row[0])

        return self._store.read(read)

    def set(self, key: str, value: Json) -> None:
        """Set the value of `key`.

        Raises:
            InvalidInput: The value is not plain JSON.
        """
        text = _encode(self.namespace, key, value)
        row = {"namespace": self.namespace, "key": key, "value": text}
        self._store.write(lambda: KeyValueRow.replace(row).execute(), label=f"set {key} of {self.namespace}")

    def delete(self, key: str) -> bool:
        """Remove `key`; return whether it existed."""

        def remove() -> bool:
            return bool(self._own_rows(KeyValueRow.delete(), key).execute())

        return self._store.write(remove, label=f"delete {key} of {self.namespace}")

    def items(self, prefix: str = "") -> dict[str, Json]:
        """Return all keys that begin with `prefix` and their values, in order of the keys."""

        def read() -> dict[str, Json]:
            rows: Any = (
                KeyValueRow.select(KeyValueRow.key, KeyValueRow.value)
                .where(KeyValueRow.namespace == self.namespace)
                .order_by(KeyValueRow.key)
                .tuples()
            )
            return {key: _decode(text) for key, text in rows if key.startswith(prefix)}

        return self._store.read(read)

    def _own_rows(self, query: Any, key: str) -> Any:
        return query.where((KeyValueRow.namespace == self.namespace) & (KeyValueRow.key == key))


def _encode(namespace: str, key: str, value: Json) -> str:
    try:
        return json.dumps(value, separators=(",", ":"), allow_nan=False)
    except (TypeError, ValueError) as error:
        raise InvalidInput(
            f"the value of {key} of {namespace} is not plain JSON: {error}",
            hint="use numbers, strings, lists, and dictionaries with string keys",
            key=key,
        ) from error


def _decode(text: str) -> Json:
    value: Json = json.loads(text)
    return value
