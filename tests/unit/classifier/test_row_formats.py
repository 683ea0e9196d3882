"""Rows in every form that people have them in: what is read, whatever the format, and that broken parts are named."""

import contextlib
import csv
import gzip
import io
import json
import os
from concurrent.futures import ThreadPoolExecutor
from decimal import Decimal
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from rows_in_memory import canonical_digest, read_rows

from winnow_classifier import csv_rows, json_rows
from winnow_classifier.errors import ConfigError, DataError, EmptyDatasetError, WinnowError
from winnow_classifier.labels import TaskDetail
from winnow_classifier.row_files import FileFormat
from winnow_classifier.rows import InvalidRowsError, Judge, OnInvalidRows, RowOptions

SKIP = OnInvalidRows.SKIP
FAST = settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
A, B = {"Label_1": 1, "Label_2": 0}, {"Label_1": 0, "Label_2": 1}


@pytest.fixture
def rows_of(tmp_path):
    def read(content, name="rows", **options):
        (tmp_path / name).write_bytes(content if isinstance(content, bytes) else content.encode())
        return read_rows(tmp_path / name, RowOptions(**options))

    return read


@pytest.fixture
def problems_of(rows_of):
    def read(content, **options):
        with pytest.raises(InvalidRowsError) as raised:
            rows_of(content, **options)
        return [(p.line, p.column, p.message) for p in raised.value.problems]

    return read


def holding(rows):
    """Each text with the names of its labels."""
    return [
        (text, [label for label, bit in zip(rows.schema.labels, target, strict=True) if bit])
        for text, target in zip(rows.texts, rows.targets.tolist(), strict=True)
    ]


RECORDS = [{"prompt": "a, b", "completion": A}, {"prompt": 'say "x"\n{y}', "completion": B}]
EXPECTED = [("a, b", ["Label_1"]), ('say "x"\n{y}', ["Label_2"])]


def parquet(table, **options):
    written = io.BytesIO()
    pq.write_table(table, written, **options)
    return written.getvalue()


def jsonl(*records):
    return "".join(json.dumps(record) + "\n" for record in records)


