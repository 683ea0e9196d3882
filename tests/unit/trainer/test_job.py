"""The TrainingJob manifest: defaults, paths, and what is refused in words."""

import json
import re
from pathlib import Path

import pytest

from winnow_classifier.errors import ConfigError
from winnow_trainer.cli import main
from winnow_trainer.job import Parameters, Spec, load_job
from winnow_trainer.names_elsewhere import ELSEWHERE

ROOT = Path(__file__).resolve().parents[3]
SPEC = {"trainingDataset": "rows.jsonl", "baseModel": "hf://owner/name@main"}


def manifest(folder, spec, **metadata):
    path = folder / "job.yaml"
    content = {"kind": "TrainingJob", "metadata": {"name": "spam-v1", **metadata}, "spec": {**SPEC, **spec}}
    path.write_text(json.dumps(content))  # JSON is YAML
    return path


@pytest.mark.parametrize(
    ("method", "pooling", "rate"),
    [("LoRA", "last", 2e-4), ("Full", "cls", 5e-5), ("Full", "last", 1e-5), ("HeadOnly", "cls", 1e-3)],
)
def test_the_learning_rate_follows_from_method_and_model(tmp_path, method, pooling, rate):
    spec = load_job(manifest(tmp_path, {"method": method})).spec
    assert spec.parameters.resolved(method, pooling).learning_rate == rate


def test_lora_has_its_defaults_and_other_methods_none_of_them(tmp_path):
    spec = load_job(manifest(tmp_path, {})).spec
    lora = spec.parameters.resolved("LoRA", "last")
    assert (spec.method, lora.lora_rank, lora.lora_alpha, lora.lora_dropout) == ("LoRA", 16, 32, 0.05)
    assert lora.lora_target_modules == ["all-linear"]
    assert spec.parameters.resolved("Full", "last").lora_rank is None


def test_a_rate_as_people_write_it_is_a_number(tmp_path):
    path = tmp_path / "job.yaml"
    path.write_text(
        "kind: TrainingJob\nmetadata: {name: a}\n"
        "spec: {trainingDataset: rows, baseModel: base, parameters: {learningRate: 2e-4}}\n"
    )
    assert load_job(path).spec.parameters.learning_rate == 2e-4


def test_paths_start_at_the_manifest_and_repositories_stay_as_they_are(tmp_path):
    (tmp_path / "rows.jsonl").touch()
    spec = load_job(manifest(tmp_path, {})).spec
    assert spec.training_dataset == str(tmp_path / "rows.jsonl")
    assert spec.base_model == "hf://owner/name@main"


def test_a_recreated_job_gets_another_run_folder(tmp_path):
    assert load_job(manifest(tmp_path, {})).run == "spam-v1"
    assert load_job(manifest(tmp_path, {}, uid="0f1e2d3c-4b5a")).run == "spam-v1-0f1e2d3c"


@pytest.mark.parametrize("name", ["../../out", "a/b", "..", ".spam", "-spam", "s" * 64, ""])
def test_a_name_that_cannot_be_a_folders_is_refused(tmp_path, name, capsys):
    with pytest.raises(ConfigError, match=r"metadata\.name: a name has up to 63 letters, digits, hyphens"):
        load_job(manifest(tmp_path, {}, name=name))
    command = ["train", "--job", str(manifest(tmp_path, {})), "--storage", str(tmp_path / "storage"), f"--run={name}"]
    assert main(command) == 10
    assert (
        f"--run: a name has up to 63 letters, digits, hyphens, dots and underscores, a letter or digit at the beginning, found {name!r}"
        in (capsys.readouterr().err)
    )
    assert not (tmp_path / "storage").exists()


