"""Stage `submission`: refuses subjects, and redirects all mail where no real person may get any."""

from __future__ import annotations

from dataclasses import replace

from pydantic import BaseModel, ConfigDict

from gateway import Address, Reject, Submission, hookimpl


class Settings(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")
    refused_words: tuple[str, ...] = ()  # in a subject
    send_all_to: str = ""  # an address; empty leaves the recipients as they are


@hookimpl
def submission(submission: Submission, settings: Settings) -> Submission | Reject | None:
    for word in settings.refused_words:
        if word.lower() in submission.subject.lower():
            return Reject(550, "5.7.1", f"the subject has the word {word}")
    if not settings.send_all_to:
        return None
    meant = ", ".join(map(str, submission.recipients))
    return replace(
        submission,
        recipients=(Address.parse(settings.send_all_to),),
        data=f"X-Acme-Meant-For: {meant}\r\n".encode() + submission.data,
        extra={**submission.extra, "meant_for": meant},
    )