FORMS = {
    "one a line": jsonl(*RECORDS),
    "over several lines": "\n".join(json.dumps(record, indent=2) for record in RECORDS),
    "over several lines without indentation": "\n".join(json.dumps(record, indent=0) for record in RECORDS),
    "several on a line": " ".join(map(json.dumps, RECORDS)),
    "several on a line without a space": "".join(map(json.dumps, RECORDS)) + "\n",
    "commas behind the records": ",\n".join(map(json.dumps, RECORDS)),
    "an array": json.dumps(RECORDS),
    "an array over several lines": json.dumps(RECORDS, indent=4) + "\n",
    "an array, a record a line": "[\n" + ",\n".join(map(json.dumps, RECORDS)) + "\n]",
    "an array behind a byte order mark": "\ufeff" + json.dumps(RECORDS),
    "CRLF": "\r\n".join(map(json.dumps, RECORDS)),
    "maps in texts": jsonl(*({**record, "completion": json.dumps(record["completion"])} for record in RECORDS)),
    "well-formed CSV": 'input,expected_output\n"a, b","{""Label_1"": 1, ""Label_2"": 0}"\n'
    '"say ""x""\n{y}","{""Label_1"": 0, ""Label_2"": 1}"\n',
    "CSV by hand": '"input", "expected_output"\n"a, b", "{"Label_1": 1, "Label_2": 0}"\n'
    '"say ""x""\n{y}", "{"Label_1": 0, "Label_2": 1}"\n',
    "CSV by hand, no space": 'input,expected_output\n"a, b","{"Label_1": 1, "Label_2": 0}"\n'
    '"say ""x""\n{y}","{"Label_1": 0, "Label_2": 1}"\n',
    "CSV by hand, mixed with well-formed rows, CRLF": 'input,expected_output\r\n"a, b", "{"Label_1": 1, "Label_2": 0}"\r\n'
    '"say ""x""\n{y}","{""Label_1"": 0, ""Label_2"": 1}"\r\n',
    "CSV by hand, a space and doubled quotes": 'input,expected_output\n"a, b", "{""Label_1"": 1, ""Label_2"": 0}"\n'
    '"say ""x""\n{y}", "{""Label_1"": 0, ""Label_2"": 1}"',
    "CSV by hand, the map first": 'expected_output, input\n"{"Label_1": 1, "Label_2": 0}", "a, b"\n'
    '"{""Label_1"": 0, ""Label_2"": 1}","say ""x""\n{y}"\n',
    "maps as Python writes them": "input,expected_output\n\"a, b\",\"{'Label_1': 1, 'Label_2': 0}\"\n"
    '"say ""x""\n{y}","{\'Label_1\': 0, \'Label_2\': 1}"\n',
    "tabs": 'input\texpected_output\na, b\t{"Label_1": 1, "Label_2": 0}\n"say ""x""\n{y}"\t{"Label_1": 0, "Label_2": 1}\n',
    "semicolons": 'input;expected_output\na, b;{"Label_1": 1, "Label_2": 0}\n"say ""x""\n{y}";{"Label_1": 0, "Label_2": 1}',
    "a first line for Excel": 'sep=;\r\ninput;expected_output\r\na, b;{"Label_1": 1, "Label_2": 0}\r\n'
    '"say ""x""\n{y}";{"Label_1": 0, "Label_2": 1}\r\n',
    "a first line for Excel, of a separator that is not guessed": "\ufeffSEP=|\ntext|label\na, b|Label_1\n"
    '"say ""x""\n{y}"|Label_2\n',
    "names of labels": jsonl({"text": "a, b", "label": "Label_1"}, {"label": "Label_2", "text": 'say "x"\n{y}'}),
    "names of labels in CSV": 'text,label\n"a, b",Label_1\n"say ""x""\n{y}", Label_2 \n',
    "lists of names": jsonl({"text": "a, b", "labels": ["Label_1"]}, {"text": 'say "x"\n{y}', "labels": ["Label_2"]}),
    "lists in CSV": 'text,label\n"a, b","[""Label_1""]"\n"say ""x""\n{y}","[\'Label_2\']"\n',
    "a legacy completion": jsonl(
        {"prompt": "a, b", "completion": " Label_1"}, {"prompt": 'say "x"\n{y}', "completion": " Label_2"}
    ),
    "OpenAI": jsonl(
        *(
            {
                "messages": [
                    {"role": "system", "content": "Sort these."},
                    {"role": "user", "content": text},
                    {"role": "assistant", "content": label},
                ]
            }
            for text, (label,) in EXPECTED
        )
    ),
    "OpenAI with parts": jsonl(
        *(
            {
                "messages": [
                    {"role": "user", "content": [{"type": "text", "text": text}]},
                    {"role": "assistant", "content": label},
                ]
            }
            for text, (label,) in EXPECTED
        )
    ),
    "Cohere chat": jsonl(
        *(
            {"messages": [{"role": "User", "content": text}, {"role": "Chatbot", "content": label}]}
            for text, (label,) in EXPECTED
        )
    ),
    "Vertex AI": jsonl(
        *(
            {
                "classificationAnnotation": {"displayName": label},
                "textContent": text,
                "dataItemResourceLabels": {"aiplatform.googleapis.com/ml_use": "training"},
            }
            for text, (label,) in EXPECTED
        )
    ),
    "Vertex AI, several labels": jsonl(
        *({"classificationAnnotations": [{"displayName": label}], "textContent": text} for text, (label,) in EXPECTED)
    ),
    "Gemini": jsonl(
        *(
            {"contents": [{"role": "user", "parts": [{"text": text}]}, {"role": "model", "parts": [{"text": label}]}]}
            for text, (label,) in EXPECTED
        )
    ),
    "Parquet with names": parquet(pa.table({"text": [t for t, _ in EXPECTED], "label": [n for _, (n,) in EXPECTED]})),
    "Parquet with maps": parquet(pa.Table.from_pylist(RECORDS), compression="zstd"),
    "Parquet with lists": parquet(pa.table({"text": [t for t, _ in EXPECTED], "labels": [n for _, n in EXPECTED]})),
    "Parquet with a map column": parquet(
        pa.table(
            {
                "prompt": [t for t, _ in EXPECTED],
                "completion": pa.array([[*A.items()], [*B.items()]], pa.map_(pa.string(), pa.int64())),
            }
        )
    ),
    "Parquet with texts as bytes": parquet(
        pa.table(
            {
                "prompt": pa.array([t.encode() for t, _ in EXPECTED]),
                "completion": [A, B],
            }
        )
    ),
    "Parquet with a list of a ClassLabel": parquet(
        pa.table({"text": [t for t, _ in EXPECTED], "labels": [[0], [1]]}).replace_schema_metadata(
            {
                "huggingface": json.dumps(
                    {
                        "info": {
                            "features": {
                                "labels": {
                                    "feature": {"names": ["Label_1", "Label_2"], "_type": "ClassLabel"},
                                    "_type": "List",
                                }
                            }
                        }
                    }
                )
            }
        )
    ),
    "Parquet with a ClassLabel": parquet(
        pa.table({"text": [t for t, _ in EXPECTED], "label": [0, 1]}).replace_schema_metadata(
            {
                "huggingface": json.dumps(
                    {"info": {"features": {"label": {"names": ["Label_1", "Label_2"], "_type": "ClassLabel"}}}}
                )
            }
        )
    ),
}


