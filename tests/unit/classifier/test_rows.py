"""Rows that users bring: what is read from them, and where each wrong one is."""

import csv
import gzip
import io
import json

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from rows_in_memory import canonical_digest, read_rows

from winnow_classifier.errors import ConfigError, DataError, EmptyDatasetError, SourceError, WinnowError
from winnow_classifier.labels import TaskDetail
from winnow_classifier.row_files import FileFormat
from winnow_classifier.row_values import bit_of
from winnow_classifier.rows import InvalidRowsError, OnInvalidRows, RowOptions

SKIP = RowOptions(on_invalid_rows=OnInvalidRows.SKIP)
FAST = settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@pytest.fixture
def rows_of(tmp_path):
    def read(content, options=None, name="rows", **fields):
        path = tmp_path / name
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return read_rows(path, options or RowOptions(**fields))

    return read


@pytest.fixture
def problems_of(rows_of):
    """(line, column, message) of each problem, of rows that cannot be imported."""

    def read(content, **fields):
        with pytest.raises(InvalidRowsError) as raised:
            rows_of(content, **fields)
        return [(p.line, p.column, p.message) for p in raised.value.problems]

    return read


def jsonl(*records):
    return "".join(json.dumps(record, ensure_ascii=False) + "\n" for record in records)


GOOD = '{"prompt": "fine", "completion": 1}\n'


@pytest.mark.parametrize(
    ("content", "texts", "targets"),
    [
        pytest.param(
            jsonl({"prompt": "a", "completion": 1}, {"prompt": "b", "completion": 0}), "ab", [1, 0], id="JSONL"
        ),
        pytest.param(jsonl({"input": "a", "expected_output": 1}), "a", [1], id="JSONL, input and expected_output"),
        pytest.param(jsonl({"id": 7, "completion": 0, "prompt": "a"}), "a", [0], id="other fields do not matter"),
        pytest.param("input,expected_output\na,1\nb,0\n", "ab", [1, 0], id="CSV"),
        pytest.param("prompt,completion\na,1\n", "a", [1], id="CSV, prompt and completion"),
        pytest.param("expected_output,id,input\n1,x,a\n", "a", [1], id="CSV in any order, with other fields"),
        pytest.param('input,expected_output\n"a","1"\n', "a", [1], id="CSV, everything quoted"),
        pytest.param('input,expected_output\n"a", 1\n', "a", [1], id="CSV, a space before the number"),
        pytest.param("\ninput,expected_output\n\na,1\n\n", "a", [1], id="CSV, blank lines"),
        pytest.param("\n" + jsonl({"prompt": "a", "completion": 1}) + "  \n\n", "a", [1], id="JSONL, blank lines"),
        pytest.param("\ufeff" + jsonl({"prompt": "a", "completion": 1}), "a", [1], id="JSONL, byte order mark"),
        pytest.param("\ufeffinput,expected_output\r\na,1\r\n", "a", [1], id="CSV, byte order mark and CRLF"),
        pytest.param('{"prompt": "a", "completion": 1}', "a", [1], id="JSONL, no line end at the end"),
        pytest.param("input,expected_output\na,1", "a", [1], id="CSV, no line end at the end"),
        pytest.param("input,expected_output\ra,1\r", "a", [1], id="CSV with the line ends of old Macs"),
    ],
)
def test_zero_and_one_rows_are_binary(rows_of, content, texts, targets):
    rows = rows_of(content)
    assert rows.schema.task_detail is TaskDetail.BINARY
    assert rows.schema.labels == ("0", "1")
    assert rows.texts == list(texts)
    assert rows.targets.tolist() == [[1 - target, target] for target in targets]


@pytest.mark.parametrize(
    ("value", "bit"),
    [
        pytest.param(0, 0, id="zero"),
        pytest.param(1, 1, id="one"),
        pytest.param(1.0, 1, id="a whole float is one"),
        pytest.param("1", 1, id="one in quotes"),
        pytest.param(" 1.0 ", 1, id="with spaces and a fraction of zero"),
        pytest.param(True, 1, id="true"),
        pytest.param("False", 0, id="as pandas writes it"),
        pytest.param(2, None, id="not two"),
        pytest.param(-1, None, id="not minus one"),
        pytest.param(0.5, None, id="no fractions"),
        pytest.param("0.5", None, id="no fractions in quotes"),
        pytest.param("spam", None, id="no words"),
        pytest.param("", None, id="not nothing"),
        pytest.param(None, None, id="not null"),
        pytest.param([1], None, id="no list"),
        pytest.param(10**400, None, id="no huge number"),
    ],
)
def test_what_counts_as_zero_or_one(value, bit):
    assert bit_of(value) == bit


