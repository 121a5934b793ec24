import pytest
from gateway_approval import Approval, ApprovalSettings

from gateway.testing import submission

SETTINGS = ApprovalSettings(recipients=2, trusted=("news@example.org",))


def to(count, **fields):
    return submission(recipients=[f"user{number}@example.net" for number in range(count)], **fields)


@pytest.mark.parametrize(
    ("given", "answer"),
    [(to(1), None), (to(2), None), (to(3), True), (to(3, login="news@example.org"), None)],
)
def test_many_recipients_wait(given, answer):
    for recipient in given.recipients:
        assert Approval().hold(given, recipient, SETTINGS) is answer


async def test_until_they_are_released(mail_gateway):
    async with mail_gateway(Approval(), settings={"approval": {"recipients": 2}}) as gateway:
        many = [f"user{number}@example.net" for number in range(3)]
        happened = await gateway.deliver(to=many, subject="news")
        assert {fate.state for fate in happened.messages} == {"held"}
        assert happened.handed_over == ()
        [line] = happened.log
        assert line.endswith("of app@example.org to 3 recipients waits for approval: 'news'")
        assert (await gateway.deliver(to=many[:2])).events[0].name == "delivered"
