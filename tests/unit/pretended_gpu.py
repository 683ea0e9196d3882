"""A GPU that is not there: tensors say that they are on one, are computed by the CPU, and mix with no tensors that are not.

It shows that a program puts everything where it belongs and takes the branches written for CUDA, flash kernels included; not
that CUDA's kernels do what they should, and no speed.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import torch
from torch.utils._device import _device_constructors
from torch.utils._pytree import tree_flatten, tree_map

aten: Any = torch.ops.aten
GPU = torch.device("cuda", 0)
MAKE = [
    "tensor",
    "empty",
    "zeros",
    "ones",
    "full",
    "arange",
    "rand",
    "randn",
    "randint",
    "as_tensor",
    "eye",
    "linspace",
]
MAKE_LIKE = ["empty_like", "zeros_like", "ones_like", "full_like", "rand_like", "randn_like"]
MAKE_FROM = ["new_empty", "new_zeros", "new_ones", "new_full", "new_tensor"]
TO_AND_FRO = {aten.copy_.default, aten._to_copy.default, aten._local_scalar_dense.default}
INDEXED = {  # by indices that may be anywhere
    aten.index.Tensor,
    aten.index_put.default,
    aten.index_put_.default,
    aten._index_put_impl_.default,
    aten._unsafe_index.Tensor,
}


class MixedDevicesError(RuntimeError):
    """What CUDA says where an operator gets tensors of two devices."""


class OnGpu(torch.Tensor):
    """`held`, the same on the CPU, which is asked for all but what follows."""

    held: torch.Tensor
    __torch_function__ = torch._C._disabled_torch_function_impl  # type: ignore[assignment]
    device: Any = property(lambda self: GPU)
    is_cuda: Any = property(lambda self: True)

    @staticmethod
    def __new__(cls: Any, inner: torch.Tensor) -> Any:
        return torch.Tensor._make_wrapper_subclass(
            cls, inner.size(), strides=inner.stride(), storage_offset=inner.storage_offset(), dtype=inner.dtype
        )

    def __init__(self, held: torch.Tensor) -> None:
        self.held = held

    @classmethod
    def __torch_dispatch__(cls, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:  # type: ignore[override]
        return compute(function, args, kwargs or {})

    def numpy(self, **_: Any) -> Any:
        raise TypeError("can't convert cuda:0 device type tensor to numpy. Use Tensor.cpu()")

    def __array__(self, *_: Any) -> Any:
        return self.numpy()

    def tolist(self) -> Any:
        return self.held.tolist()

    def untyped_storage(self) -> Any:
        return self.held.untyped_storage()


def inner(value: Any) -> Any:
    return value.held if isinstance(value, OnGpu) else value


def compute(function: Any, args: Any, kwargs: Any) -> Any:
    tensors = [each for each in tree_flatten((args, kwargs))[0] if isinstance(each, torch.Tensor)]
    check(function, args, tensors)
    if function is aten._fused_sdp_choice.default:
        return 0  # attention by products and softmax
    if str(function).startswith("torch_attn._varlen_attn"):
        return flash(function, args)
    if function is aten.copy_.default:
        inner(args[0]).copy_(inner(args[1]))
        return args[0]
    known = {id(each.held): each for each in tensors if isinstance(each, OnGpu)}
    found = function(*tree_map(inner, args), **tree_map(inner, kwargs))
    return tree_map(lambda each: known.get(id(each), up(each)) if isinstance(each, torch.Tensor) else each, found)


def check(function: Any, args: Any, tensors: list[torch.Tensor]) -> None:
    others = [each for each in tensors if not isinstance(each, OnGpu) and each.dim() > 0]
    if function in INDEXED and isinstance(args[0], OnGpu):
        indices = {id(each) for each in tree_flatten(args[1])[0]}
        others = [each for each in others if id(each) not in indices]
    if others and function not in TO_AND_FRO:
        raise MixedDevicesError(f"{function}: {[(list(each.shape), str(each.device)) for each in tensors]}")


flash_calls: list[tuple[int, ...]] = []  # shapes of the queries


def flash(function: Any, args: Any) -> Any:
    """The operator below torch's variable-length attention, forward or backward, on what its kernels take."""
    given = dict(zip((each.name for each in function._schema.arguments), args, strict=False))
    states = [inner(given[name]) for name in ("query", "key", "value")]
    assert {each.dtype for each in states} == {torch.bfloat16}
    assert states[0].shape[-1] % 8 == 0
    assert {each.stride(-1) for each in states} == {1}

    def attention(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
        found = reference_varlen(
            q.float(),
            k.float(),
            v.float(),
            inner(given["cu_seq_q"]),
            inner(given["cu_seq_k"]),
            given["max_q"],
            given["max_k"],
            scale=given["scale"],
            window_size=given["window_size"],
            enable_gqa=given.get("enable_gqa", q.shape[1] != k.shape[1]),
            num_splits=1,
        )
        return found.to(torch.bfloat16)

    if "backward" not in str(function):
        flash_calls.append(tuple(states[0].shape))
        tokens, heads = states[0].shape[:2]
        made = attention(*states), torch.zeros(heads, tokens), torch.zeros(2, dtype=torch.int64)
        return tuple(map(OnGpu, made))

    def gradients() -> Any:
        leaves = [each.detach().clone().requires_grad_() for each in states]
        return torch.autograd.grad(attention(*leaves), leaves, inner(given["grad_out"]))

    with ThreadPoolExecutor(1) as thread:  # within an operator, nothing of this thread records gradients
        return tuple(map(OnGpu, thread.submit(gradients).result()))


def reference_varlen(
    q: Any,
    k: Any,
    v: Any,
    cu_q: Any,
    cu_k: Any,
    max_q: int,
    max_k: int,
    *,
    scale: float,
    window_size: Sequence[int],
    enable_gqa: bool = False,
    num_splits: int,
) -> torch.Tensor:
    """torch's variable-length attention, whose kernels run on CUDA only, by its documented contract: window_size is (left, right)
    beside the token itself, -1 is all; each K head serves H / K query heads."""
    assert cu_q.dtype == cu_k.dtype == torch.int32
    assert (max_q, max_k) == (int(cu_q.diff().max()), int(cu_k.diff().max()))
    groups = q.shape[1] // k.shape[1]
    assert enable_gqa == (groups > 1)
    outputs = []
    for row in range(len(cu_q) - 1):
        queries = q[cu_q[row] : cu_q[row + 1]]
        keys, values = (x[cu_k[row] : cu_k[row + 1]].repeat_interleave(groups, dim=1) for x in (k, v))
        distance = torch.arange(len(queries))[:, None] - torch.arange(len(keys))[None]
        left, right = (len(keys) if reach < 0 else reach for reach in window_size)
        seen = (distance <= left) & (distance >= -right)
        scores = torch.einsum("qhd,khd->hqk", queries, keys) * scale
        weights = scores.masked_fill(~seen, float("-inf")).softmax(-1)
        outputs.append(torch.einsum("hqk,khd->qhd", weights, values))
    return torch.cat(outputs)


def is_gpu(value: Any) -> bool:
    return isinstance(value, str | torch.device) and torch.device(value).type == "cuda"


def up(tensor: torch.Tensor) -> Any:
    if isinstance(tensor, OnGpu):
        return tensor
    moved: Any = OnGpu(tensor.detach())
    return moved.requires_grad_(tensor.requires_grad)


class Down(torch.autograd.Function):
    @staticmethod
    def forward(context: Any, tensor: Any) -> Any:
        return tensor.held.clone()

    @staticmethod
    def backward(context: Any, gradient: Any) -> Any:
        return OnGpu(gradient)


def down(tensor: Any) -> Any:
    return Down.apply(tensor) if isinstance(tensor, OnGpu) else tensor  # type: ignore[no-untyped-call]


def moving(real: Callable[..., Any]) -> Callable[..., Any]:
    """Tensor.to, to or from the GPU. A tensor that is not a leaf never goes there."""

    def to(tensor: Any, *args: Any, **kwargs: Any) -> Any:
        flat = [*args, *kwargs.values()]
        if not isinstance(tensor, OnGpu) and not any(is_gpu(each) or isinstance(each, OnGpu) for each in flat):
            return real(tensor, *args, **kwargs)
        devices = [each.device if isinstance(each, torch.Tensor) else each for each in flat]
        devices = [each for each in devices if isinstance(each, str | torch.device)]
        dtypes = [each.dtype if isinstance(each, torch.Tensor) else each for each in flat]
        dtypes = [each for each in dtypes if isinstance(each, torch.dtype)]
        for device in devices:
            tensor = up(tensor.clone() if not isinstance(tensor, OnGpu) else tensor) if is_gpu(device) else down(tensor)
        return real(tensor, dtypes[0]) if dtypes else tensor

    return to


def making(real: Callable[..., Any]) -> Callable[..., Any]:
    def make(*args: Any, device: Any = None, requires_grad: bool = False, **kwargs: Any) -> Any:
        if not is_gpu(device) and not any(isinstance(each, OnGpu) for each in args):
            return real(*args, device=device, requires_grad=requires_grad, **kwargs)
        found = real(*args, **kwargs)
        found = down(found) if device is not None and not is_gpu(device) else up(found)
        return found.requires_grad_() if requires_grad else found

    return make


class Autocast(torch.autocast):
    """The CPU's casts the same operators."""

    def __init__(self, device_type: str, *args: Any, **kwargs: Any) -> None:
        super().__init__("cpu", *args, **kwargs)


def pretend_a_gpu(monkeypatch: Any) -> None:
    """From here to the test's end there is a GPU that computes in bfloat16, and has room for anything. Base models are made before."""
    _device_constructors()  # known by what they are now, for models that are loaded without memory first
    for owner, names, change in (
        (torch, MAKE + MAKE_LIKE, making),
        (torch.Tensor, MAKE_FROM, making),
        (torch.Tensor, ["to"], moving),
    ):
        for name in names:
            monkeypatch.setattr(owner, name, change(getattr(owner, name)))
    cpu, pad = torch.Tensor.cpu, torch.nn.utils.rnn.pad_sequence
    monkeypatch.setattr(torch.Tensor, "cpu", lambda tensor: down(tensor) if isinstance(tensor, OnGpu) else cpu(tensor))

    def padded(texts: Any, **kwargs: Any) -> Any:
        found = pad([inner(text) for text in texts], **kwargs)
        return up(found) if isinstance(texts[0], OnGpu) else found

    monkeypatch.setattr(torch.nn.utils.rnn, "pad_sequence", padded)
    enabled, kind = torch.is_autocast_enabled, torch.get_autocast_dtype
    monkeypatch.setattr(torch, "is_autocast_enabled", lambda device=None: enabled("cpu"))
    monkeypatch.setattr(torch, "get_autocast_dtype", lambda device: kind("cpu"))
    monkeypatch.setattr(torch, "autocast", Autocast)
    monkeypatch.setattr(torch.optim.Optimizer, "_accelerator_graph_capture_health_check", lambda self: None)
    for name, answer in {
        "is_available": True,
        "device_count": 1,
        "current_device": 0,
        "get_device_capability": (9, 0),
        "is_bf16_supported": True,
        "get_device_name": "a pretended GPU",
        "mem_get_info": (2**36, 2**36),
        "get_rng_state": torch.zeros(16, dtype=torch.uint8),
    }.items():
        monkeypatch.setattr(torch.cuda, name, lambda *_, answer=answer: answer)
    for name in ("set_device", "synchronize", "empty_cache", "manual_seed_all", "set_rng_state", "_lazy_init"):
        monkeypatch.setattr(torch.cuda, name, lambda *_: None)
    flash_calls.clear()
    # Else a module would keep its parameters, and only their content would move.
    monkeypatch.setattr(torch.__future__, "_overwrite_module_params_on_conversion", True)
