"""All that a fit is between two steps, and how it moves to another plan."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree

from autovi.model.traced import pseudo_inputs
from autovi.plan.plan import Block
from autovi.program.program import Program
from autovi.run.moving import check_same_coordinates, moved_blocks
from autovi.run.optimizer import MANY, Optimizer, joined, split
from autovi.run.tables import Table


class Bad(NamedTuple):
    """In how many steps elements of the gradient were not finite: those of all parameters but tables (up to 255, as a
    tree of the parameters, or as one vector where it has many leaves), of the tables by block, and of what estimators
    learn, in the order of `learning`."""

    whole: Any
    rows: dict[str, jax.Array]
    own: jax.Array


class State(NamedTuple):
    """What the next step needs.

    `params` are trained, `constants` are not (a block's fixed map, how centred a site
    is). `average` is the running mean of the parameters,
    `optimizer` its memory. `tables` hold these three for blocks with a row for each element of a subsampled plate.
    `estimators` are the estimators' own parameters. `step` counts all steps, `skipped` those that changed nothing,
    `bad_terms` and `bad_params` in how many of them a cost term or a gradient was not finite.
    """

    params: Any
    constants: Any
    optimizer: Any
    average: Any
    tables: dict[str, Table]
    estimators: Any
    estimator_optimizers: Any
    rng_key: jax.Array
    step: jax.Array
    skipped: jax.Array
    bad_terms: jax.Array  # in the order of the program's cost terms
    bad_params: Bad

    @property
    def fitted(self) -> Any:
        """The parameters to be used: their running mean, with the constants beside them."""
        average = self.all_averages
        return {**average, "constants": self.constants} if self.constants else average

    @property
    def all_params(self) -> Any:
        """The parameters, those in tables too."""
        return joined(self.params, {n: t.rows.params for n, t in self.tables.items()})

    @property
    def all_averages(self) -> Any:
        """The running mean of the parameters, those in tables too."""
        return joined(self.average, {n: t.rows.mean for n, t in self.tables.items()})

    def started_at(self, program: Program, optimizer: Optimizer, params: Any) -> State:
        """This state before the first step with other parameters."""
        whole, tables = split(program, params)
        whole = jax.tree.map(lambda x, like: jnp.array(x, like.dtype), whole, self.params)
        made = {n: optimizer.init_table(program.node_site(n), p) for n, p in tables.items()}
        average, memory = jax.tree.map(jnp.copy, whole), optimizer.init(whole)
        return self._replace(params=whole, average=average, optimizer=memory, tables=made)

    def moved_to(
        self,
        new: Program,
        old: Program,
        optimizer: Optimizer,
        rng_key: jax.Array,
        constants: Mapping[str, Any] | None = None,
    ) -> State:
        """The same q under another plan of the same model: other blocks, estimators, or fixed maps before the blocks.

        Blocks that the plans share keep their parameters and the optimizer's memory of them; those that are made of
        others start from the same distribution; estimators that stay keep what they have learned; counters go on.
        `constants` are those of maps that the new plan brings, by block.

        Raises:
            ValueError: a block of the new plan cannot hold q as it is, or a site is in other coordinates, in which the
                same parameters are another q; the message names the block or the site.
        """
        constants = {**self.constants, **(constants or {})}
        check_same_coordinates(old.traced, self.constants, new.traced, constants)
        pseudo_data = [c for n in new.traced.noncentred for c in pseudo_inputs(n) if c in constants]
        constants = {name: constants[name] for name in [*(b.name for b in new.plan.blocks if b.map), *pseudo_data]}
        kept = same_blocks(old, new, self.constants, constants)
        move = lambda guide: moved_blocks(old, guide, self.constants, new, constants, kept)  # noqa: E731
        before, means = self.all_params, self.all_averages
        params, params_of = split(new, {**before, "guide": move(before["guide"])})
        average, mean_of = split(new, {**means, "guide": move(means["guide"])})
        tables = {n: optimizer.init_table(new.node_site(n), p, mean_of[n]) for n, p in params_of.items()}
        counted = dict(zip(old.term_names, self.bad_terms.tolist(), strict=True))
        estimators, states = init_estimators(new, rng_key)
        for block in new.plan.blocks:
            if block in old.plan.blocks and block.name in self.estimators:
                estimators[block.name] = self.estimators[block.name]
                states[block.name] = self.estimator_optimizers[block.name]
        return self._replace(
            params=params,
            constants=constants,
            optimizer=optimizer.moved(self.optimizer, self.params, params, kept),
            average=average,
            tables={n: self.tables[n] if n in kept and n in self.tables else t for n, t in tables.items()},
            estimators=estimators,
            estimator_optimizers=states,
            bad_terms=jnp.array([counted.get(t, 0) for t in new.term_names], jnp.int32),
            bad_params=init_bad(params, tables, estimators),
        )


def same_blocks(old: Program, new: Program, before: Mapping[str, Any], after: Mapping[str, Any]) -> frozenset[str]:
    """The blocks of the new plan whose parameters mean the same as in the old one, whatever their estimators."""
    theirs = {b.name: b for b in old.plan.blocks}
    given = lambda program, b: [program.plan.block(p).sites for p in b.parents]  # noqa: E731

    def same(b: Block) -> bool:
        other = theirs.get(b.name)
        if other is None or other.distribution != b.distribution or given(old, other) != given(new, b):
            return False
        return before.get(b.name) is after.get(b.name)

    return frozenset(b.name for b in new.plan.blocks if same(b))


def init_state(program: Program, params: Any, optimizer: Optimizer, rng_key: jax.Array) -> State:
    """The state before the first step."""
    estimators, states = init_estimators(program, jax.random.fold_in(rng_key, 0))
    whole, tables = split(program, params)
    zero = jnp.zeros((), jnp.int32)
    return State(
        params=whole,
        constants=program.constants(),
        optimizer=optimizer.init(whole),
        average=jax.tree.map(jnp.copy, whole),
        tables={n: optimizer.init_table(program.node_site(n), table) for n, table in tables.items()},
        estimators=estimators,
        estimator_optimizers=states,
        rng_key=rng_key,
        step=zero,
        skipped=zero,
        bad_terms=jnp.zeros(len(program.term_names), jnp.int32),
        bad_params=init_bad(whole, tables, estimators),
    )


def init_estimators(program: Program, rng_key: jax.Array) -> tuple[dict[str, Any], dict[str, Any]]:
    """The estimators' own parameters before the first step, and their optimizers' states."""
    params = program.estimator_params(rng_key)
    return params, {b.name: b.estimator.optimizer.init(params[b.name]) for b in program.plan.blocks if b.name in params}


def learning(estimators: Mapping[str, Any]) -> list[str]:
    """The blocks whose estimators have parameters of their own."""
    return sorted(n for n, own in estimators.items() if jax.tree.leaves(own))


def init_bad(whole: Any, tables: Collection[str], estimators: Mapping[str, Any]) -> Bad:
    """Nothing was bad yet."""
    counts = jax.tree.map(lambda x: jnp.zeros(jnp.shape(x), jnp.uint8), whole)
    joined = ravel_pytree(counts)[0] if len(jax.tree.leaves(counts)) > MANY else counts
    return Bad(joined, {n: jnp.zeros((), jnp.int32) for n in tables}, jnp.zeros(len(learning(estimators)), jnp.int32))
