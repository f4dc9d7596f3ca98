"""Read a transformation: an expression in JMESPath over an event, whose result is sent as its data.

tokens.py splits the text, parser.py makes a tree (tree.py) of it and refuses what is wrong or too large, signatures.py
has what every function takes. The relay evaluates (relay/message/transformation).
"""

from outbox.transformation.digits import Digits, unquote
from outbox.transformation.parser import parse
from outbox.transformation.signatures import SIGNATURES, Signature
from outbox.transformation.tokens import ExpressionError
from outbox.transformation.tree import MAX_BYTES, MAX_DEPTH, MAX_NODES, Node

__all__ = [
    "MAX_BYTES", "MAX_DEPTH", "MAX_NODES", "SIGNATURES", "Digits", "ExpressionError", "Node", "Signature", "parse",
    "unquote",
]  # fmt: skip
