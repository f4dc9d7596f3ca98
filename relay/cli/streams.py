"""Standard output and standard error that take every character, whatever the locale's encoding is."""

from __future__ import annotations

import codecs
import sys
from encodings import ascii as ascii_codec

__all__ = ["accept_every_character"]

_ERRORS = "outbox-relay-spelled-out"
# click takes an output in ASCII for a mistake and writes UTF-8 to it. Under another name it stays as the locale says.
_ASCII = "outbox-relay-ascii"
_SPELLINGS = {"…": "...", "→": "->", "–": "-", "—": "-", "’": "'", "“": '"', "”": '"'}


def accept_every_character() -> None:
    """Spell out what stdout and stderr cannot encode: `→` becomes `->`, other characters `\\u20ac`; nothing raises."""
    codecs.register_error(_ERRORS, _spell_out)
    codecs.register(_find_ascii)
    for stream in (sys.stdout, sys.stderr):
        reconfigure = getattr(stream, "reconfigure", None)
        if reconfigure is None:  # somebody put another stream there
            continue
        is_ascii = codecs.lookup(stream.encoding).name == "ascii"
        reconfigure(encoding=_ASCII if is_ascii else None, errors=_ERRORS)


def _spell_out(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    return "".join(map(_spelling, error.object[error.start : error.end])), error.end


def _spelling(character: str) -> str:
    return _SPELLINGS.get(character) or character.encode("ascii", "backslashreplace").decode()


def _find_ascii(name: str) -> codecs.CodecInfo | None:
    if name.replace("_", "-") != _ASCII:
        return None
    return codecs.CodecInfo(
        name=_ASCII,
        encode=codecs.ascii_encode,
        decode=codecs.ascii_decode,
        incrementalencoder=ascii_codec.IncrementalEncoder,
        incrementaldecoder=ascii_codec.IncrementalDecoder,
    )
