"""What is known of each JAX primitive: how it moves positions, and whether it is continuous.

The first table says which output dimension an operand's dimension becomes; the sets of names at the end say
where a value can jump. `dependence.py` carries both along a program.

A rule answers, for one equation, `maps[k][i]`: how operand `i` enters output `k`. It is either `UNUSED` (the
output does not depend on the operand) or a tuple with one entry per operand dimension: the output dimension
`e` such that `out[..., j at e, ...]` depends on the operand only through `operand[..., j at d, ...]`, or None
where no such dimension is known. None is always sound, so a primitive without a rule gets all None.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any

from jax.extend.core import Literal

Names = frozenset[str]
DimMap = tuple[int | None, ...]
UNUSED = None
Maps = list[list[DimMap | None]]


def position_maps(eqn: Any) -> Maps:
    """The maps of an equation: its primitive's rule, or all None for a primitive without one."""
    return RULES.get(eqn.primitive.name, _unknown)(eqn)


def shape_of(atom: Any) -> tuple[int, ...]:
    """Shape of a variable or literal; things without a shape (tokens) count as scalars."""
    return tuple(getattr(atom.aval, "shape", ()))


def _every_output(eqn: Any, maps: Sequence[DimMap]) -> Maps:
    return [list(maps) for _ in eqn.outvars]


def _lost(atom: Any) -> DimMap:
    return (None,) * len(shape_of(atom))


def _unknown(eqn: Any) -> Maps:
    return _every_output(eqn, [_lost(v) for v in eqn.invars])


def _elementwise(eqn: Any) -> Maps:
    out = shape_of(eqn.outvars[0])
    return _every_output(eqn, [_same_position(shape_of(v), out) for v in eqn.invars])


def _same_position(operand: tuple[int, ...], out: tuple[int, ...]) -> DimMap:
    if len(operand) != len(out):  # a scalar operand has no dimension to map; anything else is not understood
        return (None,) * len(operand)
    return tuple(d if n == m else None for d, (n, m) in enumerate(zip(operand, out, strict=True)))


def _each_to_its_output(eqn: Any) -> Maps:
    """`optimization_barrier`: output k is operand k."""
    identity = [tuple(range(len(shape_of(v)))) for v in eqn.invars]
    return [[m if i == k else UNUSED for i, m in enumerate(identity)] for k in range(len(eqn.outvars))]


def _broadcast_in_dim(eqn: Any) -> Maps:
    out, operand, dynamic = shape_of(eqn.outvars[0]), eqn.invars[0], eqn.invars[1:]
    dims = eqn.params["broadcast_dimensions"]
    kept = tuple(int(e) if n == out[e] else None for n, e in zip(shape_of(operand), dims, strict=True))
    return _every_output(eqn, [kept, *map(_lost, dynamic)])


def _reshape(eqn: Any) -> Maps:
    if eqn.params.get("dimensions") is not None:
        return _unknown(eqn)
    operand, *dynamic = eqn.invars
    old, new = shape_of(operand), shape_of(eqn.outvars[0])
    # Row-major order: a dimension survives where as many elements precede it (hence also follow it) as did.
    place = {(math.prod(new[:e]), n): e for e, n in reversed(list(enumerate(new)))}
    kept = tuple(place.get((math.prod(old[:d]), n)) for d, n in enumerate(old))
    return _every_output(eqn, [kept, *map(_lost, dynamic)])


def _squeeze(eqn: Any) -> Maps:
    return _without(eqn, eqn.params["dimensions"])


def _without(eqn: Any, dropped: Sequence[int]) -> Maps:
    """Dimensions that go, the others closing ranks."""

    def kept(atom: Any) -> DimMap:
        order = [d for d in range(len(shape_of(atom))) if d not in dropped]
        return tuple(order.index(d) if d in order else None for d in range(len(shape_of(atom))))

    return _every_output(eqn, [kept(v) for v in eqn.invars])


def _reduce(eqn: Any) -> Maps:
    return _without(eqn, eqn.params["axes"])


def _mixing_along(*names: str) -> Callable[[Any], Maps]:
    """Rule for a primitive that mixes positions along one axis (a parameter) and acts alike on the others."""

    def rule(eqn: Any) -> Maps:
        axis = next(eqn.params[n] for n in names if n in eqn.params)

        def kept(atom: Any) -> DimMap:
            return tuple(None if d == axis else d for d in range(len(shape_of(atom))))

        return _every_output(eqn, [kept(v) for v in eqn.invars])

    return rule


