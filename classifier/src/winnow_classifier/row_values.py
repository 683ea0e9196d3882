"""What one written target is: 0 or 1, a number, a label map or a list. Pure, and the same from every file format."""

import ast
import re
from collections.abc import Mapping, Sequence

import orjson

from winnow_classifier.errors import ConfigError
from winnow_classifier.labels import TaskDetail

NUMBER = re.compile(r"[-+]?(\d+\.?\d*|\.\d+)([eE][-+]?\d+)?|nan|[-+]?inf(inity)?", re.IGNORECASE)
WHOLE_NUMBER = re.compile(r"([-+]?\d+)(?:\.0+)?")  # a column of integers with a gap is one of floats to pandas
CLASS_NUMBER = re.compile(r'"?\d{1,4}(\.0+)?"?')

# Booleans and whole floats are equal to these keys in Python, so True and 1.0 are found here too.
_BITS: Mapping[object, int] = {0: 0, 1: 1}
_BIT_WORDS: Mapping[str, int] = {"0": 0, "1": 1, "false": 0, "true": 1}
_WHOLE_FLOAT = re.compile(r"([01])\.0+")
_FOR_BITS = ([1], [0, 1])  # labels, read as bits, that 0 and 1 get by their place and by their name alike
_MAX_LITERAL_CHARACTERS = 1024 * 1024


def bit_of(value: object) -> int | None:
    """0 or 1 for 0, 1, false, true, whole floats and their texts ("1", "1.0", "true"); None for anything else."""
    if isinstance(value, str):
        word = value.strip().strip('"').lower()
        whole = _WHOLE_FLOAT.fullmatch(word)
        return _BIT_WORDS.get(whole[1] if whole else word)
    return _BITS.get(value) if isinstance(value, int | float) else None


def written(value: object) -> str:
    """A boolean or a number as CSV has it; nothing for anything else."""
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(value) if isinstance(value, int | float) else ""


def literal(text: str) -> object | None:
    """A label map or a list in a text: as JSON, as JSON with the doubled quotes of CSV, or as Python writes it."""
    for json in (text, text.replace('""', '"')):
        try:
            value: object = orjson.loads(json)
        except orjson.JSONDecodeError:
            continue
        return value
    if len(text) > _MAX_LITERAL_CHARACTERS:
        return None
    try:
        value = ast.literal_eval(text.strip())
    except (ValueError, SyntaxError, TypeError, RecursionError, MemoryError):
        return None
    return value if isinstance(value, dict | list) else None


def literal_list(value: object) -> object:
    """A list as CSV has it, in a text; anything else as it is."""
    is_list = isinstance(value, str) and value.lstrip()[:1] == "["
    return value if not is_list else literal(str(value)) or value


def are_names(task_detail: TaskDetail | None, labels: Sequence[str]) -> bool:
    """Whether numbers, true and false are names of labels, which has to be asked for: 2 among 0 and 1 is a mistake
    otherwise. Told by the options alone, so that it does not depend on which row comes first."""
    if task_detail is TaskDetail.MULTICLASS:
        return True
    bits = [bit_of(label) for label in labels]
    if bits in _FOR_BITS:
        return False
    return bits.count(None) < len(bits) or any(map(NUMBER.fullmatch, labels))


def check_order(task_detail: TaskDetail | None, labels: Sequence[str]) -> None:
    """Raises ConfigError where a 0 or 1 would get the label that is written as the other one."""
    if not labels or len(labels) > 2 or task_detail in (TaskDetail.MULTICLASS, TaskDetail.MULTILABEL):
        return
    bits = [bit_of(label) for label in labels]
    if None not in bits and bits not in _FOR_BITS:
        raise ConfigError("labels: the negative one comes first: write 0,1 or false,true")
