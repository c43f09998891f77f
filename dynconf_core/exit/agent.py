"""The exit agent: a rule at run time, behind any SNN, batched, one time step at a time.

The decision-making agent of Li, Jones and Furber (ICCV 2023): it accumulates the logits of each step, scores them and says
which samples exit. The state is passed in and returned; nothing is stored inside. The samples of a batch may be at different
steps, so that finished samples can be dropped (`state.take`) or replaced by new ones (`state.put`). On traces of the same
logits it exits exactly where `Rule.exit_steps` does, because both run the same functions.

    agent = ExitAgent.from_json("rule.json")
    state = agent.initial(samples=len(images), classes=10, device=images.device)
    for step in range(time_steps):
        prediction, score, exits, state = agent(snn(images), state)  # the logits of this step alone (n, C)
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.utils._pytree import _register_namedtuple

from dynconf_core.arguments import instance, whole
from dynconf_core.confidence.measure import MeasureLike, step_outputs
from dynconf_core.confidence.trial import check_measure
from dynconf_core.errors import InputError
from dynconf_core.exit.readout import check_readable
from dynconf_core.exit.rule import Rule
from dynconf_core.machine import any_device
from dynconf_core.wording import an


class AgentState(NamedTuple):
    """What the agent remembers of n samples, batch first in every tensor.

    Attributes:
        accumulated: z (n, C) float64, the sum of the logits so far.
        step: (n,) int64, the number of steps each sample has had, initially 0.
        memory: the state of the measure, as described by its `initial`.
        decoding: the state of the rule's readout, as described by its `initial`; empty without a readout.
    """

    accumulated: Tensor
    step: Tensor
    memory: tuple[Tensor, ...]
    decoding: tuple[Tensor, ...] = ()

    def take(self, rows: Tensor) -> AgentState:
        """The state of some of the samples: `rows` holds their indices, or is a mask (n,) bool."""
        memory, decoding = (tuple(tensor[rows] for tensor in kept) for kept in (self.memory, self.decoding))
        return AgentState(self.accumulated[rows], self.step[rows], memory, decoding)

    def put(self, rows: Tensor, fresh: AgentState) -> AgentState:
        """The state with the samples at the indices `rows` (k,) int64 replaced by the k samples of `fresh`; nothing is
        overwritten."""
        kept, new = ((one.accumulated, one.step, *one.memory, *one.decoding) for one in (self, fresh))
        accumulated, step, *rest = (old.index_copy(0, rows, of_new) for old, of_new in zip(kept, new, strict=True))
        return AgentState(accumulated, step, tuple(rest[: len(self.memory)]), tuple(rest[len(self.memory) :]))


# Lets `torch.export.save` and `load` handle an agent's program while unpickling nothing but tensors and this class.
_register_namedtuple(AgentState, serialized_type_name="dynconf_core.exit.agent.AgentState")
torch.serialization.add_safe_globals([AgentState])


class ExitAgent(nn.Module):
    """Scores one time step after another and says which samples exit.

    It has no parameters and no buffers, so that converting the network in front of it with `.half()` cannot affect its
    threshold.

    Attributes:
        rule: the exit rule.
    """

    def __init__(self, rule: Rule) -> None:
        super().__init__()
        instance("rule", rule, Rule, "give a Rule, such as Rule.load('rule.json')")
        check_measure(rule.measure)
        self.rule = rule

    @classmethod
    def from_json(cls, source: str | os.PathLike[str] | Mapping[str, Any], measure: MeasureLike | None = None) -> ExitAgent:
        """An agent for a `rule.json` or its content; `measure` as in `Rule.load`.

        Raises:
            InputError: naming the file or the field that is missing or wrong.
        """
        return cls(Rule.from_json(source, measure) if isinstance(source, Mapping) else Rule.load(source, measure))

    def initial(self, samples: int, classes: int, device: torch.device | str = "cpu") -> AgentState:
        """The state of `samples` new samples before their first step, with C = `classes`.

        Raises:
            InputError: for numbers that are none, or if the rule's readout is for another number of classes.
        """
        if min(samples := whole("samples", samples), classes := whole("classes", classes)) < 0:
            raise InputError(f"samples={samples}, classes={classes}: give numbers from 0.")
        device, readout = any_device(device), self.rule.readout
        if readout is not None:
            check_readable(readout, classes)
        return AgentState(
            torch.zeros(samples, classes, dtype=torch.float64, device=device),
            torch.zeros(samples, dtype=torch.int64, device=device),
            self.rule.measure.initial(samples, classes, device),
            () if readout is None else readout.initial(samples, device),
        )

    def forward(self, logits: Tensor, state: AgentState) -> tuple[Tensor, Tensor, Tensor, AgentState]:
        """One time step.

        Args:
            logits: (n, C) of any floating type: the output of this step, not the running sum.
            state: of the same n samples, from `initial` or the previous step.

        Returns:
            prediction (n,) int64, the class, read behind the readout; score (n,) float64, larger means more confident; exits
            (n,) bool, whether the score is greater than the threshold (at its end, T or earlier, the caller ends a sample
            itself); the new state.

        Raises:
            InputError: for logits that are not a tensor, or whose shape is not that of the state.
        """
        if not isinstance(logits, Tensor):
            raise InputError(f"logits is {an(logits)}; give a tensor (n, C), such as torch.from_numpy(logits).")
        if not isinstance(state, AgentState):
            raise InputError(f"state is {an(state)}; give what agent.initial(samples, classes) or the step before returned.")
        if logits.shape != state.accumulated.shape:
            raise InputError(
                f"logits has the shape {tuple(logits.shape)}, the agent's state {tuple(state.accumulated.shape)}; "
                "give the logits (n, C) of one time step of the samples in the state."
            )
        of_step = logits.detach().to(torch.float64)
        accumulated = state.accumulated + of_step
        step, readout = state.step + 1, self.rule.readout
        output, total, decoding = of_step, accumulated, state.decoding
        if readout is not None:
            output, total, decoding = readout.step(of_step, accumulated, step, decoding)
        outputs = step_outputs(self.rule.measure, self.rule.smoothing, output, total, step)
        score, memory = self.rule.measure.step(outputs, state.memory)
        score = score.to(torch.float64)
        return outputs.prediction, score, score > self.rule.threshold, AgentState(accumulated, step, memory, decoding)
