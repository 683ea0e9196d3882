"""When a model is cut over processes, into what, and what is refused. How it trains: tests/processes/test_fsdp.py."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError
from tiny_learner import learner

from winnow_trainer.fsdp import can_cut, largest_unit, units
from winnow_trainer.job import Parameters, Spec
from winnow_trainer.memory import GIB, Shape, demand, judge

# Llama-3.1-8B's body, in float32.
LLAMA = Shape(width=4096, layers=32, inner_width=14336, weight_bytes=30 * GIB, trained=8_000_000_000)


def parameters(**given):
    return Parameters.model_validate({"maxSeqLength": 512, "perDeviceTrainBatchSize": 4, **given})


@pytest.mark.parametrize(
    ("method", "given", "possible"),
    [
        pytest.param("Full", {}, True, id="full training"),
        pytest.param("LoRA", {"optim": "adamw"}, True, id="adapters"),
        pytest.param("QLoRA", {}, False, id="four bits stay whole"),
        pytest.param("HeadOnly", {}, False, id="a body that is only read"),
        pytest.param("Full", {"optim": "adafactor"}, False, id="moments that cannot be cut"),
    ],
)
def test_what_can_be_cut(method, given, possible):
    assert can_cut(method, parameters(**given)) == possible


def test_a_full_8b_fits_in_four_gpus_and_not_in_one():
    wanted = parameters()
    needs = demand(LLAMA, "Full", wanted, 2)
    part = needs.cut(4, 2 * GIB)
    whole = judge(needs, 79 * GIB, "Full", wanted, chooses=True, where="the GPU", part=part)
    cut = judge(part, 79 * GIB, "Full", wanted, chooses=True, where="the GPU", cut=True)
    assert "parallelism: FSDP makes it fit" in whole.warning.message
    assert (cut.warning, cut.gradient_checkpointing) == (None, False)


def test_what_cannot_go_together_with_a_cut_model_is_not_recommended():
    part = demand(LLAMA, "Full", parameters(), 2).cut(2, 2 * GIB)
    message = judge(part, 30 * GIB, "Full", parameters(), chooses=True, where="the GPU", cut=True).warning.message
    assert "method: LoRA" in message and "adafactor" not in message


@given(processes=st.integers(2, 1024), unit=st.integers(0, 2 * GIB))
def test_what_is_cut_shrinks_with_the_processes_and_the_rest_does_not(processes, unit):
    needs = demand(LLAMA, "Full", parameters(), 2)
    cut, more = needs.cut(processes, unit), needs.cut(2 * processes, unit)
    assert (cut.activations, cut.kept_between) == (needs.activations, needs.kept_between)
    assert more.total < cut.total
    assert cut.weights + cut.gradients >= 3 * unit
    assert (
        abs((cut.total - 3 * unit - needs.activations) * processes - (needs.total - needs.activations)) < 3 * processes
    )


@pytest.mark.parametrize(
    ("method", "model_type", "count"),
    [
        pytest.param("Full", "llama", 3, id="two layers and the table"),
        pytest.param("LoRA", "qwen3", 3, id="with adapters in them"),
        pytest.param("Full", "modernbert", 3, id="an encoder"),
        pytest.param("Full", "bert", 2, id="the last layer of an encoder runs in part"),
        pytest.param("Full", "deberta-v2", 0, id="a type that does not pack is put together whole"),
    ],
)
def test_layers_and_the_table_are_put_together_one_at_a_time(tmp_path, method, model_type, count):
    model = learner(tmp_path, method, model_type, weight_decay=0.1).model
    found = units(model)
    inside = [id(weight) for unit in found for weight in unit.parameters()]
    assert len(found) == count
    assert len(inside) == len(set(inside))
    total = sum(weight.numel() * 4 for weight in model.parameters())
    assert 0 < largest_unit(model) < total if count else largest_unit(model) == total


@pytest.mark.parametrize(
    ("spec", "says"),
    [
        pytest.param({"nodes": 1}, "needs several processes", id="one process"),
        pytest.param({"nodes": 2, "method": "QLoRA"}, "method is QLoRA", id="four bits"),
        pytest.param({"nodes": 2, "method": "HeadOnly"}, "method is HeadOnly", id="no body to train"),
        pytest.param({"nodes": 2, "optim": "adafactor"}, "optim is adafactor", id="adafactor"),
        pytest.param({"nodes": 2, "optim": "adamw_8bit"}, "optim is adamw_8bit", id="8 bits"),
    ],
)
def test_what_cannot_be_cut_is_refused(spec, says):
    asked = {"parallelism": "FSDP", **({"optim": spec.pop("optim")} if "optim" in spec else {})}
    with pytest.raises(ValidationError, match=says):
        Spec.model_validate({"trainingDataset": "a", "baseModel": "b", "parameters": asked, **spec})
