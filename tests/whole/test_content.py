"""Large messages: their content is in files, which go when nobody needs them any more."""

from __future__ import annotations

import base64
import hashlib
import os
from email import message_from_bytes, policy
from pathlib import Path

from gateway.store.listing import Filter
from tests.running import Running

MEGABYTE = 1024 * 1024


def files(gateway: Running) -> list[Path]:
    content = gateway.gateway.settings.data_dir / "content"
    return sorted(path for path in content.rglob("*") if path.is_file())


async def test_a_large_attachment(gateway: Running) -> None:
    data = os.urandom(3 * MEGABYTE)
    await gateway.gateway.holding.add("", "", "")
    answer = await gateway.send(
        CC=[{"Address": "second@example.org"}],
        AttachedFiles=[{"Name": "große Datei.bin", "Data": base64.b64encode(data).decode()}],
    )
    [stored] = files(gateway)  # one for both recipients
    assert stored.stat().st_size > 4 * MEGABYTE

    operations = gateway.gateway.operations
    await operations.release(Filter(ids=(1,)))
    [incoming] = await gateway.webhooks.incoming()
    await gateway.webhooks.event("delivered", QueueMsgID=1)
    assert stored in files(gateway)
    assert len(files(gateway)) == 2  # and the received copy
    await operations.release(Filter(ids=(2,)))
    await gateway.webhooks.event("delivered", QueueMsgID=2)

    async def gone() -> bool:
        return stored not in files(gateway)

    await gateway.until(gone, True)
    assert len(files(gateway)) == 2  # the received copies

    raw = await gateway.raw(incoming["Meta"]["MsgID"])
    message = message_from_bytes(raw, policy=policy.default)
    [attached] = message.iter_attachments()
    assert attached.get_filename() == "große Datei.bin"
    assert hashlib.sha256(attached.get_content()).digest() == hashlib.sha256(data).digest()
    _, part = incoming["Structure"]["Parts"]
    assert (part["Filename"], part["DecodedSize"]) == ("große Datei.bin", len(data))
    assert message["Message-ID"] == answer["MessageID"]


async def test_dropped_messages_leave_no_file(gateway: Running) -> None:
    await gateway.gateway.holding.add("", "", "")
    for _ in range(2):
        await gateway.send(Text="line\n" * (MEGABYTE // 5))
    assert len(files(gateway)) == 2
    await gateway.gateway.operations.drop(Filter(), "")
    assert files(gateway) == []


async def test_large_mail_from_elsewhere(gateway: Running) -> None:
    text = b"From: <x@example.net>\r\nSubject: large\r\n\r\n" + b"0123456789\r\n" * 200_000
    await gateway.mail(text)
    [incoming] = await gateway.webhooks.incoming()
    assert len(incoming["Text"]) == MEGABYTE
    raw = await gateway.raw(incoming["Meta"]["MsgID"])
    assert raw.endswith(text)
    [stored] = files(gateway)
    assert stored.read_bytes() == raw
