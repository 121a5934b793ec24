"""Bounces as mail servers write them, one of each format; for other addresses than any real message's."""

from __future__ import annotations

from dataclasses import dataclass, field

SENT = (
    "Received: from app.example.org (app.example.org [192.0.2.7]) by out.example.org; Mon, 1 Jan 2029\n"
    "From: Shop <shop@example.org>\nTo: ada@example.net\nSubject: Your order\n"
    "Message-ID: <order-1@example.org>\n\nThank you. Please answer to help@example.org.\n"
)


@dataclass(frozen=True)
class Said:
    """What is to be read of one recipient."""

    address: str
    code: int
    enhanced: str
    failure: str
    permanent: bool
    action: str = "failed"


@dataclass(frozen=True)
class Format:
    """A message: its text or its body with a content type, and what it says."""

    text: str
    said: tuple[Said, ...]
    subject: str = "failure notice"
    sender: str = "MAILER-DAEMON@mx.example.com"
    content_type: str = "text/plain"
    more: str = ""  # of the header
    message_id: str = "<order-1@example.org>"
    kind: str = field(default="dsn")

    @property
    def data(self) -> bytes:
        header = (
            f"Return-Path: <>\nFrom: {self.sender}\nTo: shop@example.org\nSubject: {self.subject}\n"
            f"Content-Type: {self.content_type}\n{self.more}\n"
        )
        return (header + self.text).encode().replace(b"\n", b"\r\n")


UNKNOWN = Said("ada@example.net", 550, "5.1.1", "bad-mailbox", True)

