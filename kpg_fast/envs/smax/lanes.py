"""Eight units at once: the type that a rule sees when it is called for a block of units instead of one.

A rule written for unit ``u`` is compiled a second time for ``u = block(first)``: then ``f[X, u]`` is a vector of the
columns first .. first + 7, arithmetic and comparisons go lane by lane, and scalars are spread. LLVM maps the vectors
to whatever the processor has. Loops over units would be turned into vectors too, but each behind checks that none of
the rows it writes overlaps one that it reads, which cost more than the work (a tick of 2s3z took 58 ns instead of
about 150).
"""

import math
import operator
from collections.abc import Callable
from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.core.datamodel import models
from numba.extending import intrinsic, overload, register_model

from kpg_fast.envs.smax.compiled import Scalar, device, multiply_add
from kpg_fast.envs.smax.layout import FEATURE_COLUMNS, LANES, UNIT_FEATURES


class LanesType(types.Type):  # type: ignore[misc]
    """LANES values of a scalar type."""

    def __init__(self, dtype: Any) -> None:
        self.dtype = dtype
        super().__init__(name=f"Lanes({dtype})")


class BlockType(types.Type):  # type: ignore[misc]
    """An index that stands for LANES neighbouring ones."""

    def __init__(self) -> None:
        super().__init__(name="Block")


_BLOCK = BlockType()


@register_model(LanesType)
class _LanesModel(models.PrimitiveModel):  # type: ignore[misc]
    def __init__(self, manager: Any, lanes: Any) -> None:
        super().__init__(manager, lanes, ir.VectorType(manager.lookup(lanes.dtype).get_value_type(), LANES))


@register_model(BlockType)
class _BlockModel(models.PrimitiveModel):  # type: ignore[misc]
    def __init__(self, manager: Any, block: Any) -> None:
        super().__init__(manager, block, ir.IntType(64))


@intrinsic  # type: ignore[misc]
def _block(typing_context: Any, first: Any) -> Any:
    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return context.cast(builder, arguments[0], signature.args[0], types.int64)

    return _BLOCK(first), generate


@device
def block(first: Scalar) -> Scalar:
    """The units first .. first + LANES - 1, as an index."""
    return _block(first)  # type: ignore[call-arg]


def _to_lanes(context: Any, builder: Any, value: Any, value_type: Any, dtype: Any) -> Any:
    """A value as a vector of ``dtype``."""
    if isinstance(value_type, LanesType):
        if value_type.dtype == dtype:
            return value
        return builder.zext(value, ir.VectorType(context.get_value_type(dtype), LANES))  # a mask into an integer row
    scalar = context.cast(builder, value, value_type, dtype)
    vector = ir.VectorType(scalar.type, LANES)
    one = builder.insert_element(ir.Constant(vector, ir.Undefined), scalar, ir.Constant(ir.IntType(32), 0))
    order = ir.Constant(ir.VectorType(ir.IntType(32), LANES), [0] * LANES)
    return builder.shuffle_vector(one, ir.Constant(vector, ir.Undefined), order)


def _common(*kinds: Any) -> Any:
    """The scalar type that an operation on these works in: that of the lanes among them."""
    return next(kind.dtype for kind in kinds if isinstance(kind, LanesType))


def _has_lanes(*kinds: Any) -> bool:
    return any(isinstance(kind, LanesType) for kind in kinds)


def _define(operation: Any, build: Callable[[Any, Any, Any], Any], gives_mask: bool = False) -> None:
    """Extend a binary operator or function to lanes."""

    @intrinsic  # type: ignore[misc]
    def apply(typing_context: Any, a: Any, b: Any) -> Any:
        dtype = _common(a, b)

        def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            x, y = (_to_lanes(context, builder, v, t, dtype) for v, t in zip(arguments, signature.args, strict=True))
            return build(builder, x, y)

        return LanesType(types.boolean if gives_mask else dtype)(a, b), generate

    @overload(operation)
    def _(a, b):  # type: ignore[no-untyped-def]
        return (lambda a, b: apply(a, b)) if _has_lanes(a, b) else None  # type: ignore[call-arg]