def _sort(eqn: Any) -> Maps:
    axis, num_keys = eqn.params["dimension"], eqn.params["num_keys"]
    kept = tuple(None if d == axis else d for d in range(len(shape_of(eqn.invars[0]))))
    count = len(eqn.invars)
    return [[kept if i < num_keys or i == k else UNUSED for i in range(count)] for k in range(count)]


def _stack(eqn: Any) -> Maps:
    axis = eqn.params["axis"]

    def kept(atom: Any) -> DimMap:
        return tuple(d + (d >= axis) for d in range(len(shape_of(atom))))

    return _every_output(eqn, [kept(v) for v in eqn.invars])


def _tile(eqn: Any) -> Maps:
    reps = eqn.params["reps"]
    if len(reps) != len(shape_of(eqn.invars[0])):
        return _unknown(eqn)
    return _every_output(eqn, [tuple(d if r == 1 else None for d, r in enumerate(reps))])


def _transpose(eqn: Any) -> Maps:
    order = [int(d) for d in eqn.params["permutation"]]
    return _every_output(eqn, [tuple(order.index(d) for d in range(len(order)))])


def _rev(eqn: Any) -> Maps:
    turned = eqn.params["dimensions"]
    rank = len(shape_of(eqn.invars[0]))
    return _every_output(eqn, [tuple(None if d in turned else d for d in range(rank))])


def _slice(eqn: Any) -> Maps:
    size, p = shape_of(eqn.invars[0]), eqn.params
    strides = p["strides"] or (1,) * len(size)
    whole = zip(p["start_indices"], p["limit_indices"], strides, size, strict=True)
    kept = tuple(d if (lo, hi, by) == (0, n, 1) else None for d, (lo, hi, by, n) in enumerate(whole))
    return _every_output(eqn, [kept])


def _dynamic_slice(eqn: Any) -> Maps:
    operand, *starts = eqn.invars
    # A slice as long as the dimension is clamped to start at zero.
    kept = _same_position(shape_of(operand), shape_of(eqn.outvars[0]))
    return _every_output(eqn, [kept, *map(_lost, starts)])


def _dynamic_update_slice(eqn: Any) -> Maps:
    operand, update, *starts = eqn.invars
    out = shape_of(eqn.outvars[0])
    kept = [_same_position(shape_of(v), out) for v in (operand, update)]
    return _every_output(eqn, [*kept, *map(_lost, starts)])


def _pad(eqn: Any) -> Maps:
    untouched = [tuple(c) == (0, 0, 0) for c in eqn.params["padding_config"]]
    return _every_output(eqn, [tuple(d if u else None for d, u in enumerate(untouched)), ()])


def _dot_general(eqn: Any) -> Maps:
    (contract_l, contract_r), (batch_l, batch_r) = eqn.params["dimension_numbers"]
    lhs, rhs = (len(shape_of(v)) for v in eqn.invars)
    free_l = [d for d in range(lhs) if d not in contract_l and d not in batch_l]
    free_r = [d for d in range(rhs) if d not in contract_r and d not in batch_r]
    # Output dimensions: batch, then what is left of the left operand, then of the right one.
    to_l = {d: e for e, d in enumerate([*batch_l, *free_l])}
    to_r = {d: e for e, d in enumerate(batch_r)}
    to_r |= {d: len(batch_l) + len(free_l) + e for e, d in enumerate(free_r)}
    return _every_output(eqn, [tuple(map(to_l.get, range(lhs))), tuple(map(to_r.get, range(rhs)))])


def _matrix(eqn: Any) -> Maps:
    """Linear algebra on the last two dimensions of every operand, batched over the leading ones."""
    ranks = [len(shape_of(v)) for v in eqn.invars]
    if len(set(ranks)) != 1:
        return _unknown(eqn)
    return _every_output(eqn, [tuple(d if d < r - 2 else None for d in range(r)) for r in ranks])


