"""Which files are chosen: the same ones as the `datasets` library chooses of the same listing."""

import contextlib

import datasets.data_files
import datasets.load
import datasets.packaged_modules
import fsspec
import pytest
import yaml
from datasets.utils.metadata import MetadataConfigs
from huggingface_hub import DatasetCardData
from hypothesis import example, given, settings
from hypothesis import strategies as st

from winnow_trainer.hub_card import CardError, card_of, metadata_of
from winnow_trainer.hub_files import ChoiceError, NothingReadable, choose, choose_converted, is_conversion

MEMORY = fsspec.filesystem("memory")
ROOT = "memory://repository"
FOLDERS = (
    "data",
    "train",
    "test",
    "dev",
    "my-train",
    "train_2",
    "val set",
    "evaluation",
    "raw",
    ".git",
    "__MACOSX",
    "en",
)
STEMS = ("train", "test", "valid", "dev-00000-of-00002", "train-00000-of-00001", "train-00001-of-00010", "extra-00000-of-00001",
         "rows", "trainer", "mytest", "my_test", "eval 3", "README", "dataset_infos", "config", ".hidden", "testing.v2")  # fmt: skip
ENDINGS = ("csv", "tsv", "json", "jsonl", "parquet", "csv.gz", "jsonl.zst", "lock", "py")
listings = st.lists(
    st.builds(
        lambda folders, stem, ending: "/".join([*folders, f"{stem}.{ending}"]),
        st.lists(st.sampled_from(FOLDERS), max_size=2),
        st.sampled_from(STEMS),
        st.sampled_from(ENDINGS),
    ),
    min_size=1,
    max_size=8,
    unique=True,
)
globs = st.sampled_from(
    [
        "**",
        "*.csv",
        "data/*",
        "data/**",
        "**/*.jsonl",
        "train/*.parquet",
        "data/train-*",
        "[rt]*.csv",
        "r?ws.*",
        ".git/*",
        "**/test*",
    ]
)
data_files = st.one_of(
    globs,
    st.lists(globs, min_size=1, max_size=2),
    st.lists(
        st.fixed_dictionaries(
            {
                "split": st.sampled_from(["train", "test", "extra"]),
                "path": st.one_of(globs, st.lists(globs, min_size=1, max_size=2)),
            }
        ),
        min_size=1,
        max_size=2,
        unique_by=lambda entry: str(entry["split"]),
    ),
)


def theirs(paths, config):
    """From each split to its files, by the library's own functions, in the order of its hub module."""
    MEMORY.store.clear()
    MEMORY.pseudo_dirs[:] = [""]
    for path in paths:
        MEMORY.pipe_file(f"/repository/{path}", b"x")
    base = f"{ROOT}/{config['data_dir']}" if config.get("data_dir") else ROOT
    if config.get("data_files") is not None:
        patterns = datasets.data_files.sanitize_patterns(config["data_files"])
    else:
        patterns = datasets.data_files.get_data_patterns(base)
    allowed = datasets.packaged_modules._ALL_ALLOWED_EXTENSIONS
    found = datasets.data_files.DataFilesDict.from_patterns(patterns, base_path=base, allowed_extensions=allowed)
    chosen = {}
    for split, files in found.items():
        module, _ = datasets.load.infer_module_for_data_files_list(files)
        if module:
            files = files.filter(extensions=datasets.packaged_modules._MODULE_TO_EXTENSIONS[module])
        # A file that two globs fit stands there twice.
        chosen[split] = tuple(dict.fromkeys(file.partition("/repository/")[2] for file in files)) if module else ()
    return chosen


def ours(paths, config):
    """The same, split by split."""
    card = card_of({"configs": [{"config_name": "default", **config}]} if config else {})
    try:
        choose(paths, card, "owner/name", None, "no such split")
    except NothingReadable:
        return {}
    except ChoiceError as err:
        if "holds no files" in str(err):
            return {}
        splits = str(err).partition("; it has ")[2].split(", ")
    chosen = {}
    for split in splits:
        try:
            chosen[split] = choose(paths, card, "owner/name", None, split).files
        except ChoiceError:
            chosen[split] = ()
    return chosen


def same(paths, config):
    try:
        expected = theirs(paths, config)
    except FileNotFoundError:
        expected = {}
    if not any(expected.values()):
        assert not any(ours(paths, config).values())
    else:
        assert ours(paths, config) == expected


@settings(max_examples=150, deadline=None)
@given(listings)
@example(["train.csv", "test.csv", "README.md"])
@example(["data/train-00000-of-00001.parquet", "data/extra-00000-of-00001.parquet", "train.csv"])
@example(["a/train/x.json", "a/test/y.json", "train.csv"])
@example(["rows.csv", "rows.json"])
@example(["train-test.csv"])
def test_files_are_chosen_by_their_names_as_datasets_does(paths):
    same(paths, {})


