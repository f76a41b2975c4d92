"""Matrix products whose rows do not depend on each other's number.

A library picks its kernel, and with it the order of sums, by the shape of a product: a row computed among
three others may differ in its last bits from the same row among sixty. Here every product is made of tiles
of a fixed number of rows. Several tiles are computed at once only in widths that were found, when the
model was loaded, to give the bits of single tiles on this machine: with random numbers, and so many of them
that another order of sums shows.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from functools import partial
from operator import attrgetter
from typing import Any, Final

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.overrides import TorchFunctionMode
from transformers.pytorch_utils import Conv1D

# Tiles computed at once, if they prove equal; more than sixteen were never faster.
_WIDTHS: Final = (16, 12, 8, 6, 4, 3, 2)
_PROOF_SEED: Final = 20_117
# In bfloat16 one result in some sixteen thousand shows another order of sums: measured, 192 columns of 576.
_PROOF_RESULTS: Final = 1 << 20
_GROUP: Final = 64
_SINGLE: Final = 4

_MATMULS: Final = frozenset({torch.matmul, Tensor.matmul, Tensor.__matmul__})

# What torch's own compiler calls; there is no other way to keep a weight in the order of the hardware.
_reorder = attrgetter("_reorder_linear_weight")
_linear = attrgetter("_linear_pointwise")
_supports_bfloat16 = attrgetter("_is_mkldnn_bf16_supported")

Product = Callable[[Tensor], Tensor]
Kernel = tuple[object, ...]


class Tiling:
    """Switch for products in tiles; used as a context around a forward pass."""

    def __init__(self, rows: int, *, most_rows: int) -> None:
        """Tiles of `rows` (0: never); products of up to `most_rows` are worth proving wider ones for."""
        self.rows = rows
        self._most_rows = most_rows
        self._on = False
        self._loose = False
        self._modes = ExitStack()
        self._proven: dict[Kernel, tuple[int, ...]] = {}
        self._products: dict[Kernel, tuple[Product, Tensor]] = {}

    def __enter__(self) -> None:
        self._on = True
        if self._loose and self.rows:
            self._modes.enter_context(_LooseWeights(self))

    def __exit__(self, *_: object) -> None:
        self._modes.close()
        self._on = False

    @property
    def on(self) -> bool:
        """Whether products are tiled now."""
        return self._on and self.rows > 0

    def attach(self, model: nn.Module) -> None:
        """Lets all products with weights of `model` go through this; proves widths of each shape."""
        looked_up = {
            module.weight.data_ptr() for module in model.modules() if isinstance(module, nn.Embedding)
        }
        for module in model.modules():
            if isinstance(module, nn.Linear):
                self._replace(module, module.weight, module.bias)
                if _can_pack(module.weight) and module.weight.data_ptr() not in looked_up:
                    # Nothing reads it any more: only its shape and type stay, without its memory.
                    hollow = module.weight.new_empty(1).expand(module.weight.shape)
                    module.weight = nn.Parameter(hollow, requires_grad=False)
            elif isinstance(module, Conv1D):
                # Stored the other way around; a product with a copy is the same sum.
                self._replace(module, module.weight.t().contiguous(), module.bias)
            elif not isinstance(module, nn.Embedding):
                # Experts and their routers multiply with weights that belong to no layer of their own.
                self._loose |= any(weight.ndim > 1 for weight in module.parameters(recurse=False))

    def widths(self, product: Product, like: Tensor) -> tuple[int, ...]:
        """Numbers of rows, widest first, at which `product` gives the bits of single tiles.

        Args:
            product: Rows in, rows out.
            like: A weight; its last dimension is the length of a row. Shape and type stand for its kernel.
        """
        kernel = _kernel(like)
        if kernel not in self._proven:
            self._products[kernel] = (product, like)
            found = tuple(self._prove(product, like, torch.get_num_threads()))
            self._proven[kernel] = found or (self.rows,)
        return self._proven[kernel]

    def prove(self, threads: int) -> bool:
        """Proves all widths anew for so many threads; whether single tiles have the bits they have on one."""
        same = True
        for kernel, (product, like) in self._products.items():
            found = tuple(self._prove(product, like, threads))
            same &= bool(found)
            self._proven[kernel] = found or (self.rows,)
        return same

    def apply(self, product: Product, widths: tuple[int, ...], value: Tensor) -> Tensor:
        """`product(value)` in tiles; the last is filled up with zero rows."""
        flat = value.reshape(-1, value.shape[-1])
        count = flat.shape[0]
        if missing := -count % self.rows:
            flat = functional.pad(flat, (0, 0, 0, missing))
        parts = [product(part) for part in _parts(flat, widths)]
        whole = parts[0] if len(parts) == 1 else torch.cat(parts)
        return whole[:count].reshape(*value.shape[:-1], -1)

    def _replace(self, module: Any, weight: Tensor, bias: Tensor | None) -> None:
        product = _product(weight, bias)
        if self.rows:
            self.widths(product, weight)
        module.forward = partial(self._forward, product, _kernel(weight))

    def _forward(self, product: Product, kernel: Kernel, value: Tensor) -> Tensor:
        return self.apply(product, self._proven[kernel], value) if self.on else product(value)

    def _prove(self, product: Product, like: Tensor, threads: int) -> list[int]:
        wide = [width * self.rows for width in _WIDTHS if width * self.rows <= self._most_rows]
        found = [*wide, self.rows]
        source = torch.Generator().manual_seed(_PROOF_SEED)
        before = torch.get_num_threads()
        try:
            for count in _groups(_rounds(like, self.rows)):
                drawn = [torch.randn(found[0], like.shape[-1], generator=source) for _ in range(count)]
                drawn = [rows.to(device=like.device, dtype=like.dtype) for rows in drawn]
                torch.set_num_threads(1)
                singles = [
                    torch.cat([product(part) for part in torch.split(rows, self.rows)]) for rows in drawn
                ]
                torch.set_num_threads(threads)
                for rows, single in zip(drawn, singles, strict=True):
                    found = [wide for wide in found if torch.equal(product(rows[:wide]), single[:wide])]
                if not found:
                    break
        finally:
            torch.set_num_threads(before)
        return found


def _rounds(like: Tensor, rows: int) -> int:
    """Draws it takes to see another order of sums: in half precision rounding hides it almost everywhere."""
    results = _PROOF_RESULTS if like.element_size() < _SINGLE else 1
    return -(-results // (rows * like.shape[0]))


def _groups(rounds: int) -> list[int]:
    """Rounds done together: changing the number of threads takes longer than a small product."""
    whole, rest = divmod(rounds, _GROUP)
    return [_GROUP] * whole + ([rest] if rest else [])


def _kernel(weight: Tensor) -> Kernel:
    """What decides how a product with this weight is computed."""
    return (weight.shape, weight.stride(), weight.dtype, weight.device)


class _LooseWeights(TorchFunctionMode):
    """Tiles products with weights outside of linear layers, wherever the model's code computes them."""

    def __init__(self, tiling: Tiling) -> None:
        super().__init__()
        self._tiling = tiling

    def __torch_function__(
        self,
        func: Any,
        types: Sequence[type],
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        named = kwargs or {}
        if func is functional.linear and not named:
            value, weight, *rest = args
            return self._tiled(value, weight, partial(_plain, weight, rest[0] if rest else None))
        if func in _MATMULS and not named and args[1].ndim == 2:
            value, weight = args
            return self._tiled(value, weight.t(), partial(_times, weight))
        return func(*args, **named)

    def _tiled(self, value: Tensor, weight: Tensor, product: Product) -> Tensor:
        return self._tiling.apply(product, self._tiling.widths(product, weight), value)


def _times(weight: Tensor, value: Tensor) -> Tensor:
    return torch.matmul(value, weight)


def _product(weight: Tensor, bias: Tensor | None) -> Product:
    """Product with a weight, which is kept in the order that the processor's bfloat16 units read."""
    if _can_pack(weight):
        # Otherwise every call would reorder the whole weight anew: half of the time at sixteen rows.
        return packed(weight, bias)
    return partial(_plain, weight, bias)


def can_pack(weight: Tensor) -> bool:
    """Whether `packed` is there for a weight on this machine."""
    return weight.device.type == "cpu" and (
        _can_pack(weight)
        or (weight.dtype is torch.float32 and hasattr(torch.ops.mkldnn, "_linear_pointwise"))
    )


def packed(weight: Tensor, bias: Tensor | None, then: str = "none") -> Product:
    """Product with a weight in the order of the hardware; `then` `gelu` is applied to what comes out."""
    return partial(_packed, _reorder(torch.ops.mkldnn)(weight.detach(), None), bias, then)


def _can_pack(weight: Tensor) -> bool:
    return (
        weight.device.type == "cpu"
        and weight.dtype is torch.bfloat16
        and hasattr(torch.ops.mkldnn, "_linear_pointwise")
        and bool(_supports_bfloat16(torch.ops.mkldnn)())
    )


def _packed(weight: Tensor, bias: Tensor | None, then: str, value: Tensor) -> Tensor:
    out: Tensor = _linear(torch.ops.mkldnn)(value, weight, bias, then, [], "none")
    return out


def _plain(weight: Tensor, bias: Tensor | None, value: Tensor) -> Tensor:
    return functional.linear(value, weight, bias)


def _parts(flat: Tensor, widths: tuple[int, ...]) -> Iterator[Tensor]:
    start, count = 0, flat.shape[0]
    while start < count:
        wide = next(width for width in widths if width <= count - start)
        yield flat[start : start + wide]
        start += wide