@pytest.mark.parametrize("pack", [None, gzip.compress, pa.Codec("zstd").compress], ids=["plain", "gzip", "zstd"])
@pytest.mark.parametrize("form", FORMS)
def test_the_same_rows_from_every_form(rows_of, form, pack):
    content = FORMS[form] if isinstance(FORMS[form], bytes) else FORMS[form].encode()
    if pack and "Parquet" in form:
        pytest.skip("Parquet is compressed within")
    if pack:
        packed = pack(content)
        content = packed if isinstance(packed, bytes) else packed.to_pybytes()
    rows = rows_of(content)
    assert holding(rows) == EXPECTED
    assert (rows.schema.task_detail, rows.schema.labels) == (TaskDetail.MULTICLASS, ("Label_1", "Label_2"))
    reference = rows_of(FORMS["one a line"], name="reference")
    assert canonical_digest(rows.schema, rows.texts, rows.targets) == canonical_digest(
        reference.schema, reference.texts, reference.targets
    )


@pytest.mark.parametrize(
    ("form", "origin"),
    [
        ("OpenAI", "OpenAI fine-tuning"),
        ("Cohere chat", "Cohere chat fine-tuning"),
        ("Vertex AI", "Vertex AI text classification"),
        ("Gemini", "Gemini tuning"),
        ("one a line", "JSON"),
        ("tabs", "CSV"),
        ("Parquet with names", "Parquet"),
    ],
)
def test_the_service_that_a_file_was_written_for_is_named(rows_of, form, origin):
    assert rows_of(FORMS[form]).origin == origin


def test_a_hand_written_text_with_quotes_of_its_own(rows_of):
    rows = rows_of('input,expected_output\n"He said "no", then left", "{"rude": 1, "kind": 0}"\n')
    assert holding(rows) == [('He said "no", then left', ["rude"])]


def test_gzip_of_several_parts_is_one_file(rows_of):
    line = jsonl({"prompt": "a", "completion": 1}).encode()
    assert rows_of(gzip.compress(line) + gzip.compress(line)).texts == ["a", "a"]


@pytest.fixture
def pipe_with():
    """The path of a pipe with this content, as a shell's <(…) makes one."""
    with ThreadPoolExecutor(1) as writer, contextlib.ExitStack() as at_the_end:

        def write(pipe, content):
            with os.fdopen(pipe, "wb") as stream:
                stream.write(content)

        def pipe(content):
            reading, writing = os.pipe()
            at_the_end.callback(os.close, reading)
            writer.submit(write, writing, content)
            return Path(f"/dev/fd/{reading}")

        yield pipe


@pytest.mark.parametrize("pack", [bytes, gzip.compress], ids=["plain", "gzip"])
def test_every_row_of_a_pipe_is_read(pipe_with, pack):
    content = jsonl(*({"text": f"text {number}", "label": "xy"[number % 2]} for number in range(10_000)))
    rows = read_rows(pipe_with(pack(content.encode())), RowOptions(on_invalid_rows=SKIP))
    assert (len(rows.texts), rows.problem_count) == (10_000, 0)
    assert rows.texts[0] == "text 0"


def test_parquet_in_a_pipe_is_refused_in_words(pipe_with):
    with pytest.raises(DataError, match="is Parquet in a pipe") as raised:
        read_rows(pipe_with(FORMS["Parquet with names"]), RowOptions())
    assert "write it to a file" in raised.value.hint


def test_several_files_are_one_dataset(tmp_path):
    (tmp_path / "1.jsonl").write_text(jsonl({"text": "a", "label": "x"}))
    (tmp_path / "2.csv").write_text("text,label\nb,y\n")
    rows = read_rows([tmp_path / "1.jsonl", tmp_path / "2.csv"], RowOptions())
    assert holding(rows) == [("a", ["x"]), ("b", ["y"])]
    (tmp_path / "3.csv").write_text("text,label\nb,\n")
    with pytest.raises(InvalidRowsError, match=r"the first, 3.csv, line 2, column 3") as raised:
        read_rows(sorted(tmp_path.iterdir()), RowOptions())
    assert [problem.file for problem in raised.value.problems] == ["3.csv"]


@pytest.mark.parametrize(
    ("labels", "options", "detail", "names"),
    [
        pytest.param(["b", "a", "c"], {}, "Multiclass", "abc", id="names are sorted"),
        pytest.param(["b", "a"], {"labels": ("c", "b", "a")}, "Multiclass", "cba", id="as asked, also those not met"),
        pytest.param([["a"], ["a", "b"], []], {}, "Multilabel", "ab", id="lists"),
        pytest.param([["a"], []], {"task_detail": TaskDetail.MULTILABEL}, "Multilabel", "a", id="a single label"),
        pytest.param(["ham", "spam"], {"task_detail": TaskDetail.BINARY}, "Binary", ["ham", "spam"], id="Binary"),
        pytest.param([3, 1, 2], {"task_detail": TaskDetail.MULTICLASS}, "Multiclass", "123", id="numbers as asked"),
        pytest.param([0, 2, 1], {"labels": ("0", "1", "2")}, "Multiclass", "012", id="numbers that labels names"),
        pytest.param(["not_x", "x"], {"labels": ("x",)}, "Binary", ["not_x", "x"], id="the positive name alone"),
        pytest.param(["yes", "no"], {"labels": ("no", "yes")}, "Multiclass", ["no", "yes"], id="two names"),
    ],
)
def test_names_of_labels(rows_of, labels, options, detail, names):
    rows = rows_of(jsonl(*({"text": f"t{i}", "label": label} for i, label in enumerate(labels))), **options)
    assert (rows.schema.task_detail, rows.schema.labels) == (detail, tuple(names))
    given_names = [[str(n) for n in (label if isinstance(label, list) else [label])] for label in labels]
    assert [names for _, names in holding(rows)] == given_names


