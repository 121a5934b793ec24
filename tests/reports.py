"""Delivery status notifications as other servers write them."""

from __future__ import annotations


def recipient_block(
    address: str, *, action: str = "failed", status: str = "5.1.1", code: str = "550 5.1.1 no such user"
) -> str:
    block = f"Final-Recipient: rfc822; {address}\r\nAction: {action}\r\nStatus: {status}\r\n"
    return block + (f"Diagnostic-Code: smtp; {code}\r\n" if code else "")


def dsn(*blocks: str, message_id: str = "", envelope_id: str = "") -> bytes:
    """A notification of mx.example.net with these groups of fields."""
    about = "Reporting-MTA: dns; mx.example.net\r\n"
    if envelope_id:
        about += f"Original-Envelope-Id: {envelope_id}\r\n"
    parts = [
        "Content-Type: text/plain\r\n\r\nSorry.",
        "Content-Type: message/delivery-status\r\n\r\n" + "\r\n".join([about, *blocks]),
    ]
    if message_id:
        parts.append(f"Content-Type: text/rfc822-headers\r\n\r\nSubject: hi\r\nMessage-ID: {message_id}\r\n")
    header = (
        "From: Mail Delivery System <MAILER-DAEMON@mx.example.net>\r\n"
        "To: undisclosed\r\n"
        "Subject: Undelivered Mail Returned to Sender\r\n"
        "Auto-Submitted: auto-replied\r\n"
        "MIME-Version: 1.0\r\n"
        'Content-Type: multipart/report; report-type=delivery-status; boundary="b"\r\n'
        "\r\n"
    )
    return (header + "".join(f"--b\r\n{part}\r\n" for part in parts) + "--b--\r\n").encode()


def feedback(
    kind: str = "abuse",
    *,
    mail_from: str = "",
    recipient: str = "",
    message_id: str = "",
    returned: str = "Subject: hi\r\nTo: undisclosed\r\n",
) -> bytes:
    """A feedback report of isp.example (RFC 5965) with these fields."""
    fields = f"Feedback-Type: {kind}\r\nUser-Agent: Loop/1.0\r\nVersion: 1\r\n"
    fields += f"Original-Mail-From: <{mail_from}>\r\n" if mail_from else ""
    fields += f"Original-Rcpt-To: <{recipient}>\r\n" if recipient else ""
    returned += f"Message-ID: {message_id}\r\n" if message_id else ""
    return (
        "From: <fbl@isp.example>\r\nTo: undisclosed\r\nSubject: a complaint\r\n"
        'Content-Type: multipart/report; report-type=feedback-report; boundary="b"\r\n\r\n'
        "--b\r\nContent-Type: text/plain\r\n\r\nOne of our users complains.\r\n"
        f"--b\r\nContent-Type: message/feedback-report\r\n\r\n{fields}\r\n"
        f"--b\r\nContent-Type: text/rfc822-headers\r\n\r\n{returned}\r\n--b--\r\n"
    ).encode()