@settings(max_examples=150, deadline=None)
@given(listings, data_files, st.sampled_from([None, "data", "train"]))
@example(["train/a.csv", "data/b.csv"], ["data/*", "train/*"], None)
@example(["data/train/a.csv", "data/test/a.csv"], "**", "data")
def test_files_are_chosen_by_the_card_as_datasets_does(paths, files, directory):
    same(paths, {"data_files": files, **({"data_dir": directory} if directory else {})})


@settings(max_examples=75, deadline=None)
@given(listings, st.sampled_from(["data", "train", "en"]))
def test_files_are_chosen_by_their_names_below_a_folder_as_datasets_does(paths, directory):
    same(paths, {"data_dir": directory})


@settings(max_examples=100, deadline=None)
@given(st.lists(st.text(max_size=30), max_size=10), st.text(max_size=10), st.text(max_size=10))
def test_any_listing_gives_files_of_it_or_words(paths, config, split):
    for asked in (None, config), (None, split):
        try:
            assert set(choose(paths, card_of({}), "o/n", *asked).files) <= set(paths)
        except ChoiceError as err:
            assert str(err).startswith("it")


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3)
    | st.dictionaries(
        st.sampled_from(
            ["configs", "config_name", "data_files", "data_dir", "split", "path", "default", "dataset_info", "features",
             "name", "dtype", "class_label", "names", "list", "sequence", "0", "1"]
        ),
        inner,
        max_size=4,
    ),
    max_leaves=12,
)  # fmt: skip


@settings(max_examples=300, deadline=None)
@given(st.dictionaries(st.sampled_from(["configs", "dataset_info"]), json_values))
def test_any_card_is_understood_or_refused_in_words(metadata):
    try:
        card = card_of(metadata)
    except CardError as err:
        assert "README.md cannot be understood" in str(err)
        return
    assert card.configs
    with contextlib.suppress(ChoiceError):
        choose(["train.csv", "data/test.csv"], card, "o/n", None, None)


CONFIGS = [
    {"config_name": "plain", "data_files": "a.csv"},
    {"config_name": "cased", "data_files": "b.csv", "default": True},
    {"config_name": "upper", "data_dir": "u"},
]


@pytest.mark.parametrize(
    "configs",
    [CONFIGS, CONFIGS[:1], [CONFIGS[0], CONFIGS[2]], [CONFIGS[0], {"config_name": "default", "data_files": "c.csv"}]],
)
def test_the_default_configuration_is_that_of_datasets(configs):
    theirs = MetadataConfigs.from_dataset_card_data(DatasetCardData(configs=configs)).get_default_config_name()
    assert card_of({"configs": configs}).default == theirs


@pytest.mark.parametrize(
    ("readme", "found"),
    [
        ("---\na: 1\n---\ntext", {"a": 1}),
        ("\ufeff---\r\na: 1\r\n---\r\n", {"a": 1}),
        ("# Title\n---\na: 1\n---\n", {}),
        ("---\na: 1\n", {}),
        ("---\n- a\n---\n", {}),
        ("", {}),
    ],
)
def test_the_card_stands_between_the_first_lines_of_dashes(readme, found):
    assert metadata_of(readme) == found


@pytest.mark.parametrize(
    "text", ["a: [", "a: 2026-99-99", "[" * 3_000, "a: &a [*a", "a: b: c", "!!python/object:os.system {}"]
)
def test_a_card_that_is_no_yaml_is_said(text):
    with pytest.raises(CardError, match=r"README\.md begins with what is no YAML"):
        metadata_of(f"---\n{text}\n---\n")


def test_splits_of_a_card_may_be_numbers():
    card = card_of(yaml.safe_load("configs: [{config_name: 2, data_files: [{split: 2020, path: a.csv}]}]"))
    assert choose(["a.csv"], card, "o/n", "2", "2020").files == ("a.csv",)


def test_a_conversion_is_known_by_its_layout():
    paths = [
        "sst2/train/0000.parquet",
        "sst2/train-part1/0000.parquet",
        "cola/partial-train/0000.parquet",
        ".gitattributes",
    ]
    assert is_conversion(paths)
    assert not is_conversion([*paths, "README.md"])
    assert not is_conversion([".gitattributes"])
    assert choose_converted(paths, "sst2", None).files == ("sst2/train-part1/0000.parquet", "sst2/train/0000.parquet")
    with pytest.raises(ChoiceError, match="it has several configurations: cola, sst2"):
        choose_converted(paths, None, "train")
    with pytest.raises(ChoiceError, match="only the first part of split train"):
        choose_converted(paths, "cola", "train")
