"""Signs submissions with DKIM (RFC 6376), with each key that the domain of From has."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, PrivateAttr

from gateway import ConfigPath, Submission, hookimpl
from gateway.config.values import AsTuple, Domain, OneSpelling
from gateway_dkim.signature import Canonicalization, PrivateKey, Signer, body_digest, load_private_key


class Selector(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)
    selector: Annotated[str, Field(pattern=r"^[A-Za-z0-9]([A-Za-z0-9-]*[A-Za-z0-9])?(\.[A-Za-z0-9-]+)*$")]
    key: ConfigPath  # PEM file, RSA (at least 1024 bits) or Ed25519
    canonicalization: Canonicalization = "relaxed/relaxed"  # of the header and the body


MAX_KEY_FILE = 64 * 1024  # bytes: the largest keys in use have 4


class DkimSettings(BaseModel):
    """[plugin.dkim.domains] example.org = [{ selector = "a", key = "dkim/example.org.a.pem" }]"""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)
    domains: Annotated[Mapping[Domain, Annotated[tuple[Selector, ...], AsTuple]], OneSpelling] = {}
    _signers: dict[str, list[Signer]] = PrivateAttr(default_factory=dict)

    def model_post_init(self, context: object) -> None:
        """Load every key now: a missing one is found when the gateway starts, and loading takes 30 ms."""
        for domain, selectors in self.domains.items():
            self._signers[domain] = [
                Signer(domain, one.selector, _load(one.key), one.canonicalization) for one in selectors
            ]

    def signers(self, domain: str) -> list[Signer]:
        """For a domain as addresses have it."""
        return self._signers.get(domain, [])


def _load(path: Path) -> PrivateKey:
    """The key of a PEM file. Raises ValueError (SigningKeyError is one) with the path in its text."""
    try:
        with path.open("rb") as file:
            return load_private_key(file.read(MAX_KEY_FILE))
    except OSError as exc:
        raise ValueError(f"{path}: cannot be read ({exc.strerror}); a DKIM key is to be there") from None
    except ValueError as exc:
        raise ValueError(f"{path}: {exc}") from None


class Dkim:
    Settings = DkimSettings

    @hookimpl
    async def sign(self, data: bytes, submission: Submission, settings: DkimSettings) -> bytes | None:
        signers = settings.signers(submission.header_from.domain)
        if not signers:
            return None
        digests = {one: await body_digest(data, one) for one in {signer.of_body for signer in signers}}
        return b"".join(one.sign(data, body_digest=digests[one.of_body]) for one in signers) + data
