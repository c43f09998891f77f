"""A trial of what comes from outside the project, in seconds, before hours of training rest on it.

The project's own implementations are held to their protocols by tests. Somebody else's are tried on the spot: the network is
made, run on one image and traced; its neurons and the measures of confidence are stepped a few times.
"""

from collections.abc import Sequence
from pathlib import Path

from dynconf_core.data.dataset import DATASETS
from dynconf_core.errors import InputError
from dynconf_core.experiment.images import images_of
from dynconf_core.experiment.plan import Plan
from dynconf_core.networks.architecture import ARCHITECTURES
from dynconf_core.schemes.scheme import SCHEMES


def try_out(plans: Sequence[Plan], data: Path) -> None:
    """Raise ``InputError`` where a data set (below ``data``), network, scheme, neuron model or measure from outside cannot
    work."""
    for plan in plans:
        try:
            if not DATASETS.own(plan.data.source):
                _try_data(plan, data)
                _check_kind(plan)
            if not all((ARCHITECTURES.own(plan.architecture), SCHEMES.own(plan.method), DATASETS.own(plan.data.source))):
                _try_network(plan)
        except InputError as error:
            raise InputError(f"setting {plan.setting!r}: {error}") from error
        if plan.fine_tuning:
            _try_fine_tuning(plan)
    if any(":" in plan.search.rule for plan in plans) or _installed_measures():
        _try_measures(plans)


def _try_data(plan: Plan, data: Path) -> None:
    images_of(plan.data, "calibration", data)
    found = len(images_of(plan.data, "train", data))
    if found != plan.data.train:
        raise InputError(
            f"data set {plan.data.name!r}: {found} images train; by its entry, train less calibration, {plan.data.train} do."
        )


def _try_fine_tuning(plan: Plan) -> None:
    from dynconf_core.activations.potential import learn_potentials
    from dynconf_core.neurons.model import NEURONS, NeuronModel

    if NEURONS.get(plan.scheme.neurons).slope is NeuronModel.slope:
        raise InputError(
            f"setting {plan.setting!r}: fine_tune_epochs={plan.fine_tuning.epochs}, but neurons of the model "
            f"{plan.scheme.neurons!r} have no surrogate derivative: give its class a method slope(state), or leave it at 0."
        )
    if plan.fine_tuning.potentials:
        learn_potentials(plan.scheme.activation(plan.recipe.initial_threshold)())


def _check_kind(plan: Plan) -> None:
    """Raise ``InputError`` for vectors or signals where the network is one of the project's, which are for images."""
    shape = plan.data.shape
    if ARCHITECTURES.own(plan.architecture) and len(shape) != 3:
        kind = {1: "vectors (F,)", 2: "signals (C, L)"}.get(len(shape), "samples")
        raise InputError(
            f"data set {plan.data.name!r} holds {kind} of the shape {shape}, and the network {plan.architecture} is for images "
            "(C, H, W): name a setting with an architecture of your own, or convert a network that you trained, with `dynconf "
            "convert --network package.module:function --dataset PATH`."
        )


def _installed_measures() -> bool:
    from importlib.metadata import entry_points

    return bool(entry_points(group="dynconf.measures"))


def _try_measures(plans: Sequence[Plan]) -> None:
    from dynconf_core.choosing.candidates import measures_compared
    from dynconf_core.confidence.measure import measures_of
    from dynconf_core.confidence.trial import check_measure

    for plan in plans:
        for measure in measures_of(measures_compared(plan.search.rule)):
            check_measure(measure)


def _try_network(plan: Plan) -> None:
    import torch
    from torch import Tensor

    from dynconf_core.conversion.options import ConversionOptions
    from dynconf_core.graph.trace import traced
    from dynconf_core.neurons.model import NEURONS
    from dynconf_core.neurons.trial import check_model
    from dynconf_core.schemes.network import described

    what = f"the network {plan.architecture} with activations of {plan.method}"
    classes, image = plan.data.classes, torch.zeros(1, *plan.data.shape)
    try:
        network = described({**plan.network(), "initial_threshold": plan.recipe.initial_threshold}, plan.seed)
        with torch.no_grad():
            logits = network.eval()(image)
    except InputError:
        raise
    except Exception as error:  # somebody else's code raises nearly anything
        raise InputError(f"{what} fails on an image {tuple(image.shape)}: {type(error).__name__}: {error}.") from error
    if not isinstance(logits, Tensor) or logits.shape != (1, classes):
        shape = tuple(logits.shape) if isinstance(logits, Tensor) else type(logits).__name__
        raise InputError(f"{what} gives {shape} for one image: logits (1, {classes}) are needed.")
    activations = traced(network, image).of_kind("activation")
    if not activations:
        raise InputError(f"{what} has no activation that could become neurons: use the one that make is given.")
    try:
        options = ConversionOptions(time_steps=plan.time_steps).changed(plan.scheme.conversion(plan.time_steps))
    except InputError as error:
        raise InputError(f"the conversion of the scheme {plan.method!r}: {error}") from error
    meant, first = NEURONS.get(plan.scheme.neurons), activations[0].settings
    model = options.model() or NEURONS.get(first.get("neurons", "integrate-and-fire")).of(first.get("levels"))
    if type(model) is not meant:
        raise InputError(
            f"conversion scheme {plan.method!r}: neurons={plan.scheme.neurons!r}, but its activations become "
            f"{model.name!r}: name the same."
        )
    check_model(model, plan.time_steps)
