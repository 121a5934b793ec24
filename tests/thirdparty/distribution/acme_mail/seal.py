"""Stage `sign`: a field with an HMAC over the message, made in a thread."""

from __future__ import annotations

import hashlib
import hmac

from pydantic import BaseModel, ConfigDict, SecretStr

from gateway import ConfigPath, hookimpl


class SealSettings(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")
    key: SecretStr = SecretStr("")
    key_file: ConfigPath | None = None  # instead of key


class Seal:
    Settings = SealSettings

    @hookimpl(thread=True)
    def sign(self, data: bytes, settings: SealSettings) -> bytes:
        key = settings.key.get_secret_value().encode()
        if settings.key_file is not None:
            key = settings.key_file.read_bytes()
        return f"X-Acme-Seal: {hmac.new(key, data, hashlib.sha256).hexdigest()}\r\n".encode() + data