@pytest.mark.parametrize(
    ("labels", "options", "message"),
    [
        pytest.param(["a", "b", 1], {}, "must be the name of a label as in line 1, found 1", id="a number"),
        pytest.param([0, 1, "spam"], {}, 'must be 0 or 1, found "spam"', id="a name among numbers"),
        pytest.param([0, 1, 2], {}, "must be 0 or 1, found 2 (numbers of classes are read with", id="a two"),
        pytest.param([0, 1, 2.0], {}, "must be 0 or 1, found 2.0 (numbers of classes are", id="a two, as a float"),
        pytest.param(["a", "b", "c"], {"labels": ("a", "b")}, '"c" is not in spec.labels ("a", "b")', id="unknown"),
        pytest.param(["a", "b", ["a", 5.5]], {}, "must be a list of label names, found 5.5 in it", id="a list of more"),
        pytest.param(["a", "b", ["a", "a"]], {}, "names a label twice", id="twice"),
        pytest.param(["a", "b", {"a": 1}], {}, "must be the name of a label as in line 1, found an object", id="a map"),
        pytest.param(["a", "b", "x" * 200], {}, "has 200 characters; 128 are allowed", id="a text as label"),
        pytest.param(
            ["a", "b", ["a", "b"]],
            {"task_detail": TaskDetail.MULTICLASS},
            "exactly one label (Multiclass), found 2",
            id="two where one must be",
        ),
    ],
)
def test_a_wrong_name(problems_of, labels, options, message):
    [(line, _, found)] = problems_of(jsonl(*({"text": "t", "label": label} for label in labels)), **options)
    assert line == 3
    assert message in found


def each_form(pairs):
    """The same rows as JSON, CSV and Parquet."""
    texts, values = zip(*pairs, strict=True)
    yield jsonl(*({"text": text, "label": value} for text, value in pairs)).encode()
    yield "".join(["text,label\n", *(f"{text},{value}\n" for text, value in pairs)]).encode()  # True, as pandas does
    written = io.BytesIO()
    pq.write_table(pa.table({"text": texts, "label": values}), written)
    yield written.getvalue()


@pytest.mark.parametrize(
    ("values", "labels", "names"),
    [
        pytest.param([0, 1], "0,1", "01", id="0 and 1"),
        pytest.param([False, True], "false,true", ["false", "true"], id="false and true"),
        pytest.param([False, True], "0,1", "01", id="false is 0"),
        pytest.param([0, 1], "ham,spam", ["ham", "spam"], id="words for 0 and 1"),
        pytest.param([1, 2], "1,2", "12", id="numbers are names"),
        pytest.param([-1, 1], "-1,1", ["-1", "1"], id="minus one"),
        pytest.param([1, 0], "1,0,2", "10", id="three numbers, 1 first"),
        pytest.param([True, False], "true,false,mixed", ["true", "false"], id="true and false among three"),
        pytest.param([True, False], "True,False,Mixed", ["True", "False"], id="as pandas writes them"),
    ],
)
def test_a_value_that_names_a_label_has_it_whatever_the_format_and_the_order(rows_of, values, labels, names):
    rows = list(zip("ab", values, strict=True))
    for content in [*each_form(rows), *each_form(rows[::-1])]:
        found = holding(rows_of(content, labels=tuple(labels.split(","))))
        assert sorted(found) == [("a", [names[0]]), ("b", [names[1]])]


@pytest.mark.parametrize("written", ["1", "1.0", "1.00"])
def test_a_whole_number_is_one_class_however_it_is_written(rows_of, written):
    rows = list(zip("abc", [written, 2.0, 3], strict=True))
    for content in [
        jsonl(*({"text": t, "label": v} for t, v in rows)),
        "text,label\n" + "".join(f"{t},{v}\n" for t, v in rows),
    ]:
        assert holding(rows_of(content, task_detail=TaskDetail.MULTICLASS)) == [
            ("a", ["1"]),
            ("b", ["2"]),
            ("c", ["3"]),
        ]


def test_true_and_false_are_classes_of_one_name_from_every_format(rows_of):
    for content in each_form([("a", True), ("b", False)]):
        assert holding(rows_of(content, task_detail=TaskDetail.MULTICLASS)) == [("a", ["true"]), ("b", ["false"])]