def _triangular_solve(eqn: Any) -> Maps:
    matrix, sides = map(shape_of, eqn.invars)
    if len(matrix) != len(sides):
        return _unknown(eqn)
    rank = len(sides)
    batch = tuple(range(rank - 2))
    # Each column of the right-hand side is solved for by itself; each row, if the matrix stands on the right.
    free = (None, rank - 1) if eqn.params["left_side"] else (rank - 2, None)
    return _every_output(eqn, [(*batch, None, None), (*batch, *free)])


def _gather(eqn: Any) -> Maps:
    operand, indices = map(shape_of, eqn.invars)
    numbers, sizes = eqn.params["dimension_numbers"], eqn.params["slice_sizes"]
    batch_out = [e for e in range(len(shape_of(eqn.outvars[0]))) if e not in numbers.offset_dims]
    gone = {*numbers.collapsed_slice_dims, *numbers.operand_batching_dims}
    window = [d for d in range(len(operand)) if d not in gone]
    to_out = dict(zip(window, numbers.offset_dims, strict=True))
    # A window as long as its dimension can only start at zero (or is filled, or is undefined): nothing moves.
    to_out = {d: e for d, e in to_out.items() if sizes[d] == operand[d]}
    batching = zip(numbers.operand_batching_dims, numbers.start_indices_batching_dims, strict=True)
    to_out |= {d: batch_out[j] for d, j in batching}
    index_map = (*batch_out, None)  # the last dimension of the indices is the index vector itself
    if len(index_map) != len(indices):
        return _unknown(eqn)
    return _every_output(eqn, [tuple(map(to_out.get, range(len(operand)))), index_map])


def _scatter(eqn: Any) -> Maps:
    operand, indices, updates = map(shape_of, eqn.invars)
    numbers = eqn.params["dimension_numbers"]
    batch = dict(zip(numbers.scatter_indices_batching_dims, numbers.operand_batching_dims, strict=True))
    gone = {*numbers.inserted_window_dims, *numbers.operand_batching_dims}
    window = [d for d in range(len(operand)) if d not in gone]
    # The other dimensions of the updates are those of the indices, in order.
    spread = [u for u in range(len(updates)) if u not in numbers.update_window_dims]
    to_operand = {u: batch.get(j) for j, u in enumerate(spread)}
    pairs = zip(numbers.update_window_dims, window, strict=True)
    to_operand |= {u: d for u, d in pairs if updates[u] == operand[d]}
    # What was there before stays where it was, whatever is written beside it or over it.
    before = tuple(range(len(operand)))
    where = tuple(batch.get(j) for j in range(len(indices)))
    return _every_output(eqn, [before, where, tuple(map(to_operand.get, range(len(updates))))])


ELEMENTWISE: Names = frozenset(
    (
        "abs acos acosh add add_any and asin asinh atan atan2 atanh bessel_i0e bessel_i1e cbrt ceil clamp "
        "clz complex conj convert_element_type copy cos cosh digamma div eq eq_to erf erf_inv erfc exp exp2 "
        "expm1 floor ge gt igamma igamma_grad_a igammac imag integer_pow is_finite le le_to lgamma log "
        "log1p log2 logistic lt lt_to max min mul name ne neg nextafter not one_minus_square or polygamma "
        "polynomial population_count pow random_gamma_grad real reduce_precision "
        "regularized_incomplete_beta rem round rsqrt select_n sharding_constraint shift_left "
        "shift_right_arithmetic shift_right_logical sign sin sinh sqrt square stop_gradient sub tan tanh "
        "xor zeta"
    ).split()
)

RULES: dict[str, Callable[[Any], Maps]] = {
    **dict.fromkeys(ELEMENTWISE, _elementwise),
    **dict.fromkeys(
        [f"reduce_{r}" for r in ("sum", "prod", "max", "min", "and", "or", "xor")] + ["argmax", "argmin"],
        _reduce,
    ),
    **dict.fromkeys(["cumsum", "cumprod", "cummax", "cummin", "cumlogsumexp", "split"], _mixing_along("axis")),
    "top_k": _mixing_along("axis"),
    "concatenate": _mixing_along("dimension"),
    **dict.fromkeys([f"scatter{sep}{op}" for sep in "-_" for op in ("add", "sub", "mul", "min", "max")], _scatter),
    "scatter": _scatter,
    **dict.fromkeys(["cholesky", "lu", "qr", "eigh", "svd"], _matrix),
    "broadcast_in_dim": _broadcast_in_dim,
    "dot_general": _dot_general,
    "dynamic_slice": _dynamic_slice,
    "dynamic_update_slice": _dynamic_update_slice,
    "gather": _gather,
    "optimization_barrier": _each_to_its_output,
    "pad": _pad,
    "reshape": _reshape,
    "rev": _rev,
    "slice": _slice,
    "sort": _sort,
    "squeeze": _squeeze,
    "stack": _stack,
    "tile": _tile,
    "transpose": _transpose,
    "triangular_solve": _triangular_solve,
}

