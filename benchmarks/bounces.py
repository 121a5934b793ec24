"""How well real reports are read: recipients, classes and kinds of a labelled corpus, and the time for each.

A corpus is a directory with `messages/` and `labels.jsonl`, one object a line: `file`, `kind` ("dsn", "arf",
"autoreply"), `recipients`, and `rows`, one for each recipient, with `status`, `reply` and `reason`.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import trio

from gateway import Address, AddressError, AutomaticReply, DeliveryStatus, FeedbackReport, RecipientStatus
from gateway.config.settings import Settings
from gateway.hooks.stages import Hooks
from gateway.mail.dsn import readable_addresses
from gateway.mail.report_source import read_source
from gateway.plugins.loading import load_plugins

CORPUS = Path(__file__).parents[2] / "shared" / "corpora" / "bounces"

Answer = DeliveryStatus | FeedbackReport | AutomaticReply | None

# What the labels call a reason, by the classes that say the same.
REASONS = {
    "userunknown": ("bad-mailbox",),
    "hasmoved": ("bad-mailbox",),
    "suspend": ("bad-mailbox",),
    "filtered": ("bad-mailbox", "policy"),
    "hostunknown": ("bad-domain",),
    "notaccept": ("bad-domain",),
    "mailboxfull": ("full",),
    "blocked": ("blocked",),
    "badreputation": ("blocked",),
    "requireptr": ("blocked",),
    "toomanyconn": ("blocked", "temporary"),
    "spamdetected": ("content",),
    "mesgtoobig": ("content",),
    "notcompliantrfc": ("content",),
    "policyviolation": ("policy", "content"),
    "authfailure": ("policy",),
    "securityerror": ("policy",),
    "rejected": ("policy", "blocked", "bad-mailbox"),
    "norelaying": ("relaying",),
    "expired": ("expired",),
    "networkerror": ("expired", "bad-domain"),
    "failedstarttls": ("protocol",),
    "mailererror": ("protocol",),
    "syntaxerror": ("protocol",),
    "systemerror": ("protocol", "temporary", "expired"),
}


@dataclass(slots=True)
class Figures:
    """Counts over a corpus."""

    messages: int = 0
    kinds: int = 0  # right
    misread: int = 0  # feedback reports and automatic replies that were taken for bounces
    bounces: int = 0
    recipients: int = 0  # bounces whose recipients were all found, and no others
    classes: Counter[tuple[str, str]] = field(
        default_factory=Counter
    )  # (label, what was read), "4", "5" or ""
    reasons: Counter[tuple[str, bool]] = field(default_factory=Counter)  # (label, whether ours says the same)
    seconds: list[float] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)

    def recall(self, label: str) -> float:
        """How many of the recipients of a class were read as of that class."""
        of_label = sum(count for (known, _), count in self.classes.items() if known == label)
        return self.classes[label, label] / of_label if of_label else 1.0

    def precision(self, label: str) -> float:
        """How many of those that were read as of a class are of that class."""
        read = sum(count for (_, got), count in self.classes.items() if got == label)
        return self.classes[label, label] / read if read else 1.0

    @property
    def accuracy(self) -> float:
        total = self.classes.total()
        return (self.classes["4", "4"] + self.classes["5", "5"]) / total if total else 1.0

    @property
    def balanced(self) -> float:
        return (self.recall("4") + self.recall("5")) / 2


def labels(corpus: Path) -> Iterator[dict[str, Any]]:
    with (corpus / "labels.jsonl").open(encoding="utf-8") as lines:
        for line in lines:
            yield json.loads(line)


def load() -> Hooks:
    """The readers of the default plugin set."""
    return load_plugins(Settings.model_validate({"hostname": "mail.example.org"}), Path())


async def score(corpus: Path, hooks: Hooks) -> Figures:
    """Reads all messages of a corpus."""
    figures = Figures()
    for label in labels(corpus):
        data = (corpus / "messages" / label["file"]).read_bytes()
        started = time.perf_counter()
        answer = await hooks.gateway.read_report(source=read_source(data))
        figures.seconds.append(time.perf_counter() - started)
        _count(figures, label, answer)
    return figures


def kind_of(answer: Answer) -> str:
    if isinstance(answer, DeliveryStatus):
        return "dsn"
    if isinstance(answer, FeedbackReport):
        return "arf"
    return "autoreply" if isinstance(answer, AutomaticReply) else "none"


def _count(figures: Figures, label: dict[str, Any], answer: Answer) -> None:
    name, kind = label["file"], kind_of(answer)
    figures.messages += 1
    figures.kinds += kind == label["kind"]
    if kind != label["kind"]:
        figures.wrong.append(f"{name}: kind {kind} for {label['kind']}")
    if label["kind"] != "dsn":
        figures.misread += kind == "dsn"
        return
    figures.bounces += 1
    said = answer.recipients if isinstance(answer, DeliveryStatus) else ()
    by_address = {_recipient(one): one for one in reversed(said)}
    wanted = [_key(address) for address in label["recipients"]]
    if set(wanted) == set(by_address):
        figures.recipients += 1
    else:
        read = ", ".join(one.final_recipient or "?" for one in said) or "nobody"
        figures.wrong.append(f"{name}: recipients {read} for {', '.join(wanted)}")
    # The rows are in an order of their own.
    read_as = sorted((by_address.get(address) for address in wanted), key=_class)
    for row, one in zip(sorted(label["rows"], key=lambda row: row["status"][:1]), read_as, strict=False):
        known, got = row["status"][:1], _class(one)
        if known not in ("4", "5"):
            continue
        figures.classes[known, got] += 1
        if got != known:
            codes = f"{row['status']} {row['reply']}".strip()
            figures.wrong.append(f"{name}: class {got or 'none'} for {codes} {row['reason']}: {_said(one)}")
    for row in label["rows"]:
        meant = REASONS.get(row["reason"])
        if meant is not None:
            same = any(one is not None and one.failure in meant for one in read_as)
            figures.reasons[row["reason"], same] += 1
            if not same:
                ours = ", ".join(f"{one.failure}: {_said(one)}" for one in read_as if one is not None)
                figures.wrong.append(f"{name}: not {row['reason']} but {ours or 'nothing'}")


def _recipient(one: RecipientStatus) -> str:
    """Final-Recipient; else Original-Recipient."""
    readable = (*readable_addresses(one.final_recipient), *one.addresses)
    return _key(readable[0]) if readable else one.final_recipient


def _key(address: Address | str) -> str:
    try:
        return str(Address.parse(str(address))).lower()
    except AddressError:
        return str(address).lower()


def _class(one: RecipientStatus | None) -> str:
    if one is None or one.action not in ("failed", "delayed"):
        return ""
    return "5" if one.permanent else "4"


def _said(one: RecipientStatus | None) -> str:
    return one.diagnostic[:120] if one is not None else ""


def table(figures: Figures) -> list[str]:
    """The figures for people, with the aims."""
    ranked = sorted(figures.seconds)
    median = statistics.median(ranked)
    lines = [
        f"messages             {figures.messages}",
        f"kind right           {figures.kinds / figures.messages:.1%}",
        f"taken for a bounce   {figures.misread} of {figures.messages - figures.bounces}   (aim 0)",
        f"recipients right     {figures.recipients / figures.bounces:.1%} of {figures.bounces}   (aim 90%)",
        f"class right          {figures.accuracy:.1%} of {figures.classes.total()} recipients   (aim 95%)",
        f"balanced             {figures.balanced:.1%}   (aim 92%)",
        f"time for each        median {median * 1000:.2f} ms, most {ranked[-1] * 1000:.1f} ms",
        "",
        "class  recall  precision",
    ]
    lines += [f"{c}      {figures.recall(c):6.1%}  {figures.precision(c):6.1%}" for c in ("4", "5")]
    lines += ["", "reason             right  of"]
    for reason in sorted({reason for reason, _ in figures.reasons}):
        right, wrong = figures.reasons[reason, True], figures.reasons[reason, False]
        lines.append(f"{reason:<18} {right:5}  {right + wrong}")
    right = sum(count for (_, same), count in figures.reasons.items() if same)
    return [*lines, f"{'altogether':<18} {right:5}  {figures.reasons.total()}"]


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.bounces", description=__doc__)
    parser.add_argument("corpus", nargs="?", type=Path, default=CORPUS, help="default: %(default)s")
    parser.add_argument("--wrong", action="store_true", help="also list what was read wrongly")
    options = parser.parse_args(arguments)
    if not (options.corpus / "labels.jsonl").is_file():
        print(f"{options.corpus}: no labels.jsonl there; name the corpus's directory", file=sys.stderr)
        return 1
    figures = trio.run(score, options.corpus, load())
    print("\n".join([*(figures.wrong if options.wrong else ()), *table(figures)]))
    return 0


if __name__ == "__main__":
    sys.exit(main())