@pytest.mark.parametrize("form", ["JSON", "CSV", "Parquet"])
def test_a_fraction_is_a_class_only_where_labels_names_it(rows_of, problems_of, form):
    content = dict(zip(("JSON", "CSV", "Parquet"), each_form([("a", 1.5), ("b", 2.0)]), strict=True))[form]
    assert (
        "label must be a whole number or a name, found "
        in problems_of(content, task_detail=TaskDetail.MULTICLASS)[0][2]
    )
    assert holding(rows_of(content, labels=("1.5", "2", "3"))) == [("a", ["1.5"]), ("b", ["2"])]


def test_words_beside_true_and_false_are_labels_in_any_order(rows_of):
    for order in ("true,false,mixed", "mixed,true,false"):
        rows = rows_of(
            "text,label\n" + "".join(f"t,{word}\n" for word in order.split(",")), labels=tuple(order.split(","))
        )
        assert [names for _, names in holding(rows)] == [[word] for word in order.split(",")]


def test_true_and_false_are_no_names_among_names_unless_labels_has_them(rows_of, problems_of):
    maybe, true = jsonl({"text": "a", "label": "maybe"}), jsonl({"text": "b", "label": "true"})
    assert 'must be the name of a label as in line 1, found "true"' in problems_of(maybe + true)[0][2]
    assert 'must be 0 or 1, found "maybe"' in problems_of(true + maybe)[0][2]
    assert holding(rows_of(maybe + true, labels=("maybe", "true"))) == [("a", ["maybe"]), ("b", ["true"])]


@pytest.mark.parametrize("labels", ["true,false", "1,0", "1,true", "0", "False"])
def test_labels_that_would_turn_0_and_1_around_are_refused(rows_of, labels):
    with pytest.raises(ConfigError, match="labels: the negative one comes first: write 0,1 or false,true"):
        rows_of(jsonl({"text": "a", "label": True}), labels=tuple(labels.split(",")))


def test_one_label_alone_makes_no_classifier(rows_of):
    with pytest.raises(DataError, match='every row has the label "a"') as raised:
        rows_of(jsonl({"text": "t", "label": "a"}))
    assert "spec.labels" in raised.value.hint


def test_more_labels_than_a_classifier_has(problems_of):
    problems = problems_of(jsonl(*({"text": "t", "label": f"label {n}"} for n in range(1_002))))
    assert [line for line, _, _ in problems] == [1_001, 1_002]
    assert "1,000 are allowed" in problems[0][2]


@pytest.mark.parametrize(
    ("content", "line", "column", "message"),
    [
        pytest.param('[{"prompt": "x", "completion": 2}]', 1, 32, "must be 0 or 1, found 2", id="in an array"),
        pytest.param(
            '[\n  {"prompt": "x",\n   "completion": 2}\n]', 3, 18, "must be 0 or 1, found 2", id="in an array, line 3"
        ),
        pytest.param('{\n  "prompt": "x",\n  "completion": 2\n}\n', 3, 17, "found 2", id="over several lines"),
        pytest.param('{"prompt": "x", "completion": 1} {"prompt": "y"}', 1, 34, "is missing", id="second on the line"),
        pytest.param('[{"prompt": "x", "completion": 1}, 7]', 1, 36, "expected an object", id="a number in an array"),
        pytest.param('[{"prompt": "x", "completion": 1},\n[]]', 2, 1, "found a list", id="a list in an array"),
        pytest.param('[{"prompt": "x", "completion": 1}', 1, 34, "never closed with ]", id="no end of the array"),
        pytest.param('[{"prompt": "x", "completion": 1}] x', 1, 36, "follows the end", id="words behind the array"),
        pytest.param(
            '[{"prompt": "x", "completion": 1', 1, 2, "this element is never closed", id="no end of an element"
        ),
        pytest.param('[{"prompt": "x" "completion": 1}]', 1, 17, "not valid JSON", id="no comma in a record"),
        pytest.param('{\n "prompt": "x"\n "completion": 1\n}', 3, 2, "not valid JSON", id="no comma, several lines"),
        pytest.param('{"messages": []}', 1, 1, "messages must be one or more texts of the user", id="no messages"),
        pytest.param('{"messages": [{"role": "user", "content": "x"}]}', 1, 1, "found user", id="no answer"),
        pytest.param('{"messages": "x"}', 1, 1, 'messages must be a list of {"role"', id="messages that are a text"),
        pytest.param('{"textGcsUri": "gs://a/b"}', 1, 1, "refers to another file", id="Vertex AI, a file"),
        pytest.param('{"textContent": "x"}', 1, 1, "classificationAnnotation must be", id="Vertex AI, no label"),
    ],
)
def test_a_wrong_record_names_its_place(problems_of, content, line, column, message):
    [(found_line, found_column, found)] = problems_of(content)
    assert (found_line, found_column) == (line, column)
    assert message in found


def test_reading_goes_on_behind_a_broken_record(rows_of):
    good = '{\n "prompt": "fine",\n "completion": 1\n}\n'
    broken = '{\n "prompt": "fine\n",\n "completion": 1\n}\n'
    unclosed = '{"prompt": "x", "completion": 1\n'
    rows = rows_of(good + broken + good + unclosed + unclosed + good, on_invalid_rows=SKIP)
    assert rows.texts == ["fine"] * 3
    assert [problem.line for problem in rows.problems] == [6, 14, 15]