# Only the value moves.
COPYING: Names = frozenset(
    "broadcast_in_dim copy neg reshape rev squeeze stop_gradient tile transpose convert_element_type".split()
)

# The output is not finite wherever an operand that influences it is not. (Not so for `max`, `exp`, `1/x`.)
SPREADING_NONFINITE: Names = COPYING | frozenset(
    "add add_any concatenate cumsum dot_general dynamic_slice gather mul optimization_barrier pad "
    "reduce_sum slice split stack sub name sharding_constraint".split()
)

# Continuous in every floating operand, poles apart: a pole is no jump between finite values. Every primitive
# that is in neither this set nor CONTINUOUS_IF is taken to jump (comparisons, rounding, arg-maxima, casts,
# the branch cut of atan2, decompositions with pivots or signs).
CONTINUOUS: Names = SPREADING_NONFINITE - {"convert_element_type"} | frozenset(
    "abs acos acosh asin asinh atan atanh bessel_i0e bessel_i1e cbrt cholesky clamp complex conj "
    "conv_general_dilated cos cosh cumlogsumexp cummax cummin cumprod digamma div dynamic_update_slice "
    "erf erf_inv erfc exp exp2 expm1 fft igamma igamma_grad_a igammac imag integer_pow lgamma log log1p "
    "log2 logistic max min one_minus_square polygamma polynomial pow random_gamma_grad real reduce_max "
    "reduce_min reduce_precision reduce_prod regularized_incomplete_beta rsqrt select_n sin sinh sqrt "
    "square tan tanh triangular_solve zeta scatter-add scatter-sub scatter-mul scatter-min scatter-max "
    "scatter_add scatter_sub scatter_mul scatter_min scatter_max".split()
)

# A polynomial in what its operands are polynomials in.
POLYNOMIAL_ALWAYS: Names = frozenset(
    "add add_any broadcast_in_dim concatenate copy cumsum dot_general mul neg pad reduce_sum reshape rev "
    "slice split square squeeze stack stop_gradient sub tile transpose".split()
)


def cancelled_shifts(jaxpr: Any) -> set[int]:
    """Positions of the equations `where(isfinite(c), c, 0)` whose result is seen behind a stop_gradient only.

    That is how a log-sum-exp writes the maximum it subtracts and adds back: whatever the shift is, and
    wherever it jumps, it cancels.
    """
    maker = {v: eqn for eqn in jaxpr.eqns for v in eqn.outvars}
    users: dict[Any, set[str]] = {v: {"an output"} for v in jaxpr.outvars if not isinstance(v, Literal)}
    for eqn in jaxpr.eqns:
        for v in eqn.invars:
            if not isinstance(v, Literal):
                users.setdefault(v, set()).add(eqn.primitive.name)

    def is_shift(eqn: Any) -> bool:
        if eqn.primitive.name != "select_n" or len(eqn.invars) != 3 or isinstance(eqn.invars[0], Literal):
            return False
        predicate, _, kept = eqn.invars
        test = maker.get(predicate)
        if test is None or test.primitive.name != "is_finite" or test.invars[0] is not kept:
            return False
        return users.get(eqn.outvars[0]) == {"stop_gradient"}

    return {position for position, eqn in enumerate(jaxpr.eqns) if is_shift(eqn)}


# The parameter with the program inside, of calls that run it once on their own operands.
INNER_PROGRAM: dict[str, str] = {
    **dict.fromkeys(["jit", "pjit", "remat", "remat2", "checkpoint"], "jaxpr"),
    **dict.fromkeys(["closed_call", "core_call", "custom_vjp_call", "custom_jvp_call"], "call_jaxpr"),
    "custom_vjp_call_jaxpr": "fun_jaxpr",
}