@pytest.mark.parametrize(
    ("maps", "options", "detail", "labels", "targets"),
    [
        pytest.param([{"b": 1, "a": 0}, {"a": 1, "b": 0}], {}, "Multiclass", "ab", [[0, 1], [1, 0]], id="one each"),
        pytest.param([{"a": 1, "b": 0}, {"a": 1, "b": 1}], {}, "Multilabel", "ab", [[1, 0], [1, 1]], id="two once"),
        pytest.param([{"a": 1, "b": 0}, {"a": 0, "b": 0}], {}, "Multilabel", "ab", [[1, 0], [0, 0]], id="none once"),
        pytest.param(
            [{"a": 1, "b": 0}], {"task_detail": TaskDetail.MULTILABEL}, "Multilabel", "ab", [[1, 0]], id="as asked for"
        ),
        pytest.param([{"a": 0, "b": 1}], {"labels": ("b", "a")}, "Multiclass", "ba", [[1, 0]], id="in the order asked"),
        pytest.param(
            [{"a": 0, "b": 1}], {"task_detail": TaskDetail.BINARY}, "Binary", "ab", [[0, 1]], id="two labels as Binary"
        ),
        pytest.param(
            [{"a": 1}, {"a": 0}], {"task_detail": TaskDetail.MULTILABEL}, "Multilabel", "a", [[1], [0]], id="one label"
        ),
    ],
)
def test_label_maps(rows_of, maps, options, detail, labels, targets):
    rows = rows_of(jsonl(*({"prompt": "t", "completion": m} for m in maps)), **options)
    assert (rows.schema.task_detail, rows.schema.labels) == (detail, tuple(labels))
    assert rows.targets.tolist() == targets


@pytest.mark.parametrize(
    ("completion", "given", "labels"),
    [
        pytest.param(1, (), ("0", "1"), id="no names"),
        pytest.param(1, ("ham", "spam"), ("ham", "spam"), id="both names, negative first"),
        pytest.param(1, ("spam",), ("not_spam", "spam"), id="the positive name"),
        pytest.param({"is_cat": 1}, (), ("not_is_cat", "is_cat"), id="the key of the map"),
        pytest.param({"spam": 1}, ("ham", "spam"), ("ham", "spam"), id="the key and both names"),
    ],
)
def test_the_names_of_binary_labels(rows_of, completion, given, labels):
    rows = rows_of(jsonl({"prompt": "t", "completion": completion}), labels=given)
    assert (rows.schema.task_detail, rows.schema.labels) == (TaskDetail.BINARY, labels)
    assert rows.targets.tolist() == [[0, 1]]


@pytest.mark.parametrize(
    ("line", "column", "message"),
    [
        pytest.param('{"prompt": "x", "completion": 2}', 31, "completion must be 0 or 1, found 2", id="a two"),
        pytest.param('{"prompt": "x", "completion": null}', 31, "completion must be 0 or 1, found null", id="null"),
        pytest.param('{"prompt": "x", "completion": "spam"}', 31, 'must be 0 or 1, found "spam"', id="a label name"),
        pytest.param('{"prompt": "x"}', 1, 'the field "completion" is missing; found "prompt"', id="no completion"),
        pytest.param('{"completion": 1}', 1, 'the field "prompt" is missing', id="no prompt"),
        pytest.param('{"expected_output": 1}', 1, 'the field "input" is missing', id="no input"),
        pytest.param("{}", 1, 'the field "prompt" is missing; found nothing', id="an empty object"),
        pytest.param('{"prompt": 5, "completion": 1}', 12, "prompt must be a text, found 5", id="a number as text"),
        pytest.param('{"prompt": " ", "completion": 1}', 12, "prompt is empty", id="only a space"),
        pytest.param('{"prompt": "a\\u0000", "completion": 1}', 12, "U+0000", id="NUL"),
        pytest.param('{"prompt": "x", "completion": 1', 32, "not valid JSON", id="a broken line"),
        pytest.param("{'prompt': 'x', 'completion': 1}", 2, "double quotes", id="single quotes"),
        pytest.param("[1, 2]", 1, "expected an object", id="a list"),
        pytest.param('{"prompt": "x", "completion": {}}', 31, "has no labels; expected 0 or 1 as in", id="no labels"),
        pytest.param('{"prompt": "x", "completion": {"a": 1}}', 31, "0 or 1 as in line 1", id="a map among numbers"),
        pytest.param(b'{"prompt": "\xc3\xa4\xff", "completion": 1}', 14, "not UTF-8: found the byte 0xff", id="a byte"),
        pytest.param('{"prompt": "\\ud800", "completion": 1}', 13, "not valid JSON", id="half a surrogate pair"),
        pytest.param('{"prompt": "x", "completion": NaN}', 31, "not valid JSON", id="NaN"),
    ],
)
def test_a_wrong_jsonl_row_names_its_place(problems_of, line, column, message):
    line = line if isinstance(line, bytes) else line.encode()
    [(found_line, found_column, found)] = problems_of(GOOD.encode() + b"\n" + line + b"\n" + GOOD.encode())
    assert (found_line, found_column) == (3, column)
    assert message in found


