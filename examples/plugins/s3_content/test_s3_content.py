import json
import os
import socket
import subprocess
import sys
import time
from contextlib import asynccontextmanager, suppress
from datetime import UTC, datetime, timedelta

import boto3
import pytest
from gateway_s3_content import S3Content, S3Error, S3Settings, S3Store, listed
from pydantic import ValidationError

from gateway.testing import TextContent
from gateway.testing.conformance import ContentStoreSuite

NAME = "a" * 32
LATER = datetime.now(UTC) + timedelta(days=1)
LARGE = "a long text\r\n" * 20_000


class S3:
    """A server of moto's, which looks at signatures. `settings` are those of a bucket of its own."""

    SETUP = 3  # calls before it does

    def __init__(self, port):
        self.endpoint = f"http://127.0.0.1:{port}"
        self.buckets = 0
        iam = self._client("iam", "nobody", "nothing")
        iam.create_user(UserName="gateway")
        key = iam.create_access_key(UserName="gateway")["AccessKey"]
        allowed = {"Effect": "Allow", "Action": "s3:*", "Resource": "*"}
        policy = json.dumps({"Version": "2012-10-17", "Statement": [allowed]})
        iam.put_user_policy(UserName="gateway", PolicyName="s3", PolicyDocument=policy)
        self.keys = (key["AccessKeyId"], key["SecretAccessKey"])
        self.client = self._client("s3", *self.keys)

    def _client(self, service, access_key, secret_key):
        return boto3.client(
            service,
            endpoint_url=self.endpoint,
            region_name="us-east-1",
            aws_access_key_id=access_key,
            aws_secret_access_key=secret_key,
        )

    def bucket(self, **more):
        self.buckets += 1
        bucket = f"mail-{self.buckets}"
        self.client.create_bucket(Bucket=bucket)
        access_key, secret_key = self.keys
        given = {"endpoint": self.endpoint, "bucket": bucket, "prefix": "mail/"}
        return given | {"access_key": access_key, "secret_key": secret_key} | more

    def keys_in(self, bucket):
        return [one["Key"] for one in self.client.list_objects_v2(Bucket=bucket).get("Contents", [])]


@pytest.fixture(scope="module")
def s3():
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    environment = {
        **os.environ,
        "INITIAL_NO_AUTH_ACTION_COUNT": str(S3.SETUP),
        "MOTO_S3_DEFAULT_MAX_KEYS": "2",  # on a page
    }
    command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
    with subprocess.Popen(command, env=environment, stderr=subprocess.DEVNULL) as process:
        try:
            until = time.monotonic() + 30
            while True:
                assert process.poll() is None, "the server has ended"
                assert time.monotonic() < until, "the server does not start"
                with suppress(OSError), socket.create_connection(("127.0.0.1", port)):
                    break
                time.sleep(0.05)
            yield S3(port)
        finally:
            process.kill()


@asynccontextmanager
async def open_store(settings):
    store = S3Store(S3Settings(**settings))
    yield store
    await store.aclose()


class TestConformance(ContentStoreSuite):
    @pytest.fixture(autouse=True)
    def _bucket(self, s3):
        self.settings = s3.bucket()

    def store(self):
        return open_store(self.settings)

    def failing(self):
        with socket.create_server(("127.0.0.1", 0)) as free:
            away = f"http://127.0.0.1:{free.getsockname()[1]}"
        return open_store(self.settings | {"endpoint": away})


async def test_large_messages_are_in_the_bucket(mail_gateway, s3):
    settings = s3.bucket()
    chosen = {"content": {"store": "s3"}}
    async with mail_gateway(S3Content(), settings={"s3content": settings}, configuration=chosen) as gateway:
        happened = await gateway.deliver(to="ada@example.com", text=LARGE)
        assert happened["ada@example.com"].state == "delivered"
        assert b"a long text" in happened.handed_over[0].data
        arrived = await gateway.receive(b"Subject: long\r\n\r\n" + LARGE.encode())
        assert arrived.incoming[0].data.endswith(LARGE.encode())
        await gateway.receive(b"Subject: short\r\n\r\nhi\r\n")
        kept = s3.keys_in(settings["bucket"])
        assert kept
        assert all(key.startswith("mail/") for key in kept)


