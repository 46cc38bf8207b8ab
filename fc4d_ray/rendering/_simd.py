"""Eight-lane vectors inside numba kernels.

LLVM does not vectorize short loops with data-dependent bounds, and an ellipse's row is about a
dozen pixels. So the compositor names its vectors: ``load`` takes eight neighbours from an array,
arithmetic and comparisons work lane by lane (scalars are repeated), ``select`` replaces branches,
``total`` sums the lanes in a fixed order. LLVM splits or merges the lanes into whatever registers
the machine has. Everything here can be called from compiled code only.
"""

from __future__ import annotations

import operator
from typing import Any

from llvmlite import ir
from numba.core import cgutils, types
from numba.core.datamodel import models
from numba.core.typing.templates import AbstractTemplate, infer_global, signature
from numba.extending import intrinsic, lower_builtin, register_model

LANES = 8


class LanesType(types.Type):
    """Eight numbers of one float type."""

    def __init__(self, element: types.Float) -> None:
        self.element = element
        super().__init__(name=f"Lanes({element})")


class MaskType(types.Type):
    """Eight truth values."""

    def __init__(self) -> None:
        super().__init__(name="LanesMask")


MASK = MaskType()


@register_model(LanesType)
class _LanesModel(models.PrimitiveModel):
    def __init__(self, manager: Any, fe_type: LanesType) -> None:
        element = manager.lookup(fe_type.element).get_value_type()
        super().__init__(manager, fe_type, ir.VectorType(element, LANES))


@register_model(MaskType)
class _MaskModel(models.PrimitiveModel):
    def __init__(self, manager: Any, fe_type: MaskType) -> None:
        super().__init__(manager, fe_type, ir.VectorType(ir.IntType(1), LANES))


def _splat(builder: Any, scalar: Any) -> Any:
    """The scalar in every lane."""
    single = ir.VectorType(scalar.type, LANES)
    first = builder.insert_element(ir.Constant(single, ir.Undefined), scalar, _index(0))
    zeros = ir.Constant(ir.VectorType(ir.IntType(32), LANES), [0] * LANES)
    return builder.shuffle_vector(first, ir.Constant(single, ir.Undefined), zeros)


def _index(lane: int) -> ir.Constant:
    return ir.Constant(ir.IntType(32), lane)


def _as_lanes(context: Any, builder: Any, value: Any, from_type: Any, to_type: LanesType) -> Any:
    if isinstance(from_type, LanesType):
        return value
    return _splat(builder, context.cast(builder, value, from_type, to_type.element))


def _lanes_of(args: tuple) -> LanesType | None:
    """The vector type of a binary operation, None where it is not ours."""
    lanes = [a for a in args if isinstance(a, LanesType)]
    if len(args) != 2 or not lanes or lanes[0] != lanes[-1]:
        return None
    known = all(isinstance(a, LanesType | types.Number) for a in args)
    return lanes[0] if known else None


def _binary_operator(function: Any, emit: Any, to_mask: bool) -> None:
    class Template(AbstractTemplate):
        def generic(self, args: tuple, kws: dict) -> Any:
            lanes = _lanes_of(args)
            return None if lanes is None else signature(MASK if to_mask else lanes, *args)

    infer_global(function)(Template)

    def lower(context: Any, builder: Any, sig: Any, args: tuple) -> Any:
        lanes = _lanes_of(sig.args)
        a, b = (
            _as_lanes(context, builder, value, from_type, lanes)
            for value, from_type in zip(args, sig.args, strict=True)
        )
        return emit(builder, a, b)

    for pair in (
        (LanesType, LanesType),
        (LanesType, types.Number),
        (types.Number, LanesType),
    ):
        lower_builtin(function, *pair)(lower)


for _function, _method in (
    (operator.add, "fadd"),
    (operator.sub, "fsub"),
    (operator.mul, "fmul"),
    (operator.truediv, "fdiv"),
):
    _binary_operator(
        _function, lambda builder, a, b, method=_method: getattr(builder, method)(a, b), False
    )
for _function, _symbol in (
    (operator.lt, "<"),
    (operator.le, "<="),
    (operator.gt, ">"),
    (operator.ge, ">="),
):
    _binary_operator(
        _function, lambda builder, a, b, symbol=_symbol: builder.fcmp_ordered(symbol, a, b), True
    )


@infer_global(operator.and_)
class _MaskAnd(AbstractTemplate):
    def generic(self, args: tuple, kws: dict) -> Any:
        return signature(MASK, *args) if args == (MASK, MASK) else None


@lower_builtin(operator.and_, MaskType, MaskType)
def _lower_mask_and(context: Any, builder: Any, sig: Any, args: tuple) -> Any:
    return builder.and_(*args)


def _address(context: Any, builder: Any, array_type: Any, array: Any, index: Any) -> Any:
    """Pointer to eight elements of a contiguous 1D array."""
    struct = context.make_array(array_type)(context, builder, array)
    element = context.get_data_type(array_type.dtype)
    pointer = builder.gep(struct.data, [index], source_etype=element)
    return builder.bitcast(pointer, ir.VectorType(element, LANES).as_pointer())


