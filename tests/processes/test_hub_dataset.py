"""Rows of dataset repositories: from a small Hub on this machine, by the import's command line."""

import json
import logging

import datasets
import pytest
import yaml
from tiny_hub import TinyHub, parquet

from winnow_trainer import hub_dataset
from winnow_trainer.cli import main

TEXTS = [f"review {number}" for number in range(40)]
CLASSES = [number % 2 for number in range(40)]
SENTIMENT = {"text": datasets.Value("string"), "label": datasets.ClassLabel(names=["neg", "pos"])}
ROWS = parquet({"text": TEXTS, "label": CLASSES}, SENTIMENT)
CSV = "text,label\n" + "".join(f"{text},{label}\n" for text, label in zip(TEXTS, CLASSES, strict=True))
JSONL = "".join(json.dumps({"text": text, "label": label}) + "\n" for text, label in zip(TEXTS, CLASSES, strict=True))
FILES = {
    "README.md": "# Reviews\n",
    "data/train-00000-of-00001.parquet": ROWS,
    "data/test-00000-of-00001.parquet": ROWS,
}
TOKEN = "hf_secretsecretsecret"
SECRET = {"tokenSecretRef": {"name": "hub"}}


def card(**fields):
    return f"---\n{yaml.safe_dump(fields, sort_keys=False)}---\n# Reviews\n"


def features(kind):
    """Of a card's dataset_info, as `datasets` writes them."""
    return datasets.Features(kind)._to_yaml_list()


@pytest.fixture
def hub():
    with TinyHub().running() as hub:
        yield hub


@pytest.fixture
def run(hub, tmp_path, capsys, monkeypatch):
    monkeypatch.delenv("HF_TOKEN", raising=False)

    def run(*options, spec=None, token=None, **source):
        if token:
            monkeypatch.setenv("HF_TOKEN", token)
        source = {"repo": "owner/reviews", "endpoint": hub.url, **source}
        spec = {"modelService": "m", "source": {"huggingFace": source}, **(spec or {})}
        manifest = tmp_path / "dataset.yaml"
        manifest.write_text(yaml.safe_dump({"kind": "Dataset", "metadata": {"name": "d"}, "spec": spec}))
        given = ["import", "--dataset", manifest, "--storage", tmp_path / "storage", "--json"]
        code = main([str(part) for part in (*given, "--allow-network", "127.0.0.0/8", *options)])
        said = capsys.readouterr()
        for secret in (TOKEN, "X-Amz-Signature"):
            assert secret not in said.out + said.err
        return code, json.loads(said.out) if said.out else None, said.err

    return run


def test_a_split_with_the_names_of_its_classes(hub, run):
    commit = hub.repository("owner/reviews").commit(FILES)
    code, found, err = run(split="train")
    assert code == 0, err
    assert (found["rows"], found["labels"]) == (40, [["neg", 20], ["pos", 20]])
    assert (found["format"], found["source"]) == ("Parquet", {"revision": commit})
    # The branch is asked for once, before anything is fetched; all else is that commit's.
    listed, *fetched = [path for path, _ in hub.requests]
    assert listed == "/api/datasets/owner/reviews/revision/main?blobs=true"
    assert fetched == [
        f"/datasets/owner/reviews/resolve/{commit}/README.md",
        f"/datasets/owner/reviews/resolve/{commit}/data/train-00000-of-00001.parquet",
    ]


def test_a_revision_is_a_branch_a_tag_or_a_commit(hub, run):
    repository = hub.repository("owner/reviews")
    old = repository.commit({"train.csv": CSV}, ref="v1.0")
    new = repository.commit({"train.csv": CSV + "one more,1\n"}, ref="refs/pr/1")
    repository.commit(FILES)
    spec = {"taskDetail": "Binary"}
    assert run(spec=spec, revision="v1.0")[1]["source"] == {"revision": old}
    assert run(spec=spec, revision="refs/pr/1")[1]["source"] == {"revision": new}
    assert run(spec=spec, revision=old)[1]["rows"] == 40
    code, _, err = run(revision="v2.0", split="train")
    assert (code, "owner/reviews has no revision v2.0" in err) == (10, True)
    assert "a commit by its 40 hex digits" in err


