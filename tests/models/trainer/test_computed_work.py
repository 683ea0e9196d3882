"""What a model computes for texts of different lengths, counted and not timed: no more than each text needs."""

import pytest
import tiny_models
import torch
from tiny_learner import ALL, learner
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from winnow_classifier.labels import LabelSchema, TaskDetail
from winnow_classifier.model import Classifier, classifier_config, load_network
from winnow_classifier.packing import pack

SCHEMA = LabelSchema(TaskDetail.MULTICLASS, ("a", "b", "c"))


def classifier(folder, model_type):
    base = tiny_models.base_model(folder, model_type)
    return Classifier(load_network(base, classifier_config(base, SCHEMA, 0))).eval()


def lengths_as_asked(count):
    """Of texts as customers ask them."""
    spread = torch.randn(count, generator=torch.Generator().manual_seed(7)) * 0.5
    return (13 * spread.exp()).int().clamp(4, 64).tolist()


def operations(compute):
    """Multiplications and additions of matrix products, attention as products that can be counted."""
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counted:
        compute()
    return counted.get_total_flops()


@pytest.mark.parametrize("model_type", ["bert", "llama"])
def test_short_texts_together_cost_what_they_cost_alone_and_a_third_of_what_padding_them_costs(tmp_path, model_type):
    model = classifier(tmp_path, model_type)
    lengths = lengths_as_asked(256)

    def cost(*lengths):
        batch = pack([[7] * length for length in lengths], model.position_start)
        with torch.no_grad():
            return operations(lambda: model(batch))

    alone = {length: cost(length) for length in set(lengths)}
    together = cost(*lengths)
    assert together <= 1.25 * sum(alone[length] for length in lengths)
    assert 3 * together <= len(lengths) * alone[max(lengths)]


@pytest.mark.parametrize("model_type", ["bert", "llama"])
def test_a_step_costs_what_its_rows_cost_alone(tmp_path, model_type):
    each = learner(tmp_path, "Full", model_type, per_device_train_batch_size=len(ALL))
    each.learn()
    texts = [each.examples.pack([row], each.model.position_start) for row in ALL]
    alone = sum(operations(lambda text=text: each.model(text).sum().backward()) for text in texts)
    assert operations(lambda: each.step(ALL, 0.0)) <= 1.25 * alone


@pytest.mark.parametrize("model_type", ["deberta-v2", "gpt2"])
def test_a_type_that_does_not_pack_gets_texts_of_like_length_together(tmp_path, model_type):
    model = classifier(tmp_path, model_type)
    lengths = lengths_as_asked(64)
    given = []

    def see(network, args, kwargs):
        given.append(kwargs["input_ids"].numel())

    model.base.register_forward_pre_hook(see, with_kwargs=True)
    with torch.no_grad():
        model(pack([[7] * length for length in lengths]))
    assert sum(lengths) <= sum(given) <= 1.5 * sum(lengths)  # padded to the longest of all: three times as many


def test_a_body_that_does_not_change_reads_each_row_once(trainer, monkeypatch):
    """Of two epochs, rows of each evaluation too."""
    read = []
    features = Classifier.features
    monkeypatch.setattr(
        Classifier, "features", lambda model, batch: read.append(len(batch.lengths)) or features(model, batch)
    )
    job = trainer.job("HeadOnly")
    validated = job.spec.model_copy(update={"validation_dataset": job.spec.test_dataset})
    told = trainer.run(job.model_copy(update={"spec": validated}))
    assert len(told["epochs"]) == 2
    assert sum(read) == told["trainingRows"] + told["testRows"] + told["validationRows"]