async def test_a_service_that_refuses(mail_gateway, s3):
    """Nothing is taken that could not be kept, and what is small goes on."""
    wrong = s3.bucket(secret_key="wrong")
    chosen = {"content": {"store": "s3"}}
    async with mail_gateway(S3Content(), settings={"s3content": wrong}, configuration=chosen) as gateway:
        assert (await gateway.deliver(text=LARGE)).refused
        assert (await gateway.receive(b"Subject: x\r\n\r\n" + LARGE.encode())).refused.startswith("451")
        assert (await gateway.deliver()).messages[0].state == "delivered"
        assert s3.keys_in(wrong["bucket"]) == []


async def test_what_it_says_of_failures(s3):
    async with open_store(s3.bucket(secret_key="wrong")) as store:
        with pytest.raises(S3Error, match=r"403.*SignatureDoesNotMatch"):
            await store.put(NAME, TextContent(b"x"))
    async with open_store(s3.bucket() | {"bucket": "not-there"}) as store:
        with pytest.raises(S3Error, match=r"404.*NoSuchBucket"):
            [name async for name in store.names(LATER)]
        with pytest.raises(S3Error, match="no name"):
            await store.put("../" + NAME, TextContent(b"x"))


async def test_other_things_in_the_bucket(s3):
    settings = s3.bucket()
    names = [f"{number:032x}" for number in range(5)]  # three pages
    async with open_store(settings) as store:
        for name in names:
            await store.put(name, TextContent(b"x"))
        for other in (NAME, "mail/readme.txt", f"other/{NAME}", f"mail/old/{NAME}"):
            s3.client.put_object(Bucket=settings["bucket"], Key=other, Body=b"mine")
        assert sorted([name async for name in store.names(LATER)]) == names
        await store.delete(names)
        assert [name async for name in store.names(LATER)] == []
    assert len(s3.keys_in(settings["bucket"])) == 2  # of the first page


def page(inside, namespace=' xmlns="http://s3.amazonaws.com/doc/2006-03-01/"'):
    return f"<ListBucketResult{namespace}>{inside}</ListBucketResult>".encode()


def entry(key, at="2026-01-31T08:00:00.000Z"):
    return f"<Contents><Key>{key}</Key><LastModified>{at}</LastModified></Contents>"


def test_pages():
    both = page(
        entry(NAME) + entry("b" * 32, "2999-01-01T00:00:00Z") + "<IsTruncated>true</IsTruncated>"
        "<NextContinuationToken>a/b+c=</NextContinuationToken>"
    )
    assert listed(both, "", LATER) == ([NAME], "a/b+c=")
    assert listed(page(entry(NAME), namespace=""), "", LATER) == ([NAME], "")
    assert listed(page(entry(NAME)), "mail/", LATER) == ([], "")


@pytest.mark.parametrize(
    "wrong",
    [
        b"",
        b"{}",
        page(entry(NAME))[:-5],
        page(entry(NAME, "yesterday")),
        page(entry(NAME, "2026-01-31T08:00:00")),  # where?
        page("<IsTruncated>true</IsTruncated>"),
        b'<!DOCTYPE x [<!ENTITY a "aaaaaaaaaa">'
        + b"".join(b'<!ENTITY a%d "%s">' % (n, (b"&a%d;" % (n - 1) if n else b"&a;") * 50) for n in range(9))
        + b"]><x>&a8;</x>",
    ],
)
def test_pages_that_are_none(wrong):
    with pytest.raises(S3Error):
        listed(wrong, "", LATER)


def test_wrong_settings():
    good = {"endpoint": "https://s3.example.com", "bucket": "mail", "access_key": "a", "secret_key": "b"}
    assert "secret_key" not in repr(S3Settings(**good))
    for wrong in ({"endpoint": "s3.example.com"}, {"bucket": "A/B"}, {"prefix": "/x"}, {"secret_key": ""}):
        with pytest.raises(ValidationError):
            S3Settings(**good | wrong)