@pytest.mark.parametrize("large", ["rows.csv", "rows.jsonl", "rows.parquet"])
def test_the_card_names_the_classes_of_files_that_do_not(hub, run, large):
    plain = parquet({"text": TEXTS, "label": CLASSES}, {**SENTIMENT, "label": datasets.Value("int64")})
    content = {"rows.csv": CSV, "rows.jsonl": JSONL, "rows.parquet": plain}[large]
    hub.repository("owner/reviews").commit(
        {"README.md": card(dataset_info={"features": features(SENTIMENT)}), large: content}
    )
    code, found, err = run(split="train")
    assert code == 0, err
    assert found["labels"] == [["neg", 20], ["pos", 20]]


def test_the_old_file_of_features_names_the_classes_too(hub, run):
    infos = {"plain_text": {"features": datasets.Features(SENTIMENT).to_dict()}}
    hub.repository("owner/reviews").commit({"dataset_infos.json": json.dumps(infos), "train.csv": CSV})
    assert run(split="train")[1]["labels"] == [["neg", 20], ["pos", 20]]


def test_names_that_look_like_numbers_stay_names(hub, run):
    stars = datasets.ClassLabel(names=["1", "2", "3", "4", "5"])
    rows = parquet({"text": TEXTS, "label": [number % 5 for number in range(40)]}, {**SENTIMENT, "label": stars})
    hub.repository("owner/reviews").commit({"train.parquet": rows})
    assert run(split="train")[1]["labels"] == [[str(star), 8] for star in range(1, 6)]


def many(kind, **fields):
    feature = {"text": datasets.Value("string"), "labels": kind(datasets.ClassLabel(names=["joy", "anger", "fear"]))}
    return feature, {"text": ["a", "b", "c"], "labels": [[0, 2], [], [1]], **fields}


@pytest.mark.parametrize("kind", [datasets.List, datasets.Sequence, datasets.LargeList])
def test_lists_of_classes_are_several_labels(hub, run, kind):
    feature, columns = many(kind)
    hub.repository("owner/reviews").commit({"train.parquet": parquet(columns, feature)})
    code, found, err = run(split="train")
    assert code == 0, err
    assert (found["taskDetail"], found["labels"]) == ("Multilabel", [["anger", 1], ["fear", 1], ["joy", 1]])


def test_lists_of_classes_in_a_card(hub, run):
    feature, columns = many(datasets.List)
    rows = "".join(
        json.dumps(dict(zip(columns, row, strict=True))) + "\n" for row in zip(*columns.values(), strict=True)
    )
    hub.repository("owner/reviews").commit(
        {"README.md": card(dataset_info={"features": features(feature)}), "train.jsonl": rows}
    )
    assert run(split="train")[1]["labels"] == [["anger", 1], ["fear", 1], ["joy", 1]]


def test_rows_without_a_label_are_problems_in_words(hub, run):
    rows = parquet({"text": TEXTS[:3], "label": [-1, 0, 1]}, SENTIMENT)
    commit = hub.repository("owner/reviews").commit({"test.parquet": rows})
    code, found, _ = run(split="test")
    assert (code, found["problemCount"], found["source"]) == (11, 1, {"revision": commit})
    said = "label: expected a class from 0 to 1, found -1, which stands for a row without a label"
    assert found["problems"] == [{"line": 1, "column": None, "message": said}]
    code, found, _ = run(split="test", spec={"onInvalidRows": "Skip"})
    assert (code, found["rows"], found["skippedRows"]) == (0, 2, 1)


def test_classes_of_other_columns_do_not_matter(hub, run):
    rows = parquet(
        {"text": TEXTS[:2], "topic": [-1, -1], "label": [0, 1]},
        {**SENTIMENT, "topic": datasets.ClassLabel(names=["a", "b"])},
    )
    hub.repository("owner/reviews").commit({"train.parquet": rows})
    assert run(split="train")[0] == 0