@pytest.mark.parametrize(
    ("spec", "said"),
    [
        pytest.param({"method": "DoRA"}, "spec.method: .*'QLoRA', 'Full' or 'HeadOnly', found 'DoRA'", id="method"),
        pytest.param({"parameters": {"learningRate": 0}}, "learningRate: .*greater than 0, found 0", id="rate"),
        pytest.param(
            {"parameters": {"learningrate": 1}},
            "learningrate: there is no such field; did you mean learningRate",
            id="case",
        ),
        pytest.param({"parameters": {"loraTargetModule": []}}, "did you mean loraTargetModules", id="a misspelt field"),
        pytest.param(
            {"parameters": {"loraTargetModules": ["all-linear", "q_proj"]}},
            "loraTargetModules: all-linear stands for all modules, so it stands alone",
            id="all modules and some",
        ),
        pytest.param({"earlyStoping": {}}, "spec.earlyStoping: .* did you mean earlyStopping", id="one of the spec"),
        pytest.param(
            {"metrics": {"custom": [{"name": "a", "file": "a.py", "directon": "Maximize"}]}},
            "metrics.custom.0.directon: .* did you mean direction",
            id="one within a list",
        ),
        pytest.param({"parameters": {"zzz": 1}}, "zzz: there is no such field$", id="like no other"),
        pytest.param(
            {"parameters": {"fp16": True}},
            "fp16: there is no fp16, its range is too small .* bfloat16 .* float32 elsewhere. Remove this line",
            id="fp16",
        ),
        pytest.param(
            {"parameters": {"load_best_model_at_end": True}},
            "load_best_model_at_end: the best checkpoint is marked, .* Remove this line",
            id="the best at the end",
        ),
        pytest.param({"parameters": {"bf16": True}}, "bf16: the precision is chosen by itself", id="bf16"),
        pytest.param({"parameters": {"batch_size": 8}}, "write perDeviceTrainBatchSize", id="a name of others"),
        pytest.param(
            {"parameters": {"early_stopping_patience": 2}}, "write spec.earlyStopping", id="one that is elsewhere"
        ),
        pytest.param({"promptTemplate": "x"}, "must contain {text}", id="no place for the text"),
        pytest.param(
            {"method": "Full", "parameters": {"loraRank": 8}}, "parameters.loraRank need method LoRA", id="LoRA only"
        ),
        pytest.param({"baseModel": None}, "spec.baseModel", id="no base model"),
        pytest.param(
            {"baseModel": {"huggingFace": {"repo": "owner/name"}}},
            "spec.baseModel: write a folder, hf://owner/name@revision, .*; {huggingFace: …} stands in a ModelService$",
            id="a base model as a ModelService has it",
        ),
        pytest.param(
            {"baseModel": {"checkpoint": {"trainingJob": "a", "name": "last"}}},
            r"job.yaml: spec.baseModel.checkpoint.name: must be best, or such as epoch-1, found 'last'$",
            id="a checkpoint of no such name",
        ),
        pytest.param(
            {"parameters": {"classWeights": "Balanced"}},
            "classWeights: must have fields, such as classWeights: {mode: …}, found 'Balanced'$",
            id="a word for fields",
        ),
        pytest.param({"testSplit": "20%"}, "such as testSplit: {percent: …}, found '20%'$", id="a share for fields"),
        pytest.param({"parameters": None}, "parameters: must have fields, .* found nothing$", id="fields left empty"),
        pytest.param(
            {"metrics": {"custom": [{"name": "My Metric", "file": "a.py"}]}},
            "custom.0.name: must be lower-case letters, digits and _, .*, found 'My Metric'$",
            id="a pattern in words",
        ),
        pytest.param(
            {"rebalance": {"counts": {"SPAM": 0}}}, "rebalance.counts.SPAM: .* found 0$", id="a label in capitals"
        ),
        pytest.param(
            {"parameters": {"numTrainEpochs": True}}, "numTrainEpochs: a number is wanted, .* found true$", id="true"
        ),
        pytest.param(
            {"parameters": {"classWeights": {"mode": "Custom", "weights": {"spam": True}}}},
            "weights: a number is wanted",
            id="true for a label's number",
        ),
        pytest.param({"earlyStopping": {"patience": True}}, "patience: a number is wanted", id="true for epochs"),
        pytest.param(
            {"metrics": {"primary": "f1", "functions": ["accuracy"]}},
            "metrics.primary, functions need validation or test rows",
            id="nothing to measure on",
        ),
        pytest.param(
            {"parameters": {"lrSchedulerType": "constant", "warmupRatio": 0.5}},
            "warmupRatio is 0.5, and lrSchedulerType constant has no warm-up; use constant_with_warmup",
            id="a warm-up that would not be",
        ),
    ],
)
def test_a_wrong_field_is_named_with_what_was_found(tmp_path, spec, said):
    with pytest.raises(ConfigError, match=said):
        load_job(manifest(tmp_path, spec))


