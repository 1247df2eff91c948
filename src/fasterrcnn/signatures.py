"""What a file is, by its first bytes: kinds that Pillow does not read, or not without help."""

HEAD_BYTES = 512
"""How many bytes are enough."""

_TIFF = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
"""TIFF and BigTIFF."""

_HEIF_BRANDS = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1")

_NO_IMAGES = {
    b"\0\5\x16\7": "data of macOS about another file; delete it",
    b"%pdf": "a PDF document; save its pages as PNG",
    b"<svg": "an SVG drawing; save it as PNG",
    b"<!doctype html": "a web page, perhaps of a failed download",
    b"<html": "a web page, perhaps of a failed download",
    b"version https://git-lfs": "a pointer of Git LFS; git lfs pull gets the file",
}
"""Beginnings, in lower case, of files that are taken for images and are none."""


def is_tiff(head: bytes) -> bool:
    """Whether a file that begins so is a TIFF."""
    return head.startswith(_TIFF)


def is_heif(head: bytes) -> bool:
    """Whether a file that begins so is a HEIC or HEIF image."""
    return head[4:8] == b"ftyp" and head[8:12] in _HEIF_BRANDS


def why_unreadable(head: bytes) -> str:
    """Why a file that begins so cannot be decoded, and what to do; empty if that is unclear."""
    if not head:
        return "an empty file"
    if is_heif(head):
        return "HEIC needs a plug-in: pip install pillow-heif"
    if head[128:132] == b"DICM":
        return "a DICOM file; save it as PNG with 16 bits"
    text = head.lower().removeprefix(b"\xef\xbb\xbf").lstrip()
    if text.startswith((b"<?xml", b"<!--")) and b"<svg" in text:
        text = text[text.index(b"<svg") :]
    return next((reason for sign, reason in _NO_IMAGES.items() if text.startswith(sign)), "")
