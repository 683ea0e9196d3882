"""What other trainers call the parameters of a training, for those who bring a file of theirs: what to write here instead.

The table of docs/training.md, in the other direction. A name is looked up without case, underscores and hyphens.
"""

from __future__ import annotations

from collections.abc import Mapping

PRECISION = "the precision is chosen by itself: bfloat16 where the device multiplies it fast, float32 elsewhere. Remove this line"
FP16 = f"there is no fp16, its range is too small for logits and gradients of these models; {PRECISION}"
EACH_EPOCH = "each epoch is evaluated and saved. Remove this line"


def _all(what: str, *names: str) -> dict[str, str]:
    return dict.fromkeys(names, what)


ELSEWHERE: Mapping[str, str] = {
    **_all(FP16, "fp16", "fp16fulleval", "fp16optlevel", "halfprecisionbackend"),
    **_all(PRECISION, "bf16", "bf16fulleval", "tf32", "precision", "mixedprecision", "dtype", "torchdtype"),
    **_all("write numTrainEpochs", "epochs", "numepochs", "nepochs", "maxepochs"),
    **_all("write numTrainEpochs; there is no limit by steps", "maxsteps"),
    **_all("write learningRate", "lr"),
    **_all("write lrSchedulerType", "scheduler", "lrscheduler"),
    **_all("write warmupRatio, the part of all steps", "warmupsteps", "warmup"),
    **_all("write maxGradNorm", "gradclip", "gradientclipping", "clipgradnorm"),
    **_all("write perDeviceTrainBatchSize", "batchsize", "trainbatchsize", "pergputrainbatchsize"),
    **_all("write perDeviceEvalBatchSize", "evalbatchsize", "pergpuevalbatchsize"),
    **_all("write gradientAccumulationSteps", "accumulationsteps", "gradaccum", "gradaccumulation"),
    **_all("write maxSeqLength", "maxlength", "maxlen", "maxsequencelength", "modelmaxlength"),
    **_all("write loraRank", "r", "rank", "lorar"),
    **_all("write loraAlpha", "alpha"),
    **_all("write loraDropout", "dropout"),
    **_all("write loraTargetModules", "targetmodules"),
    **_all("write spec.method: QLoRA", "loadin4bit"),
    **_all("write spec.baseModel", "modelnameorpath"),
    **_all("write pooling", "classifierpooling", "poolingmode"),
    **_all("write parallelism: FSDP", "fsdp", "deepspeed"),
    **_all("write optim", "optimizer", "optimiser"),
    **_all("write labelSmoothing", "labelsmoothingfactor"),
    **_all("write emaDecay, such as 0.999", "useema", "ema", "modelema", "modelemadecay", "emamomentum"),
    **_all("write classWeights", "classweight", "posweight"),
    **_all("write seed", "dataseed", "randomseed"),
    **_all("write spec.earlyStopping: {patience, minDelta}", "earlystopping", "earlystoppingpatience"),
    **_all("write spec.earlyStopping: {patience, minDelta}", "earlystoppingthreshold"),
    **_all("write spec.metrics.primary", "metricforbestmodel"),
    **_all("write spec.tracking", "reportto"),
    **_all(EACH_EPOCH, "evalstrategy", "evaluationstrategy", "savestrategy", "evalsteps", "savesteps"),
    **_all(
        "the best checkpoint is marked, and retention of a ModelService says how many stay. Remove this line",
        "loadbestmodelatend",
        "savetotallimit",
    ),
    **_all("texts are batched without padding. Remove this line", "groupbylength", "packing"),
}