def _compare(sign: str) -> Callable[[Any, Any, Any], Any]:
    def build(builder: Any, x: Any, y: Any) -> Any:
        if isinstance(x.type.element, ir.FloatType):
            return builder.fcmp_ordered(sign, x, y)
        return builder.icmp_signed(sign, x, y)

    return build


def _lesser(builder: Any, x: Any, y: Any) -> Any:
    return builder.select(builder.fcmp_ordered("<", y, x), y, x)


def _greater(builder: Any, x: Any, y: Any) -> Any:
    return builder.select(builder.fcmp_ordered(">", y, x), y, x)


_define(operator.add, lambda builder, x, y: builder.fadd(x, y))
_define(operator.sub, lambda builder, x, y: builder.fsub(x, y))
_define(operator.mul, lambda builder, x, y: builder.fmul(x, y))
_define(operator.truediv, lambda builder, x, y: builder.fdiv(x, y))
_define(operator.and_, lambda builder, x, y: builder.and_(x, y))
_define(operator.or_, lambda builder, x, y: builder.or_(x, y))
_define(min, _lesser)
_define(max, _greater)
for _operator, _sign in {operator.lt: "<", operator.le: "<=", operator.gt: ">", operator.ge: ">="}.items():
    _define(_operator, _compare(_sign), gives_mask=True)
_define(operator.ne, _compare("!="), gives_mask=True)


def select(condition: Scalar, then: Scalar, otherwise: Scalar) -> Scalar:
    """``then if condition else otherwise``, for one unit or for a block."""
    return then if condition else otherwise


@intrinsic  # type: ignore[misc]
def _select(typing_context: Any, condition: Any, then: Any, otherwise: Any) -> Any:
    dtype = _common(then, otherwise) if _has_lanes(then, otherwise) else then

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        kinds = (types.boolean, dtype, dtype)
        spread = zip(arguments, signature.args, kinds, strict=True)
        return builder.select(*(_to_lanes(context, builder, value, given, kind) for value, given, kind in spread))

    return LanesType(dtype)(condition, then, otherwise), generate


@overload(select, target="cpu")
def _select_on_cpu(condition, then, otherwise):  # type: ignore[no-untyped-def]
    if _has_lanes(condition, then, otherwise):
        return lambda condition, then, otherwise: _select(condition, then, otherwise)  # type: ignore[call-arg]
    return lambda condition, then, otherwise: then if condition else otherwise


@intrinsic  # type: ignore[misc]
def _fused(typing_context: Any, a: Any, b: Any, c: Any) -> Any:
    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        typed = zip(arguments, signature.args, strict=True)
        values = [_to_lanes(context, builder, value, kind, types.float32) for value, kind in typed]
        fma = cgutils.get_or_insert_function(
            builder.module, ir.FunctionType(values[0].type, [values[0].type] * 3), f"llvm.fma.v{LANES}f32"
        )
        return builder.call(fma, values)

    return LanesType(types.float32)(a, b, c), generate


@overload(multiply_add, target="cpu")
def _multiply_add_lanes(a, b, c):  # type: ignore[no-untyped-def]
    return (lambda a, b, c: _fused(a, b, c)) if _has_lanes(a, b, c) else None  # type: ignore[call-arg]


@intrinsic  # type: ignore[misc]
def _square_root(typing_context: Any, a: Any) -> Any:
    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        kind = arguments[0].type
        root = cgutils.get_or_insert_function(builder.module, ir.FunctionType(kind, [kind]), f"llvm.sqrt.v{LANES}f32")
        return builder.call(root, arguments)

    return a(a), generate


@overload(math.sqrt)
def _sqrt_lanes(a):  # type: ignore[no-untyped-def]
    return (lambda a: _square_root(a)) if _has_lanes(a) else None  # type: ignore[call-arg]


@intrinsic  # type: ignore[misc]
def _bits(typing_context: Any, mask: Any) -> Any:
    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.zext(builder.bitcast(arguments[0], ir.IntType(LANES)), ir.IntType(64))

    return types.uint64(mask), generate


