"""`autovi.calibrate`: are the posteriors of a model right, over data that the model makes up?"""

from __future__ import annotations

import inspect
import os
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import closing, nullcontext
from dataclasses import fields, replace
from itertools import groupby
from typing import Any

import jax
import numpy as np
from tqdm.auto import tqdm

from autovi.calibration import fits
from autovi.calibration.generating import Generating, generating
from autovi.calibration.keeping import KeptOutcomes, asked_of
from autovi.calibration.outcomes import Outcome, outcome_of
from autovi.calibration.quantities import LOG_LIKELIHOOD, Quantities, check_functions, chosen_sites
from autovi.calibration.report import Calibration
from autovi.calibration.simulating import Simulation, Simulator
from autovi.checkpoints.identity import identity_of
from autovi.checkpoints.journal import Checkpoint, as_checkpoint
from autovi.fitting import fit
from autovi.keys import as_key
from autovi.model.digest import digest
from autovi.model.inputs import Inputs
from autovi.model.target import Target
from autovi.model.targets import as_target
from autovi.model.unchanged import nothing_between
from autovi.plan.requests import as_objective
from autovi.preparation import Options, prepare
from autovi.result.fit import Fit
from autovi.run.checks import check_count
from autovi.run.engine import Engine
from autovi.run.interruption import Interruption

GIVE_UP = 10  # first simulations whose fits all raise: it is not the data


def calibrate(
    model: Callable,
    data: Any = None,
    *,
    num_simulations: int = 200,
    sites: str | Sequence[str] | None = None,
    quantities: Mapping[str, Callable] | None = None,
    generator: Callable | None = None,
    observed: Mapping[str, str] | None = None,
    level: float = 0.01,
    rng_key: int | jax.Array = 0,
    allow_nan: Collection[str] = (),
    checkpoint: str | os.PathLike[str] | Checkpoint | None = None,
    progress_bar: bool = True,
    **options: Any,
) -> Calibration:
    r"""Simulation-based calibration of the whole of `fit`: model, plan, optimization, and the draws that come out.

    A truth is drawn from the prior and data from the model given the truth; the data are fitted; and the truth is
    ranked among the posterior draws. Over many simulations ranks are uniform if the posteriors are right on average
    over the prior. Ranks that pile up at both ends say that posteriors are too narrow, in the middle too wide, at one
    end that they lie beside the truth. Three exact tests are made of each quantity, corrected for how many there are.

    Talts et al. (2018), "Validating Bayesian inference algorithms with simulation-based calibration"; Modrák et al.
    (2023), "Simulation-based calibration checking for Bayesian computation: the choice of test quantities shapes
    sensitivity"; Säilynoja, Bürkner and Vehtari (2022) for the bands.

    Args:
        model: the NumPyro model that is fitted; or, with `generator`, any target.
        data: as for `fit`. Which arguments are observed is found, and of these only shape and type count; the others
            are what they are in every simulation. An observed argument may be left out, or None, where it has the name
            of its site, or `observed` says which site it is of.
        num_simulations: how many. With n of them a bias of about 5 / sqrt(n) posterior sds is seen.
        sites: latent and deterministic sites that are ranked, names or globs; None: all. Of larger ones 50 elements.
        quantities: name -> function of one draw (a dict from site to value) and of the data (as they were passed, with
            simulated observations), in JAX, that returns a number or an array: what is ranked besides. The log
            likelihood of all observations is ranked in any case, since it feels the data.
        generator: another model that takes the same data, by which truths and data are drawn; None: `model` itself.
            Sites of the same name and shape are ranked.
        observed: argument -> the site it is the observation of, for arguments that `data` leave out.
        level: the chance that right posteriors are called miscalibrated, over all quantities and tests together.
        rng_key: an integer or a JAX key. Each simulation has a key of its own, so that the first 100 of 200 are those
            of 100.
        allow_nan: as for `fit`.
        checkpoint: a folder, or a `Checkpoint`, in which finished simulations are kept: the same call goes on from
            them, with more simulations too.
        progress_bar: show how many are done.
        options: all else goes to `fit`: `guide=`, `families=`, `num_steps=`, `num_draws=` ...

    Returns:
        A `Calibration`. What came of each simulation is in it: data that were not finite and fits that raised are
        counted and named, and have no ranks. Ctrl-C ends it with the simulations that are done.

    Raises:
        ValueError, TypeError: before the first fit, for data, names or models that cannot be right: nothing observed,
            observations that are computed from an argument, or that have a part in the model besides `obs=`; a factor
            or an improper prior, from which nothing can be drawn. If the fits of the first ten simulations all raise,
            the error of the first.

    Example:
        >>> calibration = autovi.calibrate(model, {"x": x, "y": y}, num_simulations=200)
        >>> print(calibration.verdict)
        >>> calibration.plot().savefig("calibration.png")
    """
    check_count("num_simulations", num_simulations)
    _check_level(level)
    _check_options(options)
    place, key = as_checkpoint(checkpoint), as_key(rng_key)
    if isinstance(model, Target) and generator is None:
        raise TypeError(
            f"model: a {type(model).__name__} is a density alone, which does not say how to draw from it; give "
            "generator=, a NumPyro model of the same data"
        )
    made = generating(model if generator is None else generator, data, allow_nan, dict(observed or {}), key)
    simulator = Simulator(made, key)
    template = next(simulator.each([0]))
    engine, bound = prepare(model, template.inputs, _plan_options(options, allow_nan))
    # Once for all fits: a model that reads the clock, say, is not the same from run to run.
    engine.use_unchanged(model, engine.guide, bound)
    ranked = _quantities(model, made, template, engine, sites, quantities, data)
    asked = {**options, **({"allow_nan": allow_nan} if allow_nan else {})}

    run = _Run(model, simulator, ranked, asked, num_simulations, progress_bar)
    with _kept(place, engine, made, asked, ranked, key, generator) as kept, nothing_between():
        status = run(kept)
    outcomes = sorted(run.outcomes.values(), key=lambda outcome: outcome.number)
    return Calibration(
        quantities=run.names,
        outcomes=tuple(outcomes),
        num_simulations=num_simulations,
        level=level,
        status=status,
        notes=_notes(simulator, made),
        simulate=lambda number: next(simulator.each([number])),
        rebuild=ranked.rebuild,
    )


