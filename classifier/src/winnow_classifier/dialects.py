"""Files written for other services, by the fields of their records: which text and which target they mean.

OpenAI fine-tuning (messages, the label as the assistant's answer), Cohere (the same with its own role names), Vertex AI
text classification (textContent with classificationAnnotation) and Gemini tuning (contents).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

FIELDS = frozenset(
    ("messages", "contents", "textContent", "textGcsUri", "classificationAnnotation", "classificationAnnotations")
)
_ANSWERS = frozenset(("assistant", "chatbot", "model"))
_QUESTIONS = frozenset(("user", "human"))


@dataclass(frozen=True, slots=True)
class Foreign:
    text: object
    target: object  # a label's name, or a list of names
    text_key: str  # the field to name in a problem
    target_key: str
    origin: str


def foreign(fields: Mapping[str, object]) -> Foreign | str | None:
    """None for a record of no service; words for one that cannot be used."""
    if "messages" in fields:
        return _conversation(fields["messages"], "messages", "content")
    if "contents" in fields:
        return _conversation(fields["contents"], "contents", "parts")
    if "textContent" in fields or "textGcsUri" in fields:
        return _vertex(fields)
    return None


def _conversation(turns: object, key: str, content: str) -> Foreign | str:
    """The user's words are the text; what the assistant answers to them is the label. System words are left out: they
    are the same in every row."""
    if not isinstance(turns, list) or not all(isinstance(turn, dict) for turn in turns):
        return f'{key} must be a list of {{"role": …, "{content}": …}}'
    said = [(str(turn.get("role", "")).lower(), _words(turn.get(content))) for turn in turns]
    questions = [words for role, words in said if role in _QUESTIONS]
    answers = [words for role, words in said if role in _ANSWERS]
    if not questions or len(answers) != 1 or said[-1][0] not in _ANSWERS:
        return f"{key} must be one or more texts of the user and then one answer, the label; found " + (
            ", ".join(role or "no role" for role, _ in said[:6]) or "nothing"
        )
    if any(words is None for words in (*questions, *answers)):
        return f"{key} may hold texts only"
    text = "\n\n".join(words for words in questions if words is not None)
    origin = "Gemini tuning" if key == "contents" else "OpenAI fine-tuning"
    if key == "messages" and any(role == "chatbot" for role, _ in said):
        origin = "Cohere chat fine-tuning"
    return Foreign(text, answers[0], key, key, origin)


def _words(content: Any) -> str | None:
    if isinstance(content, str):
        return content
    if isinstance(content, list) and all(
        isinstance(part, dict) and isinstance(part.get("text"), str) for part in content
    ):
        return "".join(part["text"] for part in content)
    return None


def _vertex(fields: Mapping[str, object]) -> Foreign | str:
    origin = "Vertex AI text classification"
    if "textContent" not in fields:
        return "textGcsUri refers to another file, which is not read; put the text itself into textContent"
    if "classificationAnnotations" in fields:
        found = fields["classificationAnnotations"]
        if not isinstance(found, list) or not all(isinstance(one, dict) and "displayName" in one for one in found):
            return 'classificationAnnotations must be a list of {"displayName": …}'
        names = [one["displayName"] for one in found]
        return Foreign(fields["textContent"], names, "textContent", "classificationAnnotations", origin)
    one = fields.get("classificationAnnotation")
    if not isinstance(one, dict) or "displayName" not in one:
        return 'classificationAnnotation must be {"displayName": …}'
    return Foreign(fields["textContent"], one["displayName"], "textContent", "classificationAnnotation", origin)