@device
def bits(mask: Scalar) -> Scalar:
    """A mask as a number, the first unit of the block in its lowest bit."""
    return _bits(mask)  # type: ignore[call-arg]


@intrinsic  # type: ignore[misc]
def _lowest_bit(typing_context: Any, number: Any) -> Any:
    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.cttz(arguments[0], ir.Constant(ir.IntType(1), 1))

    return types.int64(types.uint64), generate


@device
def lowest_bit(number: Scalar) -> Scalar:
    """The place of the lowest bit that is set in a number above 0."""
    return _lowest_bit(number)  # type: ignore[call-arg]


@intrinsic  # type: ignore[misc]
def _spread_out(typing_context: Any, value: Any) -> Any:
    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return _to_lanes(context, builder, arguments[0], signature.args[0], value)

    return LanesType(value)(value), generate


@device
def spread(value: Scalar) -> Scalar:
    """The same value for every unit of a block."""
    return _spread_out(value)  # type: ignore[call-arg]


def _pointer(context: Any, builder: Any, array_type: Any, array: Any, row: Any, first: Any) -> Any:
    """To the first of LANES neighbours in a contiguous array of one or two dimensions."""
    parts = context.make_array(array_type)(context, builder, array)
    at = first
    if row is not None:
        at = builder.add(at, builder.mul(row, builder.extract_value(parts.shape, 1)))
    element = builder.gep(parts.data, [at])
    return builder.bitcast(element, ir.VectorType(context.get_data_type(array_type.dtype), LANES).as_pointer())


def _index(context: Any, builder: Any, index_type: Any, index: Any) -> tuple[Any, Any]:
    """Row (or ``None``) and first column."""
    if isinstance(index_type, BlockType):
        return None, index
    row, first = cgutils.unpack_tuple(builder, index, 2)
    return context.cast(builder, row, index_type[0], types.intp), first


@intrinsic  # type: ignore[misc]
def _read(typing_context: Any, array: Any, index: Any) -> Any:
    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        row, first = _index(context, builder, signature.args[1], arguments[1])
        loaded = builder.load(_pointer(context, builder, array, arguments[0], row, first))
        loaded.align = array.dtype.bitwidth // 8
        return loaded

    return LanesType(array.dtype)(array, index), generate


@intrinsic  # type: ignore[misc]
def _write(typing_context: Any, array: Any, index: Any, value: Any) -> Any:
    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        row, first = _index(context, builder, signature.args[1], arguments[1])
        vector = _to_lanes(context, builder, arguments[2], value, array.dtype)
        stored = builder.store(vector, _pointer(context, builder, array, arguments[0], row, first))
        stored.align = array.dtype.bitwidth // 8
        return context.get_dummy_value()

    return types.void(array, index, value), generate


def _is_block(array: Any, index: Any) -> bool:
    if not isinstance(array, types.Array) or array.layout != "C":
        return False
    if isinstance(index, types.Tuple):
        return len(index) == 2 and isinstance(index[1], BlockType)
    return isinstance(index, BlockType)


@overload(operator.getitem)
def _getitem(array, index):  # type: ignore[no-untyped-def]
    return (lambda array, index: _read(array, index)) if _is_block(array, index) else None  # type: ignore[call-arg]


@overload(operator.setitem)
def _setitem(array, index, value):  # type: ignore[no-untyped-def]
    if not _is_block(array, index):
        return None
    return lambda array, index, value: _write(array, index, value)  # type: ignore[call-arg]


def copy_features(features: Scalar, row: Scalar, target: Scalar, at: Scalar) -> None:
    """Copy ``features[row, :UNIT_FEATURES]`` to ``target[at:]``; FEATURE_COLUMNS places may be written."""
    for c in range(UNIT_FEATURES):
        target[at + c] = features[row, c]


@overload(copy_features, target="cpu")
def _copy_features_on_cpu(features, row, target, at):  # type: ignore[no-untyped-def]
    def copy(features, row, target, at):  # type: ignore[no-untyped-def]
        for c in range(0, FEATURE_COLUMNS, LANES):
            target[block(at + c)] = features[row, block(c)]

    return copy
