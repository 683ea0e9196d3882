"""When a model is cut over processes, into what, and what is refused. How it trains: tests/integration/test_fsdp.py."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError
from tiny_learner import learner

from winnow_trainer.fsdp import largest_unit, units
from winnow_trainer.job import Parameters, Spec
from winnow_trainer.memory import GIB, Shape, cuts_model, demand, judge

# Llama-3.1-8B's body, in float32.
LLAMA = Shape(width=4096, layers=32, inner_width=14336, weight_bytes=30 * GIB, trained=8_000_000_000)


def parameters(**given):
    return Parameters.model_validate({"maxSeqLength": 512, "perDeviceTrainBatchSize": 4, **given})


@pytest.mark.parametrize(
    ("method", "given", "processes", "short", "cuts"),
    [
        pytest.param("Full", {}, 4, True, True, id="too much for one"),
        pytest.param("Full", {}, 4, False, False, id="fits as it is"),
        pytest.param("Full", {}, 1, True, False, id="nobody to share with"),
        pytest.param("Full", {"parallelism": "DDP"}, 4, True, False, id="whole was asked for"),
        pytest.param("LoRA", {"parallelism": "FSDP"}, 4, False, True, id="cut was asked for"),
        pytest.param("QLoRA", {}, 4, True, False, id="four bits stay whole"),
        pytest.param("Full", {"optim": "adafactor"}, 4, True, False, id="moments that cannot be cut"),
    ],
)
def test_a_model_is_cut_where_it_is_asked_for_or_too_large(method, given, processes, short, cuts):
    assert cuts_model(method, parameters(**given), processes, short) == cuts


def test_a_full_8b_fits_in_four_gpus_and_not_in_one():
    wanted = parameters()
    needs = demand(LLAMA, "Full", wanted, 2)
    whole, cut = (
        judge(each, 79 * GIB, "Full", wanted, chooses=True, where="the GPU") for each in (needs, needs.cut(4, 2 * GIB))
    )
    assert whole.warning is not None
    assert (cut.warning, cut.gradient_checkpointing) == (None, False)


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