@intrinsic
def load(typingctx: Any, array: Any, index: Any) -> Any:
    """Elements ``[index, index + 8)`` of a contiguous 1D array; bounds are not checked."""
    lanes = LanesType(array.dtype)

    def codegen(context: Any, builder: Any, sig: Any, args: tuple) -> Any:
        position = context.cast(builder, args[1], sig.args[1], types.intp)
        pointer = _address(context, builder, sig.args[0], args[0], position)
        element = context.get_data_type(sig.args[0].dtype)
        return builder.load(
            pointer, align=sig.args[0].dtype.bitwidth // 8, typ=ir.VectorType(element, LANES)
        )

    return lanes(array, index), codegen


@intrinsic
def store(typingctx: Any, array: Any, index: Any, lanes: Any) -> Any:
    """Write eight elements at ``index`` of a contiguous 1D array; bounds are not checked."""

    def codegen(context: Any, builder: Any, sig: Any, args: tuple) -> Any:
        position = context.cast(builder, args[1], sig.args[1], types.intp)
        pointer = _address(context, builder, sig.args[0], args[0], position)
        builder.store(args[2], pointer, align=sig.args[0].dtype.bitwidth // 8)
        return context.get_dummy_value()

    return types.void(array, index, lanes), codegen


@intrinsic
def repeat(typingctx: Any, scalar: Any) -> Any:
    """A float in all eight lanes."""

    def codegen(context: Any, builder: Any, sig: Any, args: tuple) -> Any:
        return _splat(builder, args[0])

    return LanesType(scalar)(scalar), codegen


@intrinsic
def ramp(typingctx: Any, scalar: Any) -> Any:
    """``scalar``, ``scalar`` + 1, … + 7."""

    def codegen(context: Any, builder: Any, sig: Any, args: tuple) -> Any:
        vector = ir.VectorType(args[0].type, LANES)
        steps = ir.Constant(vector, [float(lane) for lane in range(LANES)])
        return builder.fadd(_splat(builder, args[0]), steps)

    return LanesType(scalar)(scalar), codegen


@intrinsic
def select(typingctx: Any, mask: Any, if_true: Any, if_false: Any) -> Any:
    """Lane-wise choice; the choices may be scalars, not both."""
    lanes = _lanes_of((if_true, if_false))

    def codegen(context: Any, builder: Any, sig: Any, args: tuple) -> Any:
        a, b = (_as_lanes(context, builder, args[i], sig.args[i], sig.return_type) for i in (1, 2))
        return builder.select(args[0], a, b)

    return lanes(mask, if_true, if_false), codegen


@intrinsic
def some(typingctx: Any, mask: Any) -> Any:
    """Whether any lane is true."""

    def codegen(context: Any, builder: Any, sig: Any, args: tuple) -> Any:
        bits = builder.bitcast(args[0], ir.IntType(LANES))
        return cgutils.is_not_null(builder, bits)

    return types.boolean(mask), codegen


@intrinsic
def total(typingctx: Any, lanes: Any) -> Any:
    """Sum of the lanes, in a fixed (pairwise) order."""

    def codegen(context: Any, builder: Any, sig: Any, args: tuple) -> Any:
        vector = args[0]
        undefined = ir.Constant(vector.type, ir.Undefined)
        step = LANES // 2
        while step:
            shuffle = [(lane + step) % LANES for lane in range(LANES)]
            places = ir.Constant(ir.VectorType(ir.IntType(32), LANES), shuffle)
            vector = builder.fadd(vector, builder.shuffle_vector(vector, undefined, places))
            step //= 2
        return builder.extract_element(vector, _index(0))

    return lanes.element(lanes), codegen


EXP_COEFFICIENTS = (
    9.2268318e-05,
    0.000668950225,
    0.00393871649,
    0.0196775957,
    0.0787270313,
    0.236183733,
    0.472366605,
    0.472366546,
)
"""Minimax polynomial of e^(y - 0.75) on [-0.75, 0.75], highest power first."""


@intrinsic
def exp_of_negative(typingctx: Any, lanes: Any) -> Any:
    """e^-x for x in [0, 6], within 7e-7 (relative) in float32, to rounding in float64."""

    def codegen(context: Any, builder: Any, sig: Any, args: tuple) -> Any:
        vector = args[0].type

        def constant(value: float) -> ir.Constant:
            return ir.Constant(vector, [value] * LANES)

        if sig.args[0].element == types.float64:
            function = builder.module.declare_intrinsic("llvm.exp", [vector.element])
            result = ir.Constant(vector, ir.Undefined)
            for lane in range(LANES):
                argument = builder.fneg(builder.extract_element(args[0], _index(lane)))
                value = builder.call(function, [argument])
                result = builder.insert_element(result, value, _index(lane))
            return result
        # y = 0.75 - x / 4, then the fourth power of e^(y - 0.75).
        y = builder.fsub(constant(0.75), builder.fmul(args[0], constant(0.25)))
        p = constant(EXP_COEFFICIENTS[0])
        for coefficient in EXP_COEFFICIENTS[1:]:
            p = builder.fadd(builder.fmul(p, y), constant(coefficient))
        p = builder.fmul(p, p)
        return builder.fmul(p, p)

    return lanes(lanes), codegen
