"""The signature of a report: one last line, an HMAC-SHA256 over every byte before it.

What belongs here: writing the line and judging a file's bytes. What does not: where the key is kept
(`infra/report_key.py`), reading files and saying what was found (`engine/report_file.py`).

The line is an HTML comment or the last member of a JSON object, so that a signed file is still a page or a document:

    <!-- jivs-signature hmac-sha256 <16 hex: which key> <64 hex> -->
    "jivs_signature": "hmac-sha256 <16 hex: which key> <64 hex>"}

There is one way to spell it. A file is judged by making the line anew and comparing all of it, so that no byte of
the line can change either. The HMAC also covers the line's own beginning: the line of a page is none of a document.
"""

from __future__ import annotations

import hmac
import re
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final

__all__ = ["ALGORITHM", "HTML", "JSON", "Form", "Found", "Judgement", "ReportKey"]

ALGORITHM: Final = "hmac-sha256"


@dataclass(frozen=True, slots=True)
class Form:
    """How the signature's line begins and ends in one kind of file."""

    head: bytes
    tail: bytes

    @property
    def length(self) -> int:
        """Bytes of a line; all lines of a form are equally long."""
        return len(self.head) + len(f"{ALGORITHM} ") + 16 + 1 + 64 + len(self.tail)

    def key_id(self, line: bytes) -> str | None:
        """Which key a line names; None where it is no such line."""
        named = rb"%b%b ([0-9a-f]{16}) [0-9a-f]{64}%b"
        found = re.fullmatch(named % (re.escape(self.head), ALGORITHM.encode(), re.escape(self.tail)), line)
        return found[1].decode() if found else None


HTML: Final = Form(b"<!-- jivs-signature ", b" -->\n")
JSON: Final = Form(b'"jivs_signature": "', b'"}\n')


class Judgement(StrEnum):
    """What is to be said of a file."""

    INTACT = "intact"
    CHANGED = "changed"
    OTHER_KEY = "other key"
    UNSIGNED = "unsigned"


@dataclass(frozen=True, slots=True)
class Found:
    """A file's judgement, which key its line names (empty where there is no line), and what was signed."""

    judgement: Judgement
    key_id: str = ""
    content: bytes = b""


@dataclass(frozen=True, slots=True)
class ReportKey:
    """The secret that reports are signed with; not in its repr."""

    secret: bytes = field(repr=False)

    @property
    def id(self) -> str:
        """Tells keys apart and says nothing about them."""
        return hmac.new(self.secret, b"id of a jivs report key", "sha256").hexdigest()[:16]

    def line(self, content: bytes, form: Form) -> bytes:
        """The line that follows on `content`."""
        begun = form.head + f"{ALGORITHM} {self.id} ".encode()
        return begun + hmac.new(self.secret, content + begun, "sha256").hexdigest().encode() + form.tail

    def sign(self, content: bytes, form: Form) -> bytes:
        """The content with its signature."""
        return content + self.line(content, form)

    def judge(self, signed: bytes) -> Found:
        """Whether these bytes are those that this key has signed."""
        for form in (HTML, JSON):
            content, line = signed[: -form.length], signed[-form.length :]
            named = form.key_id(line)
            if named is None:
                continue
            if named != self.id:
                return Found(Judgement.OTHER_KEY, named)
            if hmac.compare_digest(line, self.line(content, form)):
                return Found(Judgement.INTACT, named, content)
            return Found(Judgement.CHANGED, named)
        # A line that is not where or as it has to be was one before somebody changed it.
        marks = (form.head + ALGORITHM.encode() for form in (HTML, JSON))
        return Found(Judgement.CHANGED if any(mark in signed for mark in marks) else Judgement.UNSIGNED)