FORMATS = {
    "qmail": Format(
        "Hi. This is the qmail-send program at mx.example.com.\n"
        "I'm afraid I wasn't able to deliver your message to the following addresses.\n"
        "This is a permanent error; I've given up. Sorry it didn't work out.\n\n"
        "<ada@example.net>:\n192.0.2.9 does not like recipient.\n"
        "Remote host said: 550 5.1.1 nobody of this name\nGiving up on 192.0.2.9.\n\n"
        "<bob@example.net>:\nUser over quota. (#5.2.2)\n\n"
        "<eve@example.com>:\nSorry, I couldn't find any host named example.com. (#5.1.2)\n\n"
        "--- Below this line is a copy of the message.\n\n" + SENT,
        (
            UNKNOWN,
            Said("bob@example.net", 500, "5.2.2", "full", True),
            Said("eve@example.com", 500, "5.1.2", "bad-domain", True),
        ),
    ),
    "qmail, in the queue too long": Format(
        "Hi. This is the qmail-send program at mx.example.com.\n\n<ada@example.net>:\n"
        "Connected to 192.0.2.9 but greeting failed.\nRemote host said: 421 too many connections\n"
        "I'm not going to try again; this message has been in the queue too long.\n\n"
        "--- Below this line is a copy of the message.\n\n" + SENT,
        (Said("ada@example.net", 421, "", "expired", False),),
    ),
    "exim": Format(
        "This message was created automatically by mail delivery software.\n\n"
        "A message that you sent could not be delivered to one or more of its\n"
        "recipients. This is a permanent error. The following address(es) failed:\n\n"
        "  ada@example.net\n    host mx.example.net [192.0.2.9]\n"
        "    SMTP error from remote mail server after RCPT TO:<ada@example.net>:\n"
        "    550 5.1.1 <ada@example.net>: Recipient address rejected\n"
        "  bob@example.net\n    (generated from list@example.com)\n"
        "    mailbox is full: retry timeout exceeded\n\n"
        "------ This is a copy of the message, including all the headers. ------\n\n" + SENT,
        (UNKNOWN, Said("bob@example.net", 0, "", "full", False)),
        subject="Mail delivery failed: returning message to sender",
        more="Auto-Submitted: auto-replied\nX-Failed-Recipients: ada@example.net,\n  bob@example.net\n",
    ),
    "exim, delayed": Format(
        "This message was created automatically by mail delivery software.\n"
        "A message that you sent has not yet been delivered to one or more of its\n"
        "recipients after more than 24 hours on the queue on out.example.com.\n\n"
        "The address to which the message has not yet been delivered is:\n\n"
        "  ada@example.net\n    host mx.example.net [192.0.2.9]: 451 4.7.1 Greylisted, try again later\n\n"
        "No action is required on your part. Delivery attempts will continue.\n",
        (Said("ada@example.net", 451, "4.7.1", "temporary", False, "delayed"),),
        subject="Warning: message 1abcde-000001-AB delayed 24 hours",
        more="Auto-Submitted: auto-replied\n",
        message_id="",
    ),
    "postfix, before RFC 3464": Format(
        "This is the Postfix program at host mx.example.com.\n\n"
        "I'm sorry to have to inform you that your message could not be\n"
        "be delivered to one or more recipients. It's attached below.\n\n"
        "For further assistance, please send mail to <postmaster>\n\n"
        "                        The Postfix program\n\n"
        "<ada@example.net>: host mx.example.net[192.0.2.9] said: 550 5.1.1\n"
        "    <ada@example.net>: no such person here (in reply to RCPT TO command)\n\n"
        "<bob@example.org> (expanded from <all@example.org>): mail for example.org loops back to myself\n",
        (UNKNOWN, Said("bob@example.org", 0, "", "protocol", True)),
        subject="Undelivered Mail Returned to Sender",
        message_id="",
    ),
    "sendmail, without fields": Format(
        "The original message was received at Mon, 1 Jan 2029\nfrom app.example.org [192.0.2.7]\n\n"
        "   ----- The following addresses had permanent fatal errors -----\n<ada@example.net>\n\n"
        "   ----- Transcript of session follows -----\n... while talking to mx.example.net.:\n"
        ">>> RCPT To:<ada@example.net>\n<<< 550 5.1.1 <ada@example.net>... nobody\n"
        "550 5.1.1 <ada@example.net>... User unknown\n\n   ----- Original message follows -----\n\n" + SENT,
        (UNKNOWN,),
        subject="Returned mail: User unknown",
    ),
    "errors in brackets behind the address": Format(
        "The original message was received at Mon, 1 Jan 2029\nfrom shop@example.org\n\n"
        "---The following addresses had delivery errors---\n\nada@example.net [User unknown]\n",
        (Said("ada@example.net", 0, "", "bad-mailbox", True),),
        subject="Returned Mail: User unknown",
        message_id="",
    ),
    "exchange 5.5": Format(
        "Your message\n\n  To:      ada@example.net\n  Subject: Your order\n  Sent:    Mon, 1 Jan 2029\n\n"
        "did not reach the following recipient(s):\n\nada@example.net on Mon, 1 Jan 2029 00:00:00 +0000\n"
        "    The recipient name is not recognized\n"
        "\tMSEXCH:IMS:Corp:Site:MX 0 (000C05A6) Unknown Recipient\n",
        (Said("ada@example.net", 0, "", "bad-mailbox", True),),
        subject="Undeliverable: Your order",
        sender="System Administrator <postmaster@example.com>",
        message_id="",
    ),
    "exchange, HTML only": Format(
        "<html><head><style>p { color: red }</style></head><body>"
        "<p><b>Delivery has failed to these recipients or groups:</b></p>"
        '<p>Ada (<a href="mailto:ada@example.net">ada@example.net</a>)<br>The address could not be found.</p>'
        "<p>Diagnostic information for administrators:</p><p>Generating server: mx.example.com</p>"
        "<p>ada@example.net<br>Remote Server returned '550 5.1.1 RESOLVER.ADR.RecipNotFound; not found'</p>"
        "<p>Original message headers:</p><p>Received: from a</p></body></html>",
        (UNKNOWN,),
        subject="Undeliverable: Your order",
        sender="Microsoft Outlook <postmaster@example.com>",
        content_type="text/html",
        message_id="",
    ),
    "domino": Format(
        "Your message\n\n  Subject: Your order\n\nwas not delivered to:\n\n  ada@example.net\n\nbecause:\n\n"
        "  User Ada (ada@example.net) not listed in Domino Directory\n",
        (Said("ada@example.net", 0, "", "bad-mailbox", True),),
        subject="DELIVERY FAILURE: User Ada (ada@example.net) not listed in Domino Directory",
        sender="Postmaster@example.com",
        message_id="",
    ),
    "an answer in brackets": Format(
        "We had trouble delivering your message. Full details follow:\n\n"
        "Subject: 'Your order'\n\n1 error(s):\n\n"
        "SMTP Server <mx.example.net> rejected recipient <ada@example.net>\n"
        "  (Error following RCPT command). It responded as follows: [550 5.1.1 User unknown]\n",
        (UNKNOWN,),
        subject="There was an error sending your mail",
        message_id="",
    ),
    "why before to whom": Format(
        "Your message:\n   From:    shop@example.org\n   Subject: Your order\n\n"
        "Could not be delivered because of\n\n550 5.1.1 User unknown\n\n"
        "The following recipients were affected:\n    ada@example.net\n",
        (UNKNOWN,),
        subject='Undeliverable Mail: "Your order"',
        message_id="",
    ),
    "for the following reason": Format(
        "This message was created automatically by mail delivery software.\n\n"
        "A message that you sent could not be delivered to one or more of its recipients.\n"
        "The following address failed:\n\nada@example.net\n\nFor the following reason:\n\n"
        "Mail size limit exceeded. For explanation visit http://example.com/limits\n\n"
        "--- The header of the original message is following. ---\n\n" + SENT,
        (Said("ada@example.net", 0, "", "content", True),),
        subject="Mail delivery failed: returning message to sender",
    ),
    "sent and received": Format(
        "Unable to deliver message to <ada@example.net>\n\nSent >>> RCPT TO:<ada@example.net>\n"
        "Received <<< 550 5.1.1 unknown user\n\n",
        (UNKNOWN,),
        subject="Mail could not be delivered",
        sender="Gateway <scanner@example.com>",
        message_id="",
    ),
    "to a mobile": Format(
        "Message could not be delivered to mobile.\n"
        "Error: No valid recipients for this MM\n\nada@example.net\n",
        (Said("ada@example.net", 0, "", "bad-mailbox", True),),
        subject="Undeliverable Message",
        sender="post_master@example.com",
        message_id="",
    ),
    "a quota, in a list of addresses": Format(
        "   ----- The following addresses had delivery problems -----\nada@example.net\n\n"
        "   ----- Non-delivered information -----\n"
        "The number of messages in recipient's mailbox exceeded the local limit.\n",
        (Said("ada@example.net", 0, "", "full", True),),
        subject="Returned mail: User unknown",
        message_id="",
    ),
    "fields for people": Format(
        "Hi. This is the mail server at mx.example.com.\n"
        "I'm afraid I wasn't able to deliver your message to the\n"
        "following addresses. This is a permanent error; I've given up.\n\n"
        "The error message below was generated by the server:\n550 5.1.1 nobody here\n\n"
        "Message details:\n  Subject: Your order\n  MAIL FROM: shop@example.org\n"
        "  RCPT TO: ada@example.net\n",
        (UNKNOWN,),
        subject="[BOUNCE]",
        sender="postmaster@example.com",
        message_id="",
    ),
    "a list of fields in the text": Format(
        "An error occurred while trying to deliver the mail to the following recipients:\nada@example.net\n\n"
        "Technical report:\n\nReporting-MTA: dns; mx.example.com\n\nAction: failed\n"
        "Final-Recipient: rfc822; ada@example.net\nDiagnostic-Code: smtp; 550 5.1.1 nobody\nStatus: 5.1.1\n",
        (UNKNOWN,),
        subject="Delivery Status Notification (Failure)",
        message_id="",
    ),
    "one line": Format(
        "User mailbox exceeds allowed size: ada@example.net\n\n\nOriginal message follows.\n\n" + SENT,
        (Said("ada@example.net", 0, "", "full", True),),
        subject="Undeliverable Mail",
        sender='"Postmaster" <postmaster@example.net>',
    ),
    "a colon behind each address": Format(
        "    An error has occurred while attempting to deliver a message for\n"
        "    the following list of recipients:\n\n"
        "ada@example.net: 550 5.1.1 <ada@example.net>: nobody\n"
        "bob@example.net: Network error on destination MXs\n\n"
        "    Below is a copy of the original message:\n\n" + SENT,
        (UNKNOWN, Said("bob@example.net", 0, "", "unknown", True)),
        subject="Delivery status notification: error",
    ),
    "another language": Format(
        "Die folgende Nachricht konnte nicht zugestellt werden.\n\n"
        "  ada@example.net\n    550 5.1.1 Empfänger unbekannt\n\n" + SENT,
        (UNKNOWN,),
        subject="Unzustellbar: Ihre Bestellung",
        content_type="text/plain; charset=utf-8",
    ),
    "a daemon's, in any language": Format(
        "このメールは送信できませんでした。\n\nada@example.net\n\n550 5.1.1 unknown user\n\n" + SENT,
        (UNKNOWN,),
        subject="=?utf-8?b?44Oh44O844Or?=",
        content_type="text/plain; charset=utf-8",
    ),
    "RFC 3464, and what its fields lack": Format(
        "--b\nContent-Type: text/plain\n\nHi!\n\nada@example.net: 550 5.1.1 <ada@example.net>: nobody\n\n"
        "--b\nContent-Type: message/delivery-status\n\nReporting-MTA: dns; mx.example.com\n\n"
        "Final-Recipient: rfc822; ada@example.net\nAction: failed\nStatus: 5.0.0\n\n"
        "--b\nContent-Type: message/rfc822\n\n" + SENT + "--b--\n",
        (UNKNOWN,),
        content_type="multipart/report; report-type=delivery-status; boundary=b",
    ),
    "RFC 3464, with a word misspelled and no third part": Format(
        "--b\nContent-Type: text/plain\n\nSorry.\n\n--b\nContent-Type: message/delivery-status\n\n"
        "Reporting-MTA: dns; mx.example.com\nArrival-Date: yesterday\n\n"
        "Original-Recipient: <ada@example.net>\nction: failed\nStatus: 5.1.1\n"
        "Diagnostic-Code: 550 5.1.1 nobody\n\n--b--\n",
        (UNKNOWN,),
        content_type="multipart/report; boundary=b",
        message_id="",
    ),
    "RFC 3464, passed on by another server": Format(
        "--o\nContent-Type: text/plain\n\nThis mail was found to be clean.\n\n--o\n"
        "Content-Type: message/rfc822\n\n"
        "From: MAILER-DAEMON@mx.example.net\nSubject: Undelivered Mail\n"
        "Content-Type: multipart/report; report-type=delivery-status; boundary=b\n\n"
        "--b\nContent-Type: text/plain\n\nSorry.\n\n--b\nContent-Type: message/delivery-status\n\n"
        "Reporting-MTA: dns; mx.example.com\n\nFinal-Recipient: rfc822; ada@example.net\nAction: failed\n"
        "Status: 5.1.1\nDiagnostic-Code: smtp; 550 5.1.1 nobody\n\n--b--\n\n--o--\n",
        (UNKNOWN,),
        subject="Returned mail",
        content_type="multipart/mixed; boundary=o",
        message_id="",
    ),
    "expired, says the Status": Format(
        "--b\nContent-Type: text/plain\n\nSorry.\n\n--b\nContent-Type: message/delivery-status\n\n"
        "Reporting-MTA: dns; mx.example.com\n\nFinal-Recipient: rfc822; ada@example.net\nAction: failed\n"
        "Status: 4.4.7\nDiagnostic-Code: smtp; 550 4.4.7 QUEUE.Expired; message expired\n\n--b--\n",
        (Said("ada@example.net", 550, "4.4.7", "expired", False),),
        content_type="multipart/report; report-type=delivery-status; boundary=b",
        message_id="",
    ),
}