@pytest.mark.parametrize(
    ("after", "message"),
    [
        pytest.param(
            ['"now, quoted",1'], "the quote opened in line 3 ends in line 9, where no comma", id="a next quote"
        ),
        pytest.param([], "a quote in this row is never closed", id="no other quote"),
    ],
)
def test_a_quote_that_is_never_closed_costs_its_own_row_only(rows_of, after, message):
    lines = ["input,expected_output", "fine,1", '"a quote too many,1', *(f"row {n},{n % 2}" for n in range(5)), *after]
    rows = rows_of("\n".join(lines) + "\n", on_invalid_rows=SKIP)
    assert rows.texts == ["fine", *(f"row {n}" for n in range(5)), *(["now, quoted"] if after else [])]
    [problem] = rows.problems
    assert (problem.line, problem.column) == (3, 1)
    assert message in problem.message


def test_a_quote_opened_below_a_text_of_several_lines_is_named_there(rows_of):
    content = 'input,more,expected_output\n"one\ntwo","open,1\nb,c,1\n"d",e,0\n'
    rows = rows_of(content, on_invalid_rows=SKIP)
    assert (rows.texts, [(p.line, p.column) for p in rows.problems]) == (["b", "d"], [(3, 6)])


def test_a_record_cut_off_behind_a_comma_costs_no_other(rows_of):
    cut = '{"prompt": "cut", "completion": 1,\n'
    rows = rows_of(cut + jsonl(*({"prompt": f"t{n}", "completion": 1} for n in range(3))), on_invalid_rows=SKIP)
    assert rows.texts == ["t0", "t1", "t2"]
    assert [(problem.line, problem.message[:14]) for problem in rows.problems] == [(1, "not valid JSON")]


# Sizes that take a second, and hours where each record or line costs as much as all before it.
@pytest.mark.parametrize(
    ("content", "rows", "problems"),
    [
        pytest.param("text,label\n" + '"a,1\nb,1\n' * 50_000, 50_000, 50_000, id="quotes that are never closed"),
        pytest.param('{"text":"a","label":1}' * 200_000, 200_000, 0, id="records on one line"),
        pytest.param(
            '{"text":"a","label":1,"more":[\n' + "{},\n" * 400_000 + "{}]}\n", 1, 0, id="a record of many lines"
        ),
        pytest.param(f"text,label\na,{' ' * 1_000_000}x,1\nb,1\n", 1, 1, id="a field of spaces"),
        pytest.param(
            f'text,label\n"a "q" {" " * 1_000_000}x","{{""x"": 1}}"z\nb,1\n', 1, 1, id="spaces in a text by hand"
        ),
        pytest.param(
            f"text,label{''.join(map(',{}'.format, range(200_000)))}\nb,1{',' * 200_000}\n", 1, 0, id="columns"
        ),
    ],
)
def test_the_time_that_reading_takes_grows_with_the_file_and_no_faster(rows_of, content, rows, problems):
    found = rows_of(content, on_invalid_rows=SKIP)
    assert (len(found.texts), found.problem_count) == (rows, problems)


@pytest.mark.parametrize(
    ("content", "file_format", "message"),
    [
        pytest.param(parquet(pa.table({"text": ["a"]})), FileFormat.CSV, "is Parquet, not CSV", id="Parquet as CSV"),
        pytest.param(b"a,b\n", FileFormat.PARQUET, "is not Parquet", id="CSV as Parquet"),
    ],
)
def test_another_format_than_was_said(rows_of, content, file_format, message):
    with pytest.raises(DataError, match=message):
        rows_of(content, file_format=file_format)


def test_parquet_problems_name_the_row(rows_of, problems_of):
    table = pa.table({"prompt": ["a", "b", None], "completion": [1, 7, 0]})
    assert problems_of(parquet(table)) == [
        (2, None, "completion must be 0 or 1, found 7"),
        (3, None, "prompt must be a text, found null"),
    ]
    with pytest.raises(EmptyDatasetError):
        rows_of(parquet(table.slice(0, 0)))
    content = parquet(pa.table({"prompt": ["a" * 50_000], "completion": [1]}))
    with pytest.raises(DataError, match="damaged"):
        rows_of(content[:2_000] + bytes(5_000) + content[7_000:-200] + content[-200:])


