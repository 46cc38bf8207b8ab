"""Choosing rows of a manifest by a condition such as ``id_distance_30 < 0.5 and not warnings``.

The condition is Python's expression syntax, read as data and never executed: columns, numbers,
texts, lists, comparisons, ``and or not in``, ``is None`` and arithmetic. A null compares as in SQL:
the comparison is unknown and the row is not chosen, unless ``is None`` asks for it.
"""

from __future__ import annotations

import ast
import difflib
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from fc4d_ray.errors import ConfigError

if TYPE_CHECKING:
    import pyarrow as pa
    import pyarrow.compute as pc

_COMPARISONS: dict[type[ast.cmpop], Callable[[Any, Any], Any]] = {
    ast.Lt: lambda a, b: a < b,
    ast.LtE: lambda a, b: a <= b,
    ast.Gt: lambda a, b: a > b,
    ast.GtE: lambda a, b: a >= b,
    ast.Eq: lambda a, b: a == b,
    ast.NotEq: lambda a, b: a != b,
}
_ARITHMETIC: dict[type[ast.operator], Callable[[Any, Any], Any]] = {
    ast.Add: lambda a, b: a + b,
    ast.Sub: lambda a, b: a - b,
    ast.Mult: lambda a, b: a * b,
    ast.Div: lambda a, b: a / b,
}


def select_rows(table: pa.Table, condition: str) -> pa.Table:
    """The rows for which the condition is true, in their order.

    Raises ``ConfigError`` naming the place of a mistake and the nearest column of an unknown one.
    """
    import pyarrow as pa

    expression = parse_condition(condition, table.column_names)
    try:
        return table.filter(expression)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError, pa.ArrowTypeError) as error:
        raise ConfigError(
            f"--where {condition!r} does not fit the columns' types: {str(error).splitlines()[0]}"
        ) from error


def parse_condition(condition: str, columns: Sequence[str]) -> pc.Expression:
    """The condition as an Arrow expression over ``columns``."""
    try:
        tree = ast.parse(condition.strip(), mode="eval").body
    except SyntaxError as error:
        place = condition.strip()[max((error.offset or 1) - 1, 0) :][:20]
        raise ConfigError(f"--where is no condition: {error.msg} at {place!r}") from error
    return _Reader(condition.strip(), columns).condition(tree)


class _Reader:
    def __init__(self, text: str, columns: Sequence[str]) -> None:
        self._text, self._columns = text, tuple(columns)

    def condition(self, node: ast.expr) -> pc.Expression:
        """Something that is true, false or unknown."""
        if isinstance(node, ast.BoolOp):
            parts = [self.condition(value) for value in node.values]
            result = parts[0]
            for part in parts[1:]:
                result = result & part if isinstance(node.op, ast.And) else result | part
            return result
        if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not):
            return ~self.condition(node.operand)
        if isinstance(node, ast.Compare):
            return self._comparison(node)
        if isinstance(node, ast.Name):
            return self._column(node)
        raise self._unknown(node)

    def _comparison(self, node: ast.Compare) -> pc.Expression:
        """``a < b <= c`` is two comparisons."""
        result, left = None, node.left
        for operator, right in zip(node.ops, node.comparators, strict=True):
            part = self._one(node, left, operator, right)
            result = part if result is None else result & part
            left = right
        assert result is not None
        return result

    def _one(
        self, node: ast.Compare, left: ast.expr, operator: ast.cmpop, right: ast.expr
    ) -> pc.Expression:
        if isinstance(operator, (ast.Is, ast.IsNot)):
            if not (isinstance(right, ast.Constant) and right.value is None):
                raise self._unknown(node)
            absent = self._value(left).is_null()
            return ~absent if isinstance(operator, ast.IsNot) else absent
        if isinstance(operator, (ast.In, ast.NotIn)):
            if not isinstance(right, (ast.List, ast.Tuple)):
                raise self._unknown(node)
            inside = self._value(left).isin([self._constant(item) for item in right.elts])
            return ~inside if isinstance(operator, ast.NotIn) else inside
        return _COMPARISONS[type(operator)](self._value(left), self._value(right))

    def _value(self, node: ast.expr) -> pc.Expression:
        """A column, a constant, or arithmetic on them."""
        import pyarrow.compute as pc

        if isinstance(node, ast.Name):
            return self._column(node)
        if isinstance(node, ast.BinOp) and type(node.op) in _ARITHMETIC:
            return _ARITHMETIC[type(node.op)](self._value(node.left), self._value(node.right))
        if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
            return pc.scalar(0) - self._value(node.operand)
        return pc.scalar(self._constant(node))

    def _constant(self, node: ast.expr) -> Any:
        if isinstance(node, ast.Constant) and isinstance(node.value, (bool, int, float, str)):
            return node.value
        if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
            value = self._constant(node.operand)
            if isinstance(value, (int, float)):
                return -value
        raise self._unknown(node)

    def _column(self, node: ast.Name) -> pc.Expression:
        import pyarrow.compute as pc

        if node.id not in self._columns:
            close = difflib.get_close_matches(node.id, self._columns, n=1, cutoff=0.5)
            known = f"; it has {', '.join(self._columns)}"
            hint = f"; did you mean {close[0]!r}?" if close else known
            raise ConfigError(f"--where: the manifest has no column {node.id!r}{hint}")
        return pc.field(node.id)

    def _unknown(self, node: ast.expr) -> ConfigError:
        part = ast.get_source_segment(self._text, node) or self._text
        return ConfigError(
            f"--where: {part!r} is not understood; use columns, numbers, texts, comparisons, "
            "and, or, not, in [..], is None"
        )