class _Run:
    """The simulations of a calibration, one after the other, as far as they are not there already."""

    def __init__(
        self,
        model: Callable,
        simulator: Simulator,
        quantities: Quantities,
        options: Mapping[str, Any],
        num_simulations: int,
        progress_bar: bool,
    ):
        self.model, self.simulator, self.quantities, self.options = model, simulator, quantities, options
        self.num_simulations, self.progress_bar = num_simulations, progress_bar
        self.outcomes: dict[int, Outcome] = {}
        self.kept_names: tuple[str, ...] = ()

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the quantities, once one simulation has been fitted."""
        return self.quantities.names or self.kept_names

    def __call__(self, kept: KeptOutcomes | None) -> str:
        """Makes those that are missing, and says how it ended."""
        if kept is not None:
            self.outcomes = {o.number: o for o in kept.found if o.number < self.num_simulations}
            self.kept_names = kept.names
        missing = [number for number in range(self.num_simulations) if number not in self.outcomes]
        bar = tqdm(total=self.num_simulations, initial=len(self.outcomes), disable=not self.progress_bar, unit="fit")
        with Interruption() as interruption, bar:
            try:
                for outcome in self._each(missing, interruption):
                    self.outcomes[outcome.number] = outcome
                    if kept is not None:
                        kept.add(outcome, self.names)
                    bar.update()
            except KeyboardInterrupt:
                interruption.requested = True
            finally:
                if kept is not None:
                    kept.write(self.names)
        return "stopped" if interruption.requested else "finished"

    def _each(self, numbers: Sequence[int], interruption: Interruption) -> Iterator[Outcome]:
        """What comes of simulations, until Ctrl-C, by which a fit that is under way is cut short, and left out."""
        for _, group in groupby(self.simulator.each(numbers), lambda simulation: simulation.number // fits.AT_ONCE):
            simulations = list(group)
            for simulation in simulations:
                if lost := simulation.not_finite:
                    yield Outcome(simulation.number, "not_finite", f"{lost[0]!r} has NaN or an infinity")
            finite = [simulation for simulation in simulations if not simulation.not_finite]
            over = lambda: interruption.requested  # noqa: E731
            for simulation, found, seconds in fits.fits_of(self.model, finite, self.options, over):
                if over() and _was_cut_short(found):
                    continue
                outcome = outcome_of(simulation, found, self.quantities, seconds)
                if isinstance(found, Exception):
                    self._check_raised(found)
                yield outcome
            if over():
                return

    def _check_raised(self, error: Exception) -> None:
        """Raises what a fit raised, where all fits so far did."""
        before = [o for o in self.outcomes.values() if o.status != "not_finite"]
        if len(before) == GIVE_UP - 1 and all(o.status == "raised" for o in before):
            error.add_note(f"calibrate: the fits of the first {GIVE_UP} simulated data sets all raised an error")
            raise error


def _was_cut_short(made: Any) -> bool:
    """Did Ctrl-C end a fit before it was done, or before it was begun?"""
    return isinstance(made, KeyboardInterrupt) or (isinstance(made, Fit) and made.progress.interrupted)


def _quantities(
    model: Callable,
    made: Generating,
    template: Simulation,
    engine: Engine,
    sites: Any,
    functions: Any,
    data: Any,
) -> Quantities:
    own = engine.full.traced.sites
    graph = engine.full.traced.graph
    latent = {n: site.full(site.shape) for n, site in own.latents.items()}
    shapes = {n: tuple(graph.outputs[f"value:{n}"].aval.shape) for n in own.deterministics}
    chosen = chosen_sites(template.truth, {**latent, **shapes}, sites)
    whole = all(n in template.truth and template.truth[n].shape == shape for n, shape in latent.items())
    likelihood = whole and not own.params and LOG_LIKELIHOOD not in own.samples
    taken = {*own.samples, *own.deterministics, LOG_LIKELIHOOD}
    asked = check_functions(functions, taken)
    if not chosen and not asked and not likelihood:
        raise ValueError(
            f"generator: it has no site in common with the model, of the same name and shape; expected some of "
            f"{list(latent)}, got {list(template.truth)}"
        )
    lengths = {plate.name: plate.size for plate in own.plates.values()}
    return Quantities(as_target(model), lengths, chosen, asked, _as_given(data), likelihood)


def _as_given(data: Any) -> Callable[[Inputs, Mapping[str, Any]], Any]:
    """The function from inputs to data in the form in which the user gave them."""

    def rebuild(inputs: Inputs, arrays: Mapping[str, Any]) -> Any:
        args, kwargs = inputs.rebuild(dict(arrays))
        return args if isinstance(data, tuple) and args else kwargs

    return rebuild


def _plan_options(options: Mapping[str, Any], allow_nan: Collection[str]) -> Options:
    known = {f.name for f in fields(Options)}
    found = {name: value for name, value in options.items() if name in known}
    if "objective" in found:
        found["objective"] = as_objective(found["objective"])
    return Options(**{**found, "allow_nan": allow_nan})


def _kept(
    place: Checkpoint | None,
    engine: Engine,
    made: Generating,
    options: Mapping[str, Any],
    quantities: Quantities,
    key: jax.Array,
    generator: Callable | None,
) -> Any:
    """The folder of a calibration as a context; None where none is asked for."""
    if place is None:
        return nullcontext()
    blank = {name: np.zeros_like(array) for name, array in made.inputs.arrays.items() if name in made.arguments}
    inputs = replace(made.inputs, arrays={**made.inputs.arrays, **blank})
    decides = {
        **asked_of(options),
        "rng_key": key,
        "generator": None if generator is None else digest(generator),
        "sites": list(quantities.sites),
        "quantities": {name: digest(function) for name, function in quantities.functions.items()},
    }
    return closing(KeptOutcomes(place, identity_of(engine, inputs, decides)))


def _notes(simulator: Simulator, made: Generating) -> tuple[str, ...]:
    notes = []
    if simulator.varying:
        listed = ", ".join(sorted(simulator.varying))
        notes.append(f"{listed}: computed from observations as they are passed, so that no truth of it is known")
    if masked := [name for name, site in made.sites.latents.items() if site.masked]:
        notes.append(f"{', '.join(masked)}: masked, which truths, drawn from the whole prior, do not feel")
    return tuple(notes)


def _check_level(level: Any) -> None:
    if not isinstance(level, int | float) or not 0 < level < 1:
        raise ValueError(f"level: expected a number between 0 and 1, got {level!r}")


def _check_options(options: Mapping[str, Any]) -> None:
    known = [name for name in inspect.signature(fit).parameters if name not in ("model", "data")]
    if unknown := [name for name in options if name not in known]:
        raise TypeError(f"{unknown[0]}: neither calibrate nor fit has an argument of this name; fit has {known}")