def test_parquet_columns_of_other_types(rows_of, problems_of):
    decimals = pa.table({"text": ["a", "b"], "label": pa.array([Decimal("1.00"), Decimal("0.00")])})
    assert rows_of(parquet(decimals)).targets.tolist() == [[0, 1], [1, 0]]
    latin = pa.table({"text": pa.array([b"a", b"caf\xe9"]), "label": [0, 1], "picture": pa.array([b"\xff"] * 2)})
    assert problems_of(parquet(latin)) == [(2, None, "text must be a text, found bytes that are not UTF-8")]
    twice = pa.array([[("x", 1), ("x", 0)]], pa.map_(pa.string(), pa.int64()))
    with pytest.raises(DataError, match="a map behind row 0 has a key twice"):
        rows_of(parquet(pa.table({"text": ["a"], "label": twice})))
    features = {"labels": [{"names": ["x", "y"], "_type": "ClassLabel"}]}
    wrong = pa.table({"text": ["a", "b"], "labels": [[0, 1], [2]]})
    wrong = wrong.replace_schema_metadata({"huggingface": json.dumps({"info": {"features": features}})})
    assert problems_of(parquet(wrong)) == [(2, None, "labels: expected a class from 0 to 1, found 2")]


TWICE_IN_A_MAP = pa.array([[("x", 1), ("x", 0)]], pa.map_(pa.string(), pa.int64()))


@pytest.mark.parametrize(
    "other",
    [
        pytest.param(pa.array([2**62], pa.timestamp("ms")), id="a time out of range"),
        pytest.param(pa.array([1], pa.timestamp("s", "Mars/Olympus")), id="an unknown time zone"),
        pytest.param(TWICE_IN_A_MAP, id="a map with a key twice"),
        pytest.param(pa.Array.from_buffers(pa.string(), 1, pa.array([b"\xff"]).buffers()), id="no UTF-8"),
    ],
)
def test_a_column_of_no_matter_may_hold_what_cannot_be_read(rows_of, problems_of, other):
    content = parquet(pa.table({"id": other, "text": ["a"], "label": [1]}))
    assert rows_of(content).texts == ["a"]
    wanted = problems_of(content, text_column="mail")
    assert wanted == [(1, None, 'the file has no column "mail"; found "id", "text", "label"')]


def test_a_file_without_any_column_of_use_says_which_it_has(problems_of):
    [problem] = problems_of(parquet(pa.table({"id": [1], "body": ["a"]})))
    assert problem[2].endswith('found "id", "body"')


def test_a_column_name_twice_is_refused_in_parquet_too(problems_of):
    table = pa.Table.from_arrays([pa.array(["a"]), pa.array(["b"]), pa.array([1])], ["text", "text", "label"])
    assert problems_of(parquet(table)) == [(1, None, 'the file names the column "text" twice')]


def test_decimals_within_labels_count_as_numbers(rows_of):
    one, zero = Decimal("1.00"), Decimal("0.00")
    for label in (
        pa.array([{"x": one, "y": zero}]),
        pa.array([[("x", one), ("y", zero)]], pa.map_(pa.string(), pa.decimal128(3, 2))),
    ):
        assert holding(rows_of(parquet(pa.table({"text": ["a"], "label": label})))) == [("a", ["x"])]


def test_an_empty_file_beside_others_is_passed_over(tmp_path):
    nothing = pa.table({"text": pa.array([], pa.string()), "label": pa.array([], pa.int64())})
    contents = [b"", parquet(nothing), gzip.compress(b""), b"text,label\n", b"\n", b"text,label\na,0\nb,1\n"]
    files = [tmp_path / str(number) for number in range(len(contents))]
    for file, content in zip(files, contents, strict=True):
        file.write_bytes(content)
    assert read_rows(files, RowOptions()).texts == ["a", "b"]
    assert read_rows(files[::-1], RowOptions()).texts == ["a", "b"]
    with pytest.raises(EmptyDatasetError, match="the files have no rows"):
        read_rows(files[:-1], RowOptions())
    with pytest.raises(EmptyDatasetError, match="0 is empty"):
        read_rows(files[0], RowOptions())


def test_a_csv_line_that_never_ends_takes_no_more_memory_than_a_row_may_have(tmp_path, monkeypatch):
    monkeypatch.setattr(csv_rows, "MAX_ROW_CHARACTERS", 1_000)
    file = tmp_path / "rows.csv"
    file.write_text('text,label\n"' + "a" * 5_000 + '",x\nb,y\n"' + "c" * 900 + "\n" + "d" * 900 + '",x\ne,x\n')
    with pytest.raises(InvalidRowsError) as raised:
        read_rows(file, RowOptions())
    told = [(problem.line, problem.message) for problem in raised.value.problems]
    assert told[0] == (2, "a field is longer than 1,000 characters; is its quote closed?")
    assert told[1] == (4, "a field is longer than 1,000 characters; is its quote closed?")
    assert raised.value.problem_count <= 3


targets_alike = st.one_of(
    st.lists(st.sampled_from([0, 1, True, 1.0, "1", 2]), min_size=1, max_size=12),
    st.lists(st.sampled_from(["x", "y", " x", "{z}", "1", "1.0", "True", ""]), min_size=1, max_size=12),
    st.lists(st.lists(st.sampled_from(["x", "y", "1", 3]), max_size=3), min_size=1, max_size=12),
    st.lists(
        st.dictionaries(st.sampled_from("ab"), st.sampled_from([0, 1, True, 1.0, 2]), min_size=1),
        min_size=1,
        max_size=12,
    ),
)