def test_columns_are_named_in_the_source(hub, run):
    rows = parquet(
        {"sentence": TEXTS, "idx": range(40), "polarity": CLASSES},
        {"sentence": datasets.Value("string"), "idx": datasets.Value("int32"), "polarity": SENTIMENT["label"]},
    )
    hub.repository("owner/reviews").commit({"train.parquet": rows})
    code, _, err = run(split="train")
    assert code == 11
    assert (
        'the file has no column "prompt" or "input" or "text" or "input_text"; found "sentence", "idx", "polarity"'
        in err
    )
    assert "textColumn and labelColumn" in err
    assert run(split="train", textColumn="sentence", labelColumn="polarity")[1]["rows"] == 40
    code, _, err = run(split="train", textColumn="sentence", spec={"columns": {"target": "polarity"}})
    assert (code, "columns and source.huggingFace both name the columns" in err) == (10, True)


def test_configurations_and_splits_are_named_where_one_is_wrong(hub, run):
    configs = [
        {
            "config_name": name,
            "data_files": [{"split": "train", "path": f"{name}/*.parquet"}, {"split": "unsupervised", "path": "u.csv"}],
        }
        for name in ("plain", "cased")
    ]
    hub.repository("owner/reviews").commit(
        {"README.md": card(configs=configs), "plain/a.parquet": ROWS, "cased/a.parquet": ROWS, "u.csv": CSV}
    )
    assert "it has several configurations: plain, cased; set huggingFace.config" in in_one_line(run(split="train"))
    assert "it has no configuration upper; it has plain, cased" in in_one_line(run(config="upper", split="train"))
    assert "it has several splits: train, unsupervised; set huggingFace.split" in in_one_line(run(config="plain"))
    assert "it has no split test; it has train, unsupervised" in in_one_line(run(config="plain", split="test"))
    assert run(config="plain", split="train")[0] == 0


def in_one_line(result):
    code, found, _ = result
    assert (code, found["reason"]) == (10, "SourceUnreachable")
    return found["message"]


def test_a_large_file_comes_from_another_server_and_is_taken_up_where_it_broke(hub, run, monkeypatch):
    monkeypatch.setattr("winnow_trainer.fetch.time.sleep", lambda _: None)
    hub.repository("owner/reviews", tokens=(TOKEN,)).commit(FILES)
    hub.breaks_after = 500
    assert run(split="train", token=TOKEN, **SECRET)[0] == 0
    assert [headers.get("range") for _, headers in hub.cdn_requests] == [None, "bytes=500-"]


def test_the_token_goes_to_the_hub_and_to_nobody_else(hub, run, caplog):
    caplog.set_level(logging.DEBUG)
    hub.repository("owner/reviews", tokens=(TOKEN,)).commit(FILES)
    assert run(split="train", token=f"{TOKEN}\n", **SECRET)[0] == 0
    assert {headers.get("authorization") for _, headers in hub.requests} == {f"Bearer {TOKEN}"}
    assert [headers.get("authorization") for _, headers in hub.cdn_requests] == [None]
    assert TOKEN not in caplog.text


def test_a_laptops_token_goes_to_the_hub_itself(hub, run, monkeypatch):
    hub.repository("owner/reviews", tokens=(TOKEN,)).commit(FILES)
    # Another server's address in a manifest is no reason to hand out the token of the environment.
    assert run(split="train", token=TOKEN)[0] == 10
    assert {headers.get("authorization") for _, headers in hub.requests} == {None}
    monkeypatch.setattr(hub_dataset, "HUB", hub.url)
    assert run(split="train", token=TOKEN, endpoint=None)[0] == 0


def test_in_a_pod_the_base_models_token_is_not_the_datasets(hub, run, monkeypatch):
    monkeypatch.setattr(hub_dataset, "HUB", hub.url)
    hub.repository("owner/reviews").commit(FILES)
    assert run("--hub-token-env", "DATASET_HF_TOKEN", split="train", token=TOKEN, endpoint=None)[0] == 0
    assert {headers.get("authorization") for _, headers in hub.requests} == {None}


