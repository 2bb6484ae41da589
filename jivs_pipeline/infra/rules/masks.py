"""Masks: SQL that puts something in the place of a value, so that it cannot be read any more.

`sha256` and `hmac` give the same for the same value, so that joins still hold; of values that can be guessed, only
`hmac` with a secret key keeps the secret. NULL stays NULL.
"""

from __future__ import annotations

import hashlib
import hmac

__all__ = ["INNER", "OUTER", "fingerprint", "mask", "pads"]

INNER, OUTER = "$jivs_inner", "$jivs_outer"
"""Parameters of the statement: the key of `hmac`, which stands in no SQL."""
_BLOCK = 64  # of SHA-256


def mask(kind: str, text: str) -> str:
    """SQL of the masked text of a value."""
    if kind == "null":
        return "CAST(NULL AS VARCHAR)"
    if kind == "redact":
        return f"CASE WHEN {text} IS NOT NULL THEN '[redacted]' END"
    if kind == "sha256":
        return f"sha256({text})"
    return f"sha256({OUTER}::BLOB || unhex(sha256({INNER}::BLOB || encode({text}))))"


def pads(key: bytes) -> dict[str, bytes]:
    """The parameters of statements with `hmac` (RFC 2104)."""
    block = (hashlib.sha256(key).digest() if len(key) > _BLOCK else key).ljust(_BLOCK, b"\0")
    return {
        INNER[1:]: bytes(octet ^ 0x36 for octet in block),
        OUTER[1:]: bytes(octet ^ 0x5C for octet in block),
    }


def fingerprint(key: bytes) -> str:
    """Tells keys apart without giving them away."""
    return hmac.digest(key, b"jivs_pipeline: which key", "sha256").hex()[:16]