@pytest.mark.parametrize(
    ("content", "line", "column", "message"),
    [
        pytest.param("input,expected_output\na,1\nb,2\n", 3, 3, 'must be 0 or 1, found "2"', id="a two"),
        pytest.param('input,expected_output\n"a\nb\r\nc",1\nd,2\n', 5, 3, "found", id="below a text of three lines"),
        pytest.param('input,expected_output\n"a\nb, c",2\n', 3, 7, "found", id="behind a text of two lines"),
        pytest.param("input,expected_output\n,1\n", 2, 1, "input is empty", id="no text"),
        pytest.param(
            "text,label\nworld,\nfoo,ham\n",
            2,
            7,
            'label must be 0 or 1, or the name of a label, found ""',
            id="no label in the first row",
        ),
        pytest.param(
            "input,expected_output\na\n", 2, 1, "expected 2 fields (input, expected_output), found 1", id="few"
        ),
        pytest.param("input,expected_output\na,b,1\n", 2, 1, "a text with commas needs quotes", id="many"),
        pytest.param(
            f"x{',x'.join(map(str, range(99)))}\na\n", 2, 1, "x18, x19 and 79 more), found 1", id="many names"
        ),
        pytest.param('input,expected_output\n"a" b,1\n', 2, None, "a comma must follow a closing quote", id="quote"),
        pytest.param('input,expected_output\nx,1\n"a,1\nb,0\n', 3, 1, "never closed", id="a quote that stays open"),
        pytest.param("input,result\na,1\n", 1, 1, 'the header has no field "expected_output"', id="another header"),
        pytest.param("input,input\na,1\n", 1, 1, 'names "input" twice', id="a name twice"),
        pytest.param(b"input,expected_output\n\xc3\xa4\xff,1\n", 2, 1, "found the byte 0xff", id="not UTF-8"),
        pytest.param('input,expected_output\n"a","{""x"": 2}"\n', 2, 5, 'label "x" must be 0 or 1', id="a label map"),
        pytest.param('input,expected_output\n"a", "{"x": 1, "y": 2}"\n', 2, 5, 'label "y" must be', id="a map by hand"),
        pytest.param('input,expected_output\n"a", "{"x": 1, y}"\n', 2, 5, "must be 0 or 1, or a map", id="no map"),
    ],
)
def test_a_wrong_csv_row_names_its_place(problems_of, content, line, column, message):
    [(found_line, found_column, found)] = problems_of(content)
    assert (found_line, found_column) == (line, column)
    assert message in found


def test_a_value_in_a_label_map_is_named_with_its_label(problems_of):
    row = '{"prompt": "x", "completion": {"a": 0, "b": 7}}\n'
    assert problems_of(row) == [(1, 45, 'completion: label "b" must be 0 or 1, found 7')]


def test_every_row_has_the_labels_of_the_first(problems_of):
    maps = [{"a": 1, "b": 0}, {"a": 1}, {"a": 1, "b": 0, "c": 0}]
    missing, unknown = problems_of(jsonl(*({"prompt": "x", "completion": m} for m in maps)))
    assert missing[0] == 2
    assert 'without the label "b", which line 1 has' in missing[2]
    assert unknown[0] == 3
    assert 'with the label "c", which line 1 has not' in unknown[2]