@pytest.mark.parametrize(
    ("access", "source", "says"),
    [
        pytest.param({}, {"repo": "owner/none"}, "owner/none is private or gated, or does not exist", id="not there"),
        pytest.param(
            {}, {"repo": "owner/none", "token": TOKEN, **SECRET}, "has no dataset repository owner/none", id="not there, by token"
        ),
        pytest.param({"gated": True, "tokens": (TOKEN,)}, {}, "owner/reviews is gated", id="gated, no token"),
        pytest.param(
            {"gated": True, "tokens": ("other",)},
            {"token": TOKEN, **SECRET},
            "the access token may not read owner/reviews",
            id="gated, not let in",
        ),
        pytest.param({"tokens": ("other",)}, {"token": "expired", **SECRET}, "does not accept the access token", id="expired"),
        pytest.param({}, SECRET, "Secret hub has no key token with content", id="an empty Secret"),
        pytest.param({}, {"token": "two words", **SECRET}, "the key token of Secret hub is no access token", id="no token"),
    ],
)  # fmt: skip
def test_what_may_not_be_read_is_said_in_words(hub, run, access, source, says):
    hub.repository("owner/reviews", **access).commit(FILES)
    message = in_one_line(run(split="train", **source))
    assert says in message
    assert "; " in message  # and what to do


CONVERTED = {"default/train/0000.parquet": ROWS, "default/test/0000.parquet": ROWS, ".gitattributes": ""}


def test_a_repository_with_a_program_only_is_read_as_the_hub_converted_it(hub, run):
    repository = hub.repository("owner/reviews")
    repository.commit({"README.md": card(license="mit"), "reviews.py": "raise SystemExit", "raw/train.csv": CSV})
    code, found, _ = run(split="train")
    assert code == 10
    assert "its rows are made by a program, reviews.py" in found["message"]
    assert "the Hub has no conversion of it to Parquet" in found["message"]
    commit = repository.commit(CONVERTED, ref="refs/convert/parquet")
    code, found, _ = run(split="train")
    assert (code, found["source"], found["labels"]) == (0, {"revision": commit}, [["neg", 20], ["pos", 20]])
    (warning,) = [each for each in found["warnings"] if each["code"] == "ParquetConversion"]
    assert "reviews.py" in warning["message"]
    # That commit, given as the revision, means the same rows.
    assert run(split="train", revision=commit)[1]["digest"] == found["digest"]


def test_a_revision_other_than_main_has_no_conversion(hub, run):
    repository = hub.repository("owner/reviews")
    repository.commit(CONVERTED, ref="refs/convert/parquet")
    repository.commit({"rows.zip": b"PK"}, ref="v1.0")
    message = in_one_line(run(split="train", revision="v1.0"))
    assert "it holds no Parquet, JSON or CSV files, but rows.zip" in message
    assert "revision: refs/convert/parquet" in message


def test_the_first_part_of_a_split_is_not_taken_for_the_split(hub, run):
    repository = hub.repository("owner/reviews")
    repository.commit({"rows.tar": b""})
    repository.commit({"default/partial-train/0000.parquet": ROWS}, ref="refs/convert/parquet")
    assert "only the first part of split train; to read that part, set split: partial-train" in in_one_line(
        run(split="train")
    )
    assert run(split="partial-train")[0] == 0


def test_other_bytes_than_the_commit_has_are_refused(hub, run):
    hub.repository("owner/reviews").commit(FILES)
    hub.damaged.add("data/train-00000-of-00001.parquet")
    assert "came with other bytes than this commit has" in in_one_line(run(split="train"))


def test_a_path_that_leads_out_of_the_folder_is_refused(hub, run):
    configs = [{"config_name": "default", "data_files": "**"}]
    hub.repository("owner/reviews").commit({"README.md": card(configs=configs), "../../train.csv": CSV})
    assert "is no name for a file" in in_one_line(run(split="train"))


def test_a_server_that_is_no_hub_is_said(hub, run):
    repository = hub.repository("owner/reviews")
    repository.refs["main"] = "latest"
    repository.commits["latest"] = {}
    assert "does not answer as the Hub does; check huggingFace.endpoint" in in_one_line(run(split="train"))


def test_what_is_fetched_is_bounded(hub, run):
    hub.repository("owner/reviews").commit(FILES)
    assert "a source may have 1,000 bytes" in in_one_line(run("--max-bytes", "1000", split="train"))
