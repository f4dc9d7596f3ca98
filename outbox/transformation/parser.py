"""Make a tree of an expression, or say what is wrong with it and where.

The grammar is that of JMESPath (jmespath.org/specification.html), read by precedence. Size and depth of the tree are
bounded here, so that whoever walks it needs no further care.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from outbox._text import nearest
from outbox.transformation.signatures import EXPRESSION, SIGNATURES
from outbox.transformation.tokens import ExpressionError, Token, tokens_of
from outbox.transformation.tree import MAX_BYTES, MAX_DEPTH, MAX_NODES, Node

if TYPE_CHECKING:
    from outbox.transformation.signatures import Signature

__all__ = ["parse"]

# How tightly an operator binds what stands before it; what is not here ends an expression.
_POWER = {
    "|": 1, "||": 2, "&&": 3, "==": 5, "!=": 5, "<": 5, "<=": 5, ">": 5, ">=": 5,
    "[]": 9, "*": 20, "[?": 21, ".": 40, "!": 45, "{": 50, "[": 55, "(": 60,
}  # fmt: skip
_COMPARISONS = ("==", "!=", "<", "<=", ">", ">=")
_ENDS_PROJECTION = 10  # whatever binds less is about the whole list, not about each of its elements
_WORDS = {"end": "the end of the expression", "name": "a name", "quoted": "a quoted name",
          "number": "a number", "literal": "a literal"}  # fmt: skip


def parse(text: str) -> Node:
    """Return the tree of an expression.

    Raises:
        ExpressionError: it is no JMESPath, calls a function that is not there or in a wrong way, or is too large.
    """
    if not text.strip():
        raise ExpressionError(0, "it is empty; write @ for the whole event")
    if (size := len(text.encode())) > MAX_BYTES:
        raise ExpressionError(0, f"{size} bytes; the limit is {MAX_BYTES}")
    return _Parser(tokens_of(text)).whole()


class _Parser:
    def __init__(self, tokens: list[Token]) -> None:
        self._tokens = tokens
        self._place = 0
        self._nodes = 0
        self._nesting = 0

    def whole(self) -> Node:
        tree = self._expression(0)
        if self._now.kind != "end":
            raise self._unexpected("an operator, or the end")
        return tree

    @property
    def _now(self) -> Token:
        return self._tokens[self._place]

    @property
    def _next(self) -> Token:
        return self._tokens[min(self._place + 1, len(self._tokens) - 1)]

    def _advance(self) -> Token:
        token = self._now
        self._place += 1
        return token

    def _take(self, kind: str) -> Token:
        if self._now.kind != kind:
            raise self._unexpected(kind)
        return self._advance()

    def _took(self, kind: str) -> bool:
        if self._now.kind != kind:
            return False
        self._place += 1
        return True

    def _unexpected(self, wanted: str) -> ExpressionError:
        token = self._now
        return ExpressionError(token.at, f"{_WORDS.get(token.kind, token.kind)} stands where {wanted} belongs")

    def _node(self, kind: str, at: int, value: Any = None, parts: tuple[Node, ...] = ()) -> Node:
        self._nodes += 1
        depth = 1 + max((part.depth for part in parts), default=0)
        if self._nodes > MAX_NODES:
            raise ExpressionError(at, f"the expression has more than {MAX_NODES} parts")
        self._require_depth(depth, at)
        return Node(kind, at, value, parts, depth)

    def _require_depth(self, depth: int, at: int) -> None:
        if depth > MAX_DEPTH:
            raise ExpressionError(at, f"nested deeper than {MAX_DEPTH} levels")

    def _expression(self, power: int) -> Node:
        """Read an expression up to the first operator that binds no tighter than `power`."""
        self._nesting += 1
        self._require_depth(self._nesting, self._now.at)
        left = self._first()
        while power < _POWER.get(self._now.kind, 0):
            left = self._continue(left)
        self._nesting -= 1
        return left

    def _first(self) -> Node:
        """Read what an expression begins with."""
        token = self._advance()
        match token.kind:
            case "literal":
                return self._node("literal", token.at, token.value)
            case "name" if self._now.kind == "(":
                return self._call(token)
            case "name" | "quoted":
                return self._node("field", token.at, token.value)
            case "@":
                return self._node("current", token.at)
            case "!":
                return self._node("not", token.at, parts=(self._expression(_POWER["!"]),))
            case "(":
                inner = self._expression(0)
                self._take(")")
                return inner
            case "{":
                return self._object(token.at)
            case _:
                return self._first_of_list(token)

    def _first_of_list(self, token: Token) -> Node:
        current = self._node("current", token.at)
        match token.kind:
            case "*":
                return self._projection("project_values", token.at, current, _POWER["*"])
            case "[]":
                return self._flattened(token.at, current)
            case "[?":
                return self._filtered(token.at, current)
            case "[" if self._now.kind in ("number", ":"):
                return self._indexed(token.at, current)
            case "[" if self._now.kind == "*" and self._next.kind == "]":
                self._place += 2
                return self._projection("project", token.at, current, _POWER["*"])
            case "[":
                return self._list(token.at)
            case "&":
                raise ExpressionError(token.at, "& stands only before an argument, as in sort_by(items, &price)")
        self._place -= 1
        raise self._unexpected("a name, a literal, a function or @")

    def _continue(self, left: Node) -> Node:
        """Read one operator and what follows it, of which `left` is the beginning."""
        token = self._advance()
        match token.kind:
            case ".":
                if self._took("*"):
                    return self._projection("project_values", token.at, left, _POWER["."])
                return self._then(left, self._after_dot(_POWER["."]))
            case "|":
                return self._then(left, self._expression(_POWER["|"]))
            case "||" | "&&":
                kind = "or" if token.kind == "||" else "and"
                return self._node(kind, token.at, parts=(left, self._expression(_POWER[token.kind])))
            case "[]":
                return self._flattened(token.at, left)
            case "[?":
                return self._filtered(token.at, left)
            case "[" if self._now.kind in ("number", ":"):
                return self._indexed(token.at, left)
            case "[":
                self._take("*")
                self._take("]")
                return self._projection("project", token.at, left, _POWER["*"])
        if token.kind in _COMPARISONS:
            return self._node("compare", token.at, token.kind, (left, self._expression(_POWER[token.kind])))
        self._place -= 1
        raise self._unexpected("an operator, or the end")

    def _then(self, left: Node, right: Node) -> Node:
        """Return `right` on the result of `left`; a long chain of names stays flat."""
        parts = (*left.parts, right) if left.kind == "then" else (left, right)
        return self._node("then", left.at, parts=parts)

    def _after_dot(self, power: int) -> Node:
        token = self._now
        if token.kind in ("name", "quoted", "*"):
            return self._expression(power)
        if self._took("["):
            return self._list(token.at)
        if self._took("{"):
            return self._object(token.at)
        raise self._unexpected("a name, [, { or * after the dot")

    def _projection(self, kind: str, at: int, base: Node, power: int) -> Node:
        return self._node(kind, at, parts=(base, self._of_each(power)))

    def _of_each(self, power: int) -> Node:
        """Read what is done with each element of a projection: all that follows and binds tightly enough."""
        token = self._now
        if _POWER.get(token.kind, 0) < _ENDS_PROJECTION:
            return self._node("current", token.at)
        if token.kind in ("[", "[?"):
            return self._expression(power)
        if self._took("."):
            return self._after_dot(power)
        raise self._unexpected("., [ or an operator")

    def _flattened(self, at: int, base: Node) -> Node:
        return self._projection("project", at, self._node("flatten", at, parts=(base,)), _POWER["[]"])

    def _filtered(self, at: int, base: Node) -> Node:
        condition = self._expression(0)
        self._take("]")
        each = self._of_each(_POWER["[?"])
        return self._node("filter", at, parts=(base, each, condition))

    def _indexed(self, at: int, left: Node) -> Node:
        if self._now.kind == "number" and self._next.kind != ":":
            index = self._node("index", at, self._advance().value)
            self._take("]")
            return self._then(left, index)
        return self._projection("project", at, self._then(left, self._slice(at)), _POWER["*"])

    def _slice(self, at: int) -> Node:
        bounds: list[int | None] = [None]
        while self._now.kind != "]":
            if self._now.kind == ":" and len(bounds) < 3:
                self._advance()
                bounds.append(None)
            elif self._now.kind == "number" and bounds[-1] is None:
                bounds[-1] = self._advance().value
            else:
                raise self._unexpected("a number, : or ]")
        self._advance()
        if bounds[2:] == [0]:
            raise ExpressionError(at, "a slice by steps of 0 never ends; use another step")
        return self._node("slice", at, (*bounds, None, None)[:3])

    def _list(self, at: int) -> Node:
        parts = [self._expression(0)]
        while self._took(","):
            parts.append(self._expression(0))
        self._take("]")
        return self._node("list", at, parts=tuple(parts))

    def _object(self, at: int) -> Node:
        members: dict[str, Node] = {}
        while True:
            if self._now.kind not in ("name", "quoted"):
                raise self._unexpected("the name of a member")
            name = self._advance()
            if name.value in members:
                raise ExpressionError(name.at, f"the member {name.value[:40]!a} is there already; name it once")
            self._take(":")
            members[name.value] = self._expression(0)
            if not self._took(","):
                break
        self._take("}")
        return self._node("object", at, tuple(members), tuple(members.values()))

    def _call(self, name: Token) -> Node:
        signature = SIGNATURES.get(name.value)
        if signature is None:
            near = nearest(name.value[:40], SIGNATURES)
            mend = f"do you mean {near}()" if near else f"there are {', '.join(SIGNATURES)}"
            raise ExpressionError(name.at, f"there is no function {name.value[:40]}(); {mend}")
        self._take("(")
        arguments: list[Node] = []
        while self._now.kind != ")":
            arguments.append(self._argument(name.value, signature, len(arguments)))
            if not self._took(","):
                break
        self._take(")")
        if not signature.takes(len(arguments)):
            given = len(arguments)
            raise ExpressionError(name.at, f"{name.value}() takes {signature.wanted}, here are {given}")
        return self._node("call", name.at, name.value, tuple(arguments))

    def _argument(self, function: str, signature: Signature, place: int) -> Node:
        token = self._now
        wants_expression = EXPRESSION in signature.kinds_of(place)
        if self._took("&"):
            if not wants_expression:
                raise ExpressionError(token.at, f"argument {place + 1} of {function}() is a value; leave the & out")
            return self._node("expression", token.at, parts=(self._expression(0),))
        if wants_expression:
            raise ExpressionError(token.at, f"argument {place + 1} of {function}() is {EXPRESSION}, as in &price")
        return self._expression(0)