@pytest.mark.parametrize(
    ("completion", "options", "message"),
    [
        pytest.param({"a": 1}, {"labels": ("b",)}, 'without the label "b", which spec.labels has', id="another name"),
        pytest.param(1, {"labels": tuple("abc")}, "labels names 3", id="three names for a number"),
        pytest.param(
            1, {"task_detail": TaskDetail.MULTILABEL}, "have a map of labels", id="a number is not Multilabel"
        ),
        pytest.param({"a": 1}, {"task_detail": TaskDetail.MULTICLASS}, "at least two labels", id="one label"),
        pytest.param(dict.fromkeys("abc", 0), {"task_detail": TaskDetail.BINARY}, "at most two labels", id="three"),
        pytest.param({"a": 1, "b": 1}, {"task_detail": TaskDetail.MULTICLASS}, "exactly one 1", id="two ones"),
        pytest.param({"": 1, "b": 0}, {}, "is empty or has spaces", id="a label without a name"),
        pytest.param({"a\n": 1, "b": 0}, {}, "spaces around it", id="a label with a line end"),
    ],
)
def test_rows_that_do_not_fit_what_was_asked_for(problems_of, completion, options, message):
    [problem] = problems_of(jsonl({"prompt": "x", "completion": completion}), **options)
    assert message in problem[2]


def test_one_bad_row_fails_the_import_and_is_counted(rows_of):
    with pytest.raises(InvalidRowsError, match=r"1 of 3 rows cannot be read; the first, line 2") as raised:
        rows_of(GOOD + "{broken\n" + GOOD)
    assert raised.value.exit_code == 11
    assert raised.value.reason == "InvalidRows"
    assert "onInvalidRows: Skip" in raised.value.hint


def test_skip_leaves_bad_rows_out_and_counts_them(rows_of):
    rows = rows_of(GOOD + "{broken\n" * 30 + GOOD, SKIP)
    assert rows.texts == ["fine", "fine"]
    assert rows.problem_count == 30
    assert [p.line for p in rows.problems] == list(range(2, 22))  # the first twenty


def test_skipping_every_row_leaves_an_empty_dataset(rows_of):
    with pytest.raises(EmptyDatasetError) as raised:
        rows_of("{broken\n{broken\n", SKIP)
    assert raised.value.reason == "EmptyDataset"
    assert raised.value.problem_count == 2


@pytest.mark.parametrize(
    ("content", "error", "message"),
    [
        pytest.param(b"", EmptyDatasetError, "is empty", id="nothing"),
        pytest.param(b"\xef\xbb\xbf \n\n", EmptyDatasetError, "is empty", id="white space"),
        pytest.param(b"input,expected_output\n", EmptyDatasetError, "has no rows", id="a header only"),
        pytest.param("a,1".encode("utf-16"), DataError, "save it as UTF-8", id="UTF-16"),
        pytest.param(b"<!doctype html>", DataError, "is HTML or XML", id="a web page"),
        pytest.param(b"a\x00b,1\n", DataError, "is binary data", id="binary data"),
        pytest.param(b"BZh91AY&SY", DataError, "compressed with bzip2", id="bzip2"),
        pytest.param(b"PK\x03\x04rest", DataError, "spreadsheet", id="a spreadsheet"),
    ],
)
def test_files_that_are_no_rows(rows_of, content, error, message):
    with pytest.raises(error, match=message) as raised:
        rows_of(content)
    assert "JSONL" in raised.value.hint


@pytest.mark.parametrize(
    ("content", "message"),
    [
        pytest.param(gzip.compress(GOOD.encode() * 1000)[:-20], "damaged: its gzip data", id="gzip that breaks off"),
        pytest.param(b"\x1f\x8b\x08rest", "damaged: its gzip data breaks off or is wrong$", id="no gzip"),
        pytest.param(b"\x28\xb5\x2f\xfdrest", "damaged: its zstd data", id="no zstd"),
        pytest.param(b"PAR1rest", "damaged behind row 0", id="no Parquet"),
    ],
)
def test_damaged_files(rows_of, content, message):
    with pytest.raises(DataError, match=message):
        rows_of(content)


def test_a_file_that_is_not_there(tmp_path):
    with pytest.raises(SourceError, match="does not exist"):
        read_rows(tmp_path / "rows.csv", RowOptions())
    with pytest.raises(SourceError, match="is a folder"):
        read_rows(tmp_path, RowOptions())


def test_columns_name_the_fields(rows_of, problems_of):
    content = jsonl({"mail": "a", "junk": 1, "prompt": "not this", "completion": 0})
    rows = rows_of(content, text_column="mail", target_column="junk")
    assert rows.texts == ["a"]
    assert rows.targets.tolist() == [[0, 1]]
    assert 'the field "body" is missing' in problems_of(content, text_column="body", target_column="junk")[0][2]


def test_the_format_can_be_said(problems_of):
    assert "expected an object" in problems_of("1\n", file_format=FileFormat.JSONL)[0][2]
    assert "the header" in problems_of('{"prompt"},1\n1,2\n', file_format=FileFormat.CSV)[0][2]


