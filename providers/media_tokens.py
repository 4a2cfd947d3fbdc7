"""About how many tokens a picture or a document is, offline: from its first bytes, or a flat figure."""

import base64
import binascii
import math
import re
import struct

# A picture is cut into patches of 28 × 28 pixels, a token each, after it was shrunk to what a model can look at.
PATCH = 28
LONGEST_EDGE = 1568
MOST_IMAGE_TOKENS = 1568
# Of a picture whose size is not known the most is assumed; of a page, its text and its picture together.
PAGE_TOKENS = 2250
# The frame of a JPEG stands behind whatever a camera has written into it.
HEAD = 256 * 1024
_PAGE = re.compile(rb"/Type\s*/Page(?![A-Za-z])")


def image_tokens(data=None):
    """The tokens of the picture whose base64 is ``data``; the most that one has, where its size cannot be read."""
    size = image_size(_decoded(data[:HEAD])) if isinstance(data, str) else None
    if not size or not all(size):
        return MOST_IMAGE_TOKENS
    width, height = size
    fits = min(1, LONGEST_EDGE / max(size), math.sqrt(MOST_IMAGE_TOKENS * PATCH**2 / (width * height)))
    patches = math.ceil(width * fits / PATCH) * math.ceil(height * fits / PATCH)
    return max(1, min(patches, MOST_IMAGE_TOKENS))


def document_tokens(data=None):
    """The tokens of the PDF whose base64 is ``data``, by its pages; those of one page where they cannot be counted."""
    pages = len(_PAGE.findall(_decoded(data))) if isinstance(data, str) else 0
    return max(1, pages) * PAGE_TOKENS


def image_size(head):
    """``(width, height)`` of a PNG, GIF, WebP or JPEG by its first bytes; ``None`` where they do not say it."""
    try:
        if head.startswith(b"\x89PNG\r\n\x1a\n") and head[12:16] == b"IHDR":
            return struct.unpack_from(">II", head, 16)
        if head.startswith((b"GIF87a", b"GIF89a")):
            return struct.unpack_from("<HH", head, 6)
        if head.startswith(b"RIFF") and head[8:12] == b"WEBP":
            return _webp_size(head)
        if head.startswith(b"\xff\xd8"):
            return _jpeg_size(head)
    except (struct.error, IndexError):
        pass
    return None


def _webp_size(head):
    match head[12:16]:
        case b"VP8X":
            return tuple(int.from_bytes(head[at : at + 3], "little") + 1 for at in (24, 27))
        case b"VP8L":
            (bits,) = struct.unpack_from("<I", head, 21)
            return (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
        case b"VP8 ":
            width, height = struct.unpack_from("<HH", head, 26)
            return width & 0x3FFF, height & 0x3FFF
    return None


def _jpeg_size(head):
    at = 2
    while head[at] == 0xFF:
        marker = head[at + 1]
        # Frames of every kind; three markers among their numbers are something else.
        if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):
            height, width = struct.unpack_from(">HH", head, at + 5)
            return width, height
        (length,) = struct.unpack_from(">H", head, at + 2)
        at += 2 + max(length, 2) if marker != 0xFF else 1
    return None


def _decoded(data):
    """The bytes of as much base64 as is whole; none where it is none."""
    try:
        return base64.b64decode(data[: len(data) // 4 * 4])
    except (binascii.Error, ValueError):
        return b""