@FAST
@given(
    targets_alike,
    st.lists(st.sampled_from(["a", "b\r\nc", " ", "\0", "ü", 5]), min_size=12, max_size=12),
    st.sampled_from([("prompt", "completion"), ("text", "labels"), ("text", "label")]),
    st.sampled_from([None, *TaskDetail]),
    st.sampled_from([(), ("x", "y"), ("1", "2"), ("true", "x", "1")]),
    st.sampled_from(list(OnInvalidRows)),
    st.booleans(),
)
def test_rows_that_are_judged_together_are_judged_as_one_by_one(
    tmp_path, targets, words, names, detail, labels, on_invalid, more
):
    file = tmp_path / "rows"
    rows = [{names[0]: words[n % 12] if n % 3 else "t", names[1]: target} for n, target in enumerate(targets)]
    rows[-1] |= {"prompt": "other"} if more else {}
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))

    def judged():
        try:
            options = RowOptions(task_detail=detail, labels=labels, on_invalid_rows=on_invalid)
            found = read_rows(file, options)
        except InvalidRowsError as err:
            return err.problems, err.problem_count, str(err)
        except WinnowError as err:
            return str(err)
        return found.schema, holding(found), found.problems, found.problem_count

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(json_rows, "BLOCK_BYTES", 90)  # one or two lines: the first row is always judged by itself
        together = judged()
        patch.setattr(Judge, "_at_once", lambda *_: None)
        assert judged() == together


texts = st.text(
    alphabet=st.characters(blacklist_categories=["Cs"], blacklist_characters="\0"), min_size=1, max_size=30
).filter(lambda text: not text.isspace())
names = st.text(st.characters(categories=["L", "N"]), min_size=1, max_size=8).filter(
    lambda name: name.isprintable() and not name.isdecimal()
)


@FAST
@given(st.lists(st.tuples(texts, st.booleans()), min_size=1, max_size=6), st.tuples(names, names), st.integers(0, 3))
@example([('"}, "{', True)], ("a", "b"), 1)
def test_any_rows_come_back_from_every_json_form(tmp_path, rows, labels, indent):
    labels = (labels[0], labels[1] + "2")
    records = [{"prompt": text, "completion": {labels[0]: int(bit), labels[1]: int(not bit)}} for text, bit in rows]
    forms = [
        "\n".join(json.dumps(record, indent=indent, ensure_ascii=bool(indent % 2)) for record in records),
        json.dumps(records, indent=indent or None),
        "".join(map(json.dumps, records)),
    ]
    for form in forms:
        (tmp_path / "rows").write_bytes(form.encode())
        found = holding(read_rows(tmp_path / "rows", RowOptions()))
        assert found == [(text.replace("\r\n", "\n"), [labels[0 if bit else 1]]) for text, bit in rows]


@FAST
@given(
    st.lists(st.tuples(texts, st.booleans(), st.booleans(), st.booleans()), min_size=1, max_size=6),
    st.sampled_from(["\n", "\r\n"]),
)
def test_any_text_comes_back_beside_a_map_written_by_hand(tmp_path, rows, line_end):
    lines = ["input,expected_output"]
    for text, bit, by_hand, space in rows:
        label_map = json.dumps({"Label_1": int(bit), "Label 2": int(not bit)})
        label_map = label_map if by_hand else label_map.replace('"', '""')
        quoted = text.replace('"', '""')
        lines.append(f'"{quoted}",{" " if space else ""}"{label_map}"')
    (tmp_path / "rows").write_bytes((line_end.join(lines) + line_end).encode())
    found = holding(read_rows(tmp_path / "rows", RowOptions()))
    assert found == [(text.replace("\r\n", "\n"), ["Label_1" if bit else "Label 2"]) for text, bit, _, _ in rows]


@FAST
@given(st.lists(st.lists(st.text(max_size=6), min_size=1, max_size=4), min_size=1, max_size=6))
def test_any_cells_are_rows_or_problems(tmp_path, cells):
    written = io.StringIO(newline="")
    csv.writer(written).writerows([["input", "expected_output"], *cells])
    (tmp_path / "rows").write_text(written.getvalue(), newline="", encoding="utf-8", errors="replace")
    try:
        rows = read_rows(tmp_path / "rows", RowOptions(on_invalid_rows=SKIP))
    except WinnowError as err:
        assert str(err)
    else:
        assert len(rows.texts) + rows.problem_count <= len(cells)
        assert rows.texts


@FAST
@given(
    st.text(alphabet='{}[]",: \n\\ab1', max_size=80), st.sampled_from(["[", "{", '{"prompt": "x", "completion": 1}\n'])
)
def test_any_text_of_brackets_is_rows_or_problems(tmp_path, content, start):
    (tmp_path / "rows").write_text(start + content)
    try:
        assert read_rows(tmp_path / "rows", RowOptions(on_invalid_rows=SKIP)).texts
    except WinnowError as err:
        assert str(err)
