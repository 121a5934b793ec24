from __future__ import annotations

import pytest

from gateway.mail.content_type import sniff


@pytest.mark.parametrize(
    ("data", "name", "expected"),
    [
        (b"\x89PNG\r\n\x1a\n\x00", "", "image/png"),
        (b"\xff\xd8\xff\xe0\x00", "", "image/jpeg"),
        (b"GIF89a\x01", "", "image/gif"),
        (b"GIF87a\x01", "", "image/gif"),
        (b"RIFF\x00\x00\x00\x00WEBPVP8 ", "", "image/webp"),
        (b"RIFF\x00\x00\x00\x00WAVEfmt ", "", "audio/wave"),
        (b"RIFF\x00\x00\x00\x00xxxx", "", "application/octet-stream"),
        (b"%PDF-1.7\n\x00", "", "application/pdf"),
        (b"PK\x03\x04\x14\x00", "", "application/zip"),
        (
            b"PK\x03\x04\x14\x00",
            "report.DOCX",
            "application/vnd.openxmlformats-officedocument.wordprocessingml.document",
        ),
        (b"\x1f\x8b\x08\x00", "", "application/x-gzip"),
        (b"\x00\x00\x00\x18ftypmp42", "", "video/mp4"),
        (b" \n<!DOCTYPE html><p>", "", "text/html; charset=utf-8"),
        (b"<!-- x -->", "", "text/html; charset=utf-8"),
        (b"<htmlx>", "", "text/plain; charset=utf-8"),
        (b"<?xml version='1.0'?>", "", "text/xml; charset=utf-8"),
        (b"hello", "", "text/plain; charset=utf-8"),
        (b"", "", "text/plain; charset=utf-8"),
        ("grün".encode(), "", "text/plain; charset=utf-8"),
        (b"gr\xfcn", "", "text/plain"),
        (b"\xef\xbb\xbfhello", "", "text/plain; charset=utf-8"),
        ("hello".encode("utf-16"), "", "text/plain; charset=utf-16le"),
        (b"a,b\n1,2\n", "table.csv", "text/csv; charset=utf-8"),
        (b"{}", "x.json", "application/json"),
        (b"hello", "page.html", "text/plain; charset=utf-8"),
        (b"hello\x00", "x.csv", "application/octet-stream"),
        (b"\x01\x02\x03", "", "application/octet-stream"),
        (b"a" * 512 + b"\x00", "", "text/plain; charset=utf-8"),
        (b"a" * 511 + "ü".encode(), "", "text/plain; charset=utf-8"),
        (b"a" * 511 + b"\xfc", "", "text/plain"),
        (b"\x89PNG\r\n\x1a\n", "x.txt", "image/png"),
    ],
)
def test_sniff(data: bytes, name: str, expected: str) -> None:
    assert sniff(data, name) == expected