def test_labels_that_are_no_labels_are_refused(rows_of):
    with pytest.raises(ConfigError, match="'spam' is named twice"):
        rows_of(GOOD, labels=("spam", "spam"))


def test_a_row_of_five_million_characters(rows_of):
    text = "long " * 1_000_000
    assert rows_of(jsonl({"prompt": text, "completion": 1})).texts == [text]
    assert rows_of(f"input,expected_output\n{text},1\n").texts == [text]


def test_line_ends_in_a_text_are_kept_as_newlines(rows_of):
    assert rows_of('input,expected_output\r\n"a\r\nb\nc",1\r\n').texts == ["a\nb\nc"]


texts = st.text(
    alphabet=st.characters(blacklist_categories=["Cs"], blacklist_characters="\0"), min_size=1, max_size=40
).filter(lambda text: not text.isspace())


@FAST
@given(st.binary(max_size=300))
def test_any_bytes_are_rows_or_problems(tmp_path, content):
    (tmp_path / "any").write_bytes(content)
    for file_format in FileFormat:
        try:
            rows = read_rows(tmp_path / "any", RowOptions(file_format))
        except WinnowError as err:
            assert str(err)
        else:
            assert rows.targets.shape == (len(rows.texts), len(rows.schema.labels))


@FAST
@given(st.text(alphabet='{}[]",:01ab \r\n\\\ufeffü', max_size=60))
def test_any_text_that_looks_like_rows_is_rows_or_problems(tmp_path, content):
    for start in ("", "input,expected_output\n", GOOD):
        (tmp_path / "any").write_text(start + content, encoding="utf-8", newline="")
        try:
            rows = read_rows(tmp_path / "any", SKIP)
        except WinnowError as err:
            assert str(err)
        else:
            assert rows.texts


anything = st.recursive(
    st.none() | st.booleans() | st.integers(-1, 2) | st.floats() | st.sampled_from(["", "1", "a"]),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.sampled_from(["", "a", "b"]), inner, max_size=3),
    max_leaves=6,
)


@FAST
@given(st.lists(st.tuples(texts, anything), max_size=5), st.sampled_from([None, *TaskDetail]))
def test_any_targets_are_rows_or_problems(tmp_path, rows, detail):
    (tmp_path / "any").write_text(jsonl(*({"prompt": text, "completion": value} for text, value in rows)))
    options = RowOptions(task_detail=detail, on_invalid_rows=OnInvalidRows.SKIP)
    try:
        found = read_rows(tmp_path / "any", options)
    except DataError as err:
        assert str(err)
    else:
        assert len(found.texts) + found.problem_count == len(rows)
        assert found.targets.shape == (len(found.texts), len(found.schema.labels))
        assert found.schema.task_detail is TaskDetail.MULTILABEL or (found.targets.sum(axis=1) == 1).all()


@FAST
@given(st.lists(st.tuples(texts, st.integers(0, 1)), min_size=1, max_size=8), st.sampled_from(["\n", "\r\n"]))
def test_written_rows_come_back_with_one_digest(tmp_path, rows, line_end):
    written = io.StringIO(newline="")
    # Python's writer leaves a lone \r unquoted unless every field is quoted.
    writer = csv.writer(written, lineterminator=line_end, quoting=csv.QUOTE_ALL)
    writer.writerows([("input", "expected_output"), *rows])
    lines = [json.dumps({"completion": bit, "prompt": text}, ensure_ascii=False) for text, bit in rows]
    (tmp_path / "csv").write_bytes(written.getvalue().encode())
    (tmp_path / "jsonl").write_bytes(line_end.join(lines).encode())
    read = [read_rows(tmp_path / name, RowOptions()) for name in ("csv", "jsonl")]
    for found in read:
        assert found.texts == [text.replace("\r\n", "\n") for text, _ in rows]
        assert found.targets[:, 1].tolist() == [bit for _, bit in rows]
    assert len({canonical_digest(found.schema, found.texts, found.targets) for found in read}) == 1


@FAST
@given(st.lists(st.permutations(["a", "b", "c"]), min_size=1, max_size=5))
def test_the_order_of_keys_does_not_matter(tmp_path, orders):
    digests = set()
    for keys_by_row in (orders, [["a", "b", "c"]] * len(orders)):
        maps = [{key: int(key == "b") for key in keys} for keys in keys_by_row]
        (tmp_path / "maps").write_text(jsonl(*({"prompt": "x", "completion": m} for m in maps)))
        rows = read_rows(tmp_path / "maps", RowOptions())
        digests.add(canonical_digest(rows.schema, rows.texts, rows.targets))
    assert len(digests) == 1
