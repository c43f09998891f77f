"""The exit agent: a rule at run time, behind any SNN, batched, one time step at a time.

The decision-making agent of Li, Jones and Furber (ICCV 2023): it accumulates the logits of each step, scores them and says
who leaves. State goes in and comes out, nothing is kept inside: each tensor of the state has the batch first, so that
dropping finished samples, or putting new ones into their places, is one index a tensor, and samples of one batch may be at
different steps. It leaves exactly where `Rule.exit_steps` does on traces of the same logits: both run the same functions.

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

from dynconf_core.confidence.learned import next_recent
from dynconf_core.confidence.scores import SCORES
from dynconf_core.errors import InputError
from dynconf_core.exit.rule import Rule


class AgentState(NamedTuple):
    """What the agent remembers of n samples; `AgentState(*(tensor[keep] for tensor in state))` keeps some of them.

    Attributes:
        accumulated: z (n, C) float64, the sum of the logits so far.
        step: (n,) int64, how many steps each sample has had; 0 at first.
        prediction: (n,) int64, argmax z; -1 at first.
        standing: (n,) int64, for how many steps the prediction has stood unchanged; 0 at first.
        recent: r (n, C) float64, the average of the logits that halves with every step (`next_recent`); 0 at first; (n, 0)
            where the rule does not look at it.
    """

    accumulated: Tensor
    step: Tensor
    prediction: Tensor
    standing: Tensor
    recent: Tensor


# So that `torch.export.save` and `load` take an agent's program, and without unpickling more than tensors and this.
_register_namedtuple(AgentState, serialized_type_name="dynconf_core.exit.agent.AgentState")
torch.serialization.add_safe_globals([AgentState])


class ExitAgent(nn.Module):
    """Scores one time step after another and says which samples leave.

    It holds no parameters and no buffers, so that no `.half()` of the network it stands behind can touch its threshold.

    Attributes:
        rule: the exit rule.
    """

    def __init__(self, rule: Rule) -> None:
        super().__init__()
        self.rule = rule

    @classmethod
    def from_json(cls, source: str | os.PathLike[str] | Mapping[str, Any]) -> ExitAgent:
        """Of a `rule.json`, or of what it holds.

        Raises:
            InputError: naming the file or the field that is missing or wrong.
        """
        return cls(Rule.from_json(source) if isinstance(source, Mapping) else Rule.load(source))

    def initial(self, samples: int, classes: int, device: torch.device | str = "cpu") -> AgentState:
        """The state of `samples` fresh samples before their first step, C = `classes`."""
        return AgentState(
            accumulated=torch.zeros(samples, classes, dtype=torch.float64, device=device),
            step=torch.zeros(samples, dtype=torch.int64, device=device),
            prediction=torch.full((samples,), -1, dtype=torch.int64, device=device),
            standing=torch.zeros(samples, dtype=torch.int64, device=device),
            recent=torch.zeros(samples, classes if self.rule.learned else 0, dtype=torch.float64, device=device),
        )

    def forward(self, logits: Tensor, state: AgentState) -> tuple[Tensor, Tensor, Tensor, AgentState]:
        """One time step.

        Args:
            logits: (n, C) of any floating type: the output of this step, not the running sum.
            state: of the same n samples, as `initial` or the step before gave it.

        Returns:
            prediction (n,) int64, the class; score (n,) float64, larger is surer; exits (n,) bool, whether the score is
            greater than the threshold (at step T the caller ends a sample in any case); the state after this step.

        Raises:
            InputError: for logits of another shape than the state's.
        """
        if logits.shape != state.accumulated.shape:
            raise InputError(
                f"logits has the shape {tuple(logits.shape)}, the agent's state {tuple(state.accumulated.shape)}; "
                "give the logits (n, C) of one time step of the samples in the state."
            )
        outputs = logits.detach().to(torch.float64)
        accumulated = state.accumulated + outputs
        step = state.step + 1
        prediction = accumulated.argmax(dim=-1)
        standing = state.standing * (prediction == state.prediction) + 1
        recent = state.recent
        if self.rule.learned is not None:
            recent = next_recent(recent, outputs)
            score = self.rule.learned.score(accumulated, recent, step)
        elif self.rule.measure == "patience":
            score = standing.to(torch.float64)
        else:
            score = SCORES[self.rule.measure](self.rule.smoothing.smoothed(accumulated, step))
        return prediction, score, score > self.rule.threshold, AgentState(accumulated, step, prediction, standing, recent)
