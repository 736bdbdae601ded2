"""Bytes as text that a person can read.

A token is a run of bytes. Many tokens are words, some are half a Chinese character. `escape` spells
each on a single line; traces show tokens that way.

Chapter: 01
"""

_SHORT = {"\\": r"\\", "\n": r"\n", "\r": r"\r", "\t": r"\t"}


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
