"""Lark grammars (in llguidance's dialect) of the texts that hold one JSON value of a schema.

As permissive as the feature `is_json`, where grammars allow it: keys in any order, free white space, every spelling of
numbers and strings. llguidance's own JSON Schema compiler fixes the order of listed keys and lets an escape hide a
key that the schema restricts; only what this module has no rule for is left to it.

What is valid and yet never said: a member that a later one of the same key makes good; an escape in a key beside listed
keys; other spellings of a value that is listed; and, where llguidance compiles (minLength, minimum, pattern, allOf, a
``$ref`` and the like), keys in another order, 1.0 and 1e5 for integers, exponents, escapes by number. What is said and
not valid: there, a repeated key counts twice for minProperties.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import combinations
from typing import Any

from alignbench.errors import UsageError, brief

NUMBER = r"-?(0|[1-9][0-9]*)(\.[0-9]+)?([eE][+-]?[0-9]+)?"
# 1.0 and 1e5 are integers to JSON Schema; their size is limited, since 1e999 is infinite to Python
INTEGER = r"-?(0|[1-9][0-9]*|(0|[1-9][0-9]{0,99})(\.0+([eE]\+?[0-9]{1,2})?|[eE]\+?[0-9]{1,2}))"
TAIL = r"(?s:.*)"
# what may follow a number that ends there: nothing that makes it longer
MORE = rf"([^0-9.eE]{TAIL}|\.([^0-9]{TAIL})?|[eE]([^0-9+-]{TAIL}|[+-]([^0-9]{TAIL})?)?)"
SHARED = r"""
any: object | array | STRING | NUMBER | "true" | "false" | "null"
object: "{" WS? "}" | "{" WS? member ("," WS? member)* "}"
member: STRING WS? ":" WS? any WS?
array: "[" WS? "]" | "[" WS? any WS? ("," WS? any WS?)* "]"
STRING: /"([^"\\\x00-\x1f]|\\(["\\\/bfnrt]|u[0-9a-fA-F]{4}))*"/
KEY: /"([^"\\\x00-\x1f]|\\["\\bfnrt])*"/
WS: /[ \t\n\r]+/
""" + "\n".join([
    f"NUMBER: /{NUMBER}/", f"NUMBER_FIRST: /{NUMBER}({MORE})?/", f"INTEGER: /{INTEGER}/",
    f"INTEGER_FIRST: /{INTEGER}({MORE})?/", f"MORE: /{MORE}/", f"REST: /{TAIL}/",
])  # fmt: skip
TYPES = {"object": "object", "array": "array", "string": "STRING", "boolean": '("true" | "false")', "null": '"null"',
         "integer": "INTEGER", "number": "NUMBER"}  # fmt: skip
SILENT = {"title", "description", "default", "examples", "format", "$schema", "$id", "$comment", "deprecated"}
OBJECT = {"properties", "required", "additionalProperties"}
MOST_REQUIRED = 6  # keys in any order take a rule for each set of them that is still to come


def lark_of(schema: Any, first: bool) -> tuple[str, bool]:
    """The grammar of a value of `schema` with white space around it; `first`: of any text that begins with one.

    Beside it, whether all may follow a value that is no number. Raises UsageError where the schema is none, or where it
    rules out every value.
    """
    _check(schema)
    rules = _Rules()
    parts = _parts(schema) if first else None
    if parts is None:
        found = rules.root(schema)
        value = found and f"{found} {'MORE' if first else 'WS'}?"
    else:
        value = " | ".join(way for part in parts if (way := _then_anything(rules, part)))
    if not value:
        raise UsageError("json_schema: no value satisfies it")
    return "\n".join([f"start: WS? ({value})", SHARED, *rules.lines, ""]), parts is not None


def _parts(schema: Any) -> list[Mapping[str, Any]] | None:
    """The schema in parts that each allow one type; None where its types are not plain to see."""
    if isinstance(schema, bool) or "$ref" in json.dumps(schema):
        return None
    if set(schema) - SILENT in ({"enum"}, {"const"}):
        return [{"const": value} for value in schema.get("enum", [schema.get("const")])]
    if set(schema) - SILENT == {"anyOf"}:
        ways = [_parts(way) for way in schema["anyOf"]]
        return None if None in ways else [part for way in ways for part in way or ()]
    kinds = schema.get("type", None if set(schema) - SILENT else list(TYPES))
    return kinds and [{**schema, "type": kind} for kind in ([kinds] if isinstance(kinds, str) else kinds)]


def _then_anything(rules: _Rules, part: Mapping[str, Any]) -> str | None:
    """A value of one type and whatever follows it, unless that makes a number longer or another one."""
    value = rules.value(part)
    if value in ("NUMBER", "INTEGER"):  # one terminal, since llguidance never takes back the dot of "1. Then"
        return f"{value}_FIRST"
    number = part["type"] in ("number", "integer") if "type" in part else isinstance(part["const"], int | float)
    return value and f"{value} {'MORE' if number else 'REST'}?"


def _check(schema: Any) -> None:
    from jsonschema.exceptions import SchemaError
    from jsonschema.validators import validator_for

    if not isinstance(schema, bool | Mapping):
        raise UsageError(f"json_schema is {brief(schema)}, which is no JSON Schema (a mapping)")
    try:
        json.dumps(schema)
        validator_for(schema).check_schema(schema)
    except TypeError as error:
        raise UsageError(f"json_schema is no JSON: {error}") from None
    except SchemaError as error:
        where = "".join(f"{key}: " for key in error.absolute_path)
        raise UsageError(f"json_schema is no JSON Schema: {where}{brief(error.message)}") from None


def _theirs(schema: Any) -> str:
    """The schema as llguidance compiles it; without escapes by number, behind which it lets a listed key hide."""
    options = {"whitespace_flexible": True, "json_allowed_escapes": 'nrbtf\\"'}
    return f"%json {json.dumps({'x-guidance': options, **schema})}"


@dataclass
class _Rules:
    """Rules made so far; each method returns what stands for a value, None where nothing does."""

    lines: list[str] = field(default_factory=list)

    def named(self, body: str) -> str:
        """A rule with this body."""
        self.lines.append(f"r{len(self.lines)}: {body}")
        return f"r{len(self.lines) - 1}"

    def root(self, schema: Any) -> str | None:
        """A value of the whole schema; what its `$ref` name is known there alone."""
        if isinstance(schema, bool) or "$ref" not in json.dumps(schema):
            return self.value(schema)
        return self.named(_theirs(schema))

    def value(self, schema: Any) -> str | None:
        """A value of `schema`."""
        if isinstance(schema, bool):
            return "any" if schema else None
        known = {key: value for key, value in schema.items() if key not in SILENT}
        if not known:
            return "any"
        kinds = known.pop("type", None)
        made = [self._typed(kind, known) for kind in ([kinds] if isinstance(kinds, str) else kinds or ())]
        if not made or any(part is NotImplemented for part in made):
            return self.named(_theirs(schema))
        return self._either(made)

    def _either(self, ways: list[str | None]) -> str | None:
        found = [way for way in ways if way]
        return found[0] if len(found) == 1 else self.named(" | ".join(found)) if found else None

    def _typed(self, kind: str, known: Mapping[str, Any]) -> Any:
        """A value of this type; NotImplemented where a keyword has no rule here."""
        keys = set(known)
        if not keys:
            return TYPES[kind]
        if kind == "object" and keys <= OBJECT and len(known.get("required", ())) <= MOST_REQUIRED:
            return self._object(known)
        if kind == "array" and keys == {"items"}:
            return self._array(self.value(known["items"]))
        return NotImplemented

    def _array(self, item: str | None) -> str:
        some = f' | "[" WS? {item} WS? ("," WS? {item} WS?)* "]"' if item else ""
        return self.named(f'"[" WS? "]"{some}')

    def _object(self, known: Mapping[str, Any]) -> str | None:
        """An object whose listed keys come in any order, and however often: each time as the schema says."""
        listed, others = known.get("properties", {}), known.get("additionalProperties", True)
        needed = frozenset(known.get("required", ()))
        members = {
            key: self._member(_literal(key), listed.get(key, others))
            for key in {**listed, **dict.fromkeys(sorted(needed))}
        }
        if any(members[key] is None for key in needed):
            return None
        free = [member for key, member in members.items() if member and key not in needed]
        if rest := self._member(self._other(list(members)), others):
            free.append(rest)
        some = self._members(needed, members, free)
        none = [] if needed else ['"{" WS? "}"']
        return self.named(" | ".join([*none, *([f'"{{" WS? {some} "}}"'] if some else [])]))

    def _member(self, key: str, schema: Any) -> str | None:
        value = self.value(schema)
        return self.named(f'{key} WS? ":" WS? {value} WS?') if value else None

    def _other(self, listed: list[str]) -> str:
        """A key that is none of those listed; then spelt in one way only, so that no escape hides a listed one."""
        if not listed:
            return "STRING"
        self.lines.append(f"OTHER{len(self.lines)}: KEY & ~({' | '.join(map(_literal, listed))})")
        return self.lines[-1].split(":")[0]

    def _members(self, needed: frozenset[str], members: Mapping[str, str | None], free: list[str]) -> str | None:
        """Members until nothing that is `needed` is missing: a rule for each set of keys that may still be."""
        names: dict[frozenset[str], str] = {}
        for missing in (frozenset(m) for n in range(len(needed) + 1) for m in combinations(sorted(needed), n)):
            here = f"m{len(self.lines)}"
            now = [*free, *(str(members[key]) for key in sorted(needed - missing))]
            ways = [f'{member} "," WS? {here}' for member in now] + ([] if missing else now)
            for key in sorted(missing):
                left = names.get(missing - {key})
                ways += [f'{members[key]} "," WS? {left}'] if left else []
                ways += [str(members[key])] if len(missing) == 1 else []
            if ways:
                names[missing] = here
                self.lines.append(f"{here}: {' | '.join(ways)}")
        return names.get(needed)


def _literal(key: str) -> str:
    """A key as JSON spells it, as a string of Lark."""
    return json.dumps(json.dumps(key, ensure_ascii=False), ensure_ascii=False)
