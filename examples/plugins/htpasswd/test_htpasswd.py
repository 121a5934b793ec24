import bcrypt
import pytest
from gateway_htpasswd import Htpasswd, HtpasswdSettings

from gateway import Authenticated, Credentials

HASH = bcrypt.hashpw(b"lovelace", bcrypt.gensalt(4)).decode().replace("$2b$", "$2y$")  # as htpasswd -B has it
FILE = f"""\
# the users of the intranet
ada:{HASH}
old:$apr1$r31.....$HqJZimcKQFAMYayBlzkrA/
broken:$2y$04$short
"""


@pytest.fixture
def settings(tmp_path):
    (tmp_path / "users").write_text(FILE)
    return HtpasswdSettings(file=tmp_path / "users", account="shop")


@pytest.mark.parametrize(
    ("user", "password", "answer"),
    [
        ("ada", "lovelace", Authenticated(account="shop")),
        ("ada", "wrong", False),
        ("ada", "", False),
        ("ada", "x" * 100, False),
        ("old", "myPassword", False),
        ("broken", "x", False),
        ("nobody", "x", None),
        ("# the users of the intranet", "x", None),
        ("", "", None),
    ],
)
def test_who_is_let_in(settings, user, password, answer):
    credentials = Credentials(login=user, password=password, remote_ip="192.0.2.1")
    assert Htpasswd().authenticate(credentials, settings) == answer


async def test_a_user_logs_in(mail_gateway, tmp_path):
    (tmp_path / "users").write_text(FILE)
    settings = {"htpasswd": {"file": "users", "account": "app"}}
    async with mail_gateway(Htpasswd(), settings=settings) as gateway:
        api = await gateway.api()
        send = {"To": [{"Address": "you@example.net"}], "Text": "hi"}
        assert (await api.post("Send", json=send, auth=("ada", "lovelace"))).status_code == 200
        assert (await api.post("Send", json=send, auth=("ada", "wrong"))).status_code == 401
        assert (await api.post("Send", json=send)).status_code == 200  # the gateway's own password
        await gateway.rest()
        assert len(gateway.transport().got) == 2
