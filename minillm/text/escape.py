"""Bytes as text that a person can read, and back without loss.

A token is a run of bytes. Many tokens are words, some are half a Chinese character. `escape` spells
each on a single line; the tokenizer's file and the traces show tokens that way.

Chapter: 01
"""

import re

_SHORT = {"\\": r"\\", "\n": r"\n", "\r": r"\r", "\t": r"\t"}
_LONG = {short: character for character, short in _SHORT.items()}
_PART = re.compile(r"[^\\]+|\\x[0-9a-f]{2}|\\.?", re.DOTALL)


def escape(token: bytes) -> str:
    r"""Spell bytes as readable text: printable characters as themselves, the rest as `\xNN`.

    Example:
        >>> print(escape("村里\n".encode()), escape("村".encode()[:2]))
        村里\n \xe6\x9d
    """
    spelled = []
    for character in token.decode("utf-8", "surrogateescape"):
        if character in _SHORT:
            spelled.append(_SHORT[character])
        elif character.isprintable():
            spelled.append(character)
        else:
            raw = character.encode("utf-8", "surrogateescape")
            spelled.extend(f"\\x{byte:02x}" for byte in raw)
    return "".join(spelled)


def unescape(spelled: str) -> bytes:
    r"""Return the bytes that `escape` spelled.

    Raises:
        ValueError: a backslash begins none of `\\`, `\n`, `\r`, `\t`, `\xNN`.

    Example:
        >>> unescape(r"\xe6\x9d\x91").decode()
        '村'
    """
    token = bytearray()
    for part in _PART.findall(spelled):
        if not part.startswith("\\"):
            token += part.encode("utf-8")
        elif part in _LONG:
            token += _LONG[part].encode("utf-8")
        elif len(part) == 4:
            token.append(int(part[2:], 16))
        else:
            raise ValueError(
                f"{part!r} in {spelled!r} is not an escape; there are \\\\ \\n \\r \\t and \\xNN "
                "(two small hexadecimal digits)"
            )
    return bytes(token)