@pytest.mark.parametrize(
    ("top", "said"),
    [
        ({"apiVersion": "winnow.dev/v9"}, "apiVersion: Input should be 'winnow.dev/v1alpha1', found 'winnow.dev/v9'"),
        ({"specs": {}}, "specs: there is no such field; did you mean spec"),
        ({"apiVersion": "winnow.dev/v1alpha1", "status": {"phase": "Complete"}}, None),
    ],
)
def test_the_top_of_a_manifest_is_checked_too(tmp_path, top, said):
    path = manifest(tmp_path, {})
    path.write_text(json.dumps({**json.loads(path.read_text()), **top}))
    if said is None:
        load_job(path)
        return
    with pytest.raises(ConfigError, match=said):
        load_job(path)


def test_a_key_that_stands_twice_is_refused_with_its_place(tmp_path):
    path = tmp_path / "job.yaml"
    path.write_text(
        "kind: TrainingJob\nmetadata: {name: a}\nspec:\n  trainingDataset: rows\n  baseModel: base\n"
        "  method: Full\n  method: LoRA\n"
    )
    with pytest.raises(ConfigError, match=r"line 7, column 3: the key 'method' stands twice$"):
        load_job(path)


def test_merged_keys_may_stand_again(tmp_path):
    path = tmp_path / "job.yaml"
    path.write_text(
        "kind: TrainingJob\nmetadata: {name: a}\nspec:\n  trainingDataset: rows\n  baseModel: base\n"
        "  env: [&few {seed: 1, numTrainEpochs: 2}, &more {<<: *few, seed: 3}]\n"
        "  parameters: {<<: *more, numTrainEpochs: 4}\n"
    )
    parameters = load_job(path).spec.parameters
    assert (parameters.seed, parameters.num_train_epochs) == (3, 4)


def test_a_constant_rate_goes_with_the_warm_up_that_the_api_server_fills_in(tmp_path):
    for given in ({}, {"warmupRatio": 0.03}, {"warmupRatio": 0}):
        load_job(manifest(tmp_path, {"parameters": {"lrSchedulerType": "constant", **given}}))


@pytest.mark.parametrize(
    ("label", "said"),
    [
        pytest.param("1", r'weights\.1: YAML takes this for a number; write it in quotes: "1"$', id="a number"),
        pytest.param("yes", r"weights\.\w+: YAML takes this word for true; write it in quotes$", id="a word for true"),
    ],
)
def test_a_label_that_yaml_does_not_take_for_a_text_is_to_be_quoted(tmp_path, label, said):
    path = manifest(tmp_path, {"parameters": {"classWeights": {"mode": "Custom", "weights": {"LABEL": 2}}}})
    path.write_text(path.read_text().replace('"LABEL": 2', f"{label}: 2"))
    with pytest.raises(ConfigError, match=said):
        load_job(path)


def test_names_of_other_trainers_lead_to_fields_that_are_there():
    ours = {field.alias for model in (Parameters, Spec) for field in model.model_fields.values()}
    told = {
        words.split()[1].removeprefix("spec.").split(".")[0].strip(":;,")
        for words in ELSEWHERE.values()
        if words.startswith("write ")
    }
    assert told <= ours
    taken = {name.replace("_", "") for name in Parameters.model_fields}
    assert not taken & ELSEWHERE.keys()


def test_names_that_the_docs_translate_are_translated_by_the_trainer_too():
    table = (ROOT / "docs" / "training.md").read_text().partition("## Names elsewhere")[2]
    rows = re.findall(r"^\| `.*? \| (.*?) \| ", table, re.MULTILINE)
    theirs = {name for row in rows for name in re.findall(r"`([a-z]\w*)[`:]", row)}
    no_parameters = {
        "adamw_torch",
        "adafactor",
        "adamw_bnb_8bit",
        "paged_adamw_8bit",
        "fsdp_version",
        "sampling_strategy",
    }
    names = {name.replace("_", "") for name in theirs - no_parameters}
    assert len(names) > 20
    assert names <= {name.replace("_", "") for name in Parameters.model_fields} | ELSEWHERE.keys()
