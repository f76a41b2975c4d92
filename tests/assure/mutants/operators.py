"""What is changed in a contract to see whether a test notices: the classic operators, one function each.

An operator looks at one node and yields edits: (operator, first byte, byte after the last, new text). An edit
that does not compile is dropped later, so an operator need not know all of Solidity's typing.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from decimal import Decimal, InvalidOperation
from itertools import pairwise

from tests.assure.mutants.tree import Node, Place, Source, type_of

Edit = tuple[str, int, int, str]

RELATIONAL = {
    "<": ("<=", ">="),
    "<=": ("<", ">"),
    ">": (">=", "<="),
    ">=": (">", "<"),
    "==": ("!=",),
    "!=": ("==",),
}
ARITHMETIC = {"+": "-", "-": "+", "*": "/", "/": "*", "%": "*", "**": "*"}
BITWISE = {"&": "|", "|": "&", "^": "|", "<<": ">>", ">>": "<<"}
COMPOUND = {"+=": "-=", "-=": "+=", "*=": "/=", "/=": "*=", "|=": "&=", "&=": "|="}
AMBIENT = {"msg.sender": "tx.origin", "block.timestamp": "block.number"}
OPCODES = {
    "add": "sub",
    "sub": "add",
    "mul": "add",
    "div": "mul",
    "and": "or",
    "or": "and",
    "xor": "or",
    "shl": "shr",
    "shr": "shl",
    "lt": "gt",
    "gt": "lt",
    "eq": "lt",
}


def edits(source: Source, node: Node, place: Place) -> Iterator[Edit]:
    """Every edit of this one node."""
    kind = node["nodeType"]
    for operator in _BY_KIND.get(kind, ()):
        yield from operator(source, node, place)


def _binary(source: Source, node: Node, _: Place) -> Iterator[Edit]:
    left, right = source.span(node["leftExpression"]), source.span(node["rightExpression"])
    found = re.search(re.escape(node["operator"]), source.text(left[1], right[0]))
    if found is None:
        return
    start, end = left[1] + found.start(), left[1] + found.end()
    symbol = node["operator"]
    for other in RELATIONAL.get(symbol, ()):
        yield "relational", start, end, other
    if symbol in ARITHMETIC:
        yield "arithmetic", start, end, ARITHMETIC[symbol]
    if symbol in BITWISE:
        yield "bitwise", start, end, BITWISE[symbol]
    if symbol in ("&&", "||"):
        yield "logical", start, end, "||" if symbol == "&&" else "&&"
        yield "logical", *source.span(node), source.of(node["leftExpression"])
        yield "logical", *source.span(node), source.of(node["rightExpression"])


def _condition(source: Source, node: Node, _: Place) -> Iterator[Edit]:
    condition = node.get("condition")
    if condition is None:
        return
    start, end = source.span(condition)
    yield "condition", start, end, f"!({source.text(start, end)})"
    yield "condition", start, end, "false"
    if node["nodeType"] in ("IfStatement", "Conditional"):  # a loop over `true` only costs time
        yield "condition", start, end, "true"


def _unary(source: Source, node: Node, _: Place) -> Iterator[Edit]:
    start, end = source.span(node)
    inner = source.of(node["subExpression"])
    if node["operator"] in ("!", "~", "-"):
        yield "unary", start, end, inner
    elif node["operator"] in ("++", "--"):
        other = "--" if node["operator"] == "++" else "++"
        yield "unary", start, end, f"{other}{inner}" if node["prefix"] else f"{inner}{other}"
    elif node["operator"] == "delete":
        yield from _deleted(source, node, "statement")


def _assignment(source: Source, node: Node, _: Place) -> Iterator[Edit]:
    left, right = source.span(node["leftHandSide"]), source.span(node["rightHandSide"])
    start = left[1] + source.text(left[1], right[0]).index(node["operator"])
    if node["operator"] in COMPOUND:
        for other in (COMPOUND[node["operator"]], "="):
            yield "assignment", start, start + len(node["operator"]), other


def _statement(source: Source, node: Node, _: Place) -> Iterator[Edit]:
    names = {"RevertStatement": "revert", "EmitStatement": "event"}
    yield from _deleted(source, node, names.get(node["nodeType"], "statement"))


def _deleted(source: Source, node: Node, operator: str) -> Iterator[Edit]:
    start, end = source.span(node)
    semicolon = re.match(r"\s*;", source.text(end, len(source.code)))
    yield operator, start, end + (semicolon.end() if semicolon else 0), "{}"


def _return(source: Source, node: Node, _: Place) -> Iterator[Edit]:
    expression = node.get("expression")
    if expression is None:
        yield from _deleted(source, node, "statement")
    else:
        yield from _zeroed(source, expression, "return")


def _logged(source: Source, node: Node, _: Place) -> Iterator[Edit]:
    operator = "event argument" if node["nodeType"] == "EmitStatement" else "error argument"
    call = node.get("eventCall") or node["errorCall"]
    for argument in call["arguments"]:
        yield from _zeroed(source, argument, operator)


def _zeroed(source: Source, node: Node, operator: str) -> Iterator[Edit]:
    start, end = source.span(node)
    zero = _zero(type_of(node))
    if zero and source.text(start, end) != zero:
        yield operator, start, end, zero


def _zero(kind: str) -> str:
    if re.match(r"u?int", kind):
        return "0"
    if re.fullmatch(r"bytes\d+|address", kind):
        return f"{kind}(0)"
    named = re.fullmatch(r"(enum|contract) (?:\w+\.)?(\w+)", kind)
    if named:
        return f"{named[2]}({'0' if named[1] == 'enum' else 'address(0)'})"
    return {"bool": "false", "string": '""', "bytes": '""', "address payable": "payable(0)"}.get(kind, "")


def _arguments(source: Source, node: Node, _: Place) -> Iterator[Edit]:
    if node.get("names"):
        return
    for first, second in pairwise(node["arguments"]):
        one, other = source.of(first), source.of(second)
        if one != other and type_of(first) == type_of(second):
            (start, end), (later, last) = source.span(first), source.span(second)
            yield "swapped arguments", start, last, f"{other}{source.text(end, later)}{one}"
    called = node["expression"].get("name")
    if called in ("require", "assert"):
        start, end = source.span(node["arguments"][0])
        yield "condition", start, end, f"!({source.text(start, end)})"
        yield "condition", start, end, "true"


def _literal(source: Source, node: Node, _: Place) -> Iterator[Edit]:
    start, end = source.span(node)
    text = source.text(start, end)
    if node["kind"] == "bool":
        yield "literal", start, end, "false" if text == "true" else "true"
    elif node["kind"] == "string":
        yield "literal", end, end, ' "!"'
    elif node["kind"] == "number":
        digits = text.split()[0]  # the unit, as in `72 hours`, stays
        yield from (("literal", start, start + len(digits), other) for other in _neighbours(digits))


def _neighbours(digits: str) -> Iterator[str]:
    plain = digits.replace("_", "")
    if plain.lower().startswith("0x"):
        value, width = int(plain, 16), len(plain) - 2
        yield f"0x{value + 1:0{width}x}"
        if value:
            yield f"0x{value - 1:0{width}x}"
        return
    try:
        exact = Decimal(plain)
    except InvalidOperation:
        return
    if exact == exact.to_integral_value():
        yield str(int(exact) + 1)
        if exact:
            yield str(int(exact) - 1)


def _identifier(source: Source, node: Node, place: Place) -> Iterator[Edit]:
    for group in (place.locals, place.state):
        names = _alike(node["referencedDeclaration"], list(group))
        if names:
            yield "swapped name", *source.span(node), names[0]


def _member(source: Source, node: Node, _: Place) -> Iterator[Edit]:
    start, end = source.span(node)
    text = source.text(start, end)
    if text in AMBIENT:
        yield "environment", start, end, AMBIENT[text]
    target = node.get("referencedDeclaration")
    names = _alike(target, source.kin.get(target, [])) if target is not None else []
    if names:
        yield "swapped name", end - len(node["memberName"]), end, names[0]


def _alike(target: int, declared: list[Node]) -> list[str]:
    """Names of the declarations of the same type as the target, from the next one around."""
    at = next((i for i, node in enumerate(declared) if node["id"] == target), None)
    if at is None:
        return []
    others = declared[at + 1 :] + declared[:at]
    return [n["name"] for n in others if n["name"] and type_of(n) == type_of(declared[at])]


def _modifier(source: Source, node: Node, _: Place) -> Iterator[Edit]:
    if node.get("kind") == "modifierInvocation":
        yield "modifier", *source.span(node), ""


def _opcode(source: Source, node: Node, _: Place) -> Iterator[Edit]:
    name = node["functionName"]
    if name["name"] in OPCODES:
        yield "opcode", *source.span(name), OPCODES[name["name"]]
    elif name["name"] == "iszero":
        yield "opcode", *source.span(node), source.of(node["arguments"][0])


def _yul_literal(source: Source, node: Node, _: Place) -> Iterator[Edit]:
    start, end = source.span(node)
    if node["kind"] == "number":
        yield from (("literal", start, end, other) for other in _neighbours(source.text(start, end)))


def _yul_statement(source: Source, node: Node, _: Place) -> Iterator[Edit]:
    yield "statement", *source.span(node), "{}"


def _yul_if(source: Source, node: Node, _: Place) -> Iterator[Edit]:
    start, end = source.span(node["condition"])
    for other in (f"iszero({source.text(start, end)})", "0", "1"):
        yield "condition", start, end, other


_BY_KIND = {
    "BinaryOperation": (_binary,),
    "UnaryOperation": (_unary,),
    "Assignment": (_assignment,),
    "IfStatement": (_condition,),
    "Conditional": (_condition,),
    "WhileStatement": (_condition,),
    "DoWhileStatement": (_condition,),
    "ForStatement": (_condition,),
    "ExpressionStatement": (_statement,),
    "EmitStatement": (_statement, _logged),
    "RevertStatement": (_statement, _logged),
    "Break": (_statement,),
    "Continue": (_statement,),
    "Return": (_return,),
    "FunctionCall": (_arguments,),
    "Literal": (_literal,),
    "Identifier": (_identifier,),
    "MemberAccess": (_member,),
    "ModifierInvocation": (_modifier,),
    "YulFunctionCall": (_opcode,),
    "YulLiteral": (_yul_literal,),
    "YulExpressionStatement": (_yul_statement,),
    "YulAssignment": (_yul_statement,),
    "YulIf": (_yul_if,),
}
