"""The sentences that may be said about a table of runs, by rules fixed before any result."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from wpt_bench.analysis.aggregate import NOT_SEPARATED, ONE_SEED, Estimate, three
from wpt_bench.analysis.factorial import PARTS, Factorial
from wpt_bench.analysis.published import held_against_published
from wpt_bench.analysis.reach import Reach
from wpt_bench.analysis.rows import MethodSummary, Part
from wpt_bench.analysis.scores import SCRATCH, RunTable

WPT = "wpt"
FEW_SEEDS = 10
"""Below this many seeds rliable's percentile intervals are clearly too narrow, and the page says so."""


def headline(table: RunTable, rows: Sequence[MethodSummary]) -> str:
    """Whether WPT saves online experience: yes or no only where its area under the curve is separated from scratch."""
    by_name = {row.name: row for row in rows}
    wpt, scratch = by_name.get(WPT), by_name.get(SCRATCH)
    question = "Does non-curated offline data save online experience?"
    if wpt is None or scratch is None:
        absent = " and ".join(name for name in (WPT, SCRATCH) if name not in by_name)
        return f"{question} These runs cannot say: {absent} not among the methods."
    if wpt.auc_against is None or scratch.auc is None or wpt.auc is None:
        absent = " and ".join(row.name for row in (wpt, scratch) if row.auc is None)
        return f"{question} Not known yet: {absent} incomplete."
    figures = (
        f"area under the curve {wpt.auc.value:.3f} with WPT, {scratch.auc.value:.3f} from scratch, difference "
        f"{_signed(wpt.auc_against)}"
    )
    if not wpt.auc_against.excludes_zero:
        return f"{question} Not shown at this budget of {table.budget:,} environment steps: {figures}."
    if wpt.auc_against.value < 0:
        return f"{question} No, at this budget of {table.budget:,} environment steps it costs some: {figures}."
    saved = f"; {_reached(wpt.scratch_cost.reach, table.budget)}" if wpt.scratch_cost else ""
    return f"{question} Yes, at this budget of {table.budget:,} environment steps: {figures}{saved}."


def glance(rows: Sequence[MethodSummary], embodiments: Mapping[str, Sequence[Part]], effects: Factorial) -> list[str]:
    """Where WPT saves online experience, at what cost, and which of its parts does it, as far as it is known."""
    said = []
    parts = {name: part for name, all_of in embodiments.items() for part in all_of if part.method == WPT}
    against = {name: part.against for name, part in parts.items() if part.against is not None}
    if against:
        said.append(f"Where: final IQM of {WPT} minus {SCRATCH}'s is {_each(against)}.")
    by_name = {row.name: row for row in rows}
    wpt, scratch = by_name.get(WPT), by_name.get(SCRATCH)
    if wpt and scratch and wpt.wall_clock and scratch.wall_clock:
        said.append(
            f"At what cost: a run of {WPT} takes {wpt.wall_clock / scratch.wall_clock:.2f} times the wall-clock of one "
            f"of {SCRATCH}, shared pre-training aside."
        )
    shown = effects.effects[: len(PARTS)] or effects.single
    if shown:
        said.append(
            f"Which part: on the IQM of the area under the curve, {_each({e.name: e.estimate for e in shown})}."
        )
    return said


def _each(estimates: Mapping[str, Estimate]) -> str:
    return "; ".join(
        f"{name} {_signed(estimate)}, {'separated from zero' if estimate.excludes_zero else 'not separated'}"
        for name, estimate in estimates.items()
    )


def sentences(table: RunTable, rows: Sequence[MethodSummary]) -> list[str]:
    """What the rows say: each method against learning from scratch, against published scores, and with what caution."""
    said = []
    scratch = next((row for row in rows if row.name == SCRATCH), None)
    complete = [row for row in rows if row.iqm is not None]
    if scratch is None or scratch.iqm is None:
        if complete:
            best = complete[0]
            said.append(f"{best.name} has the highest IQM, {best.iqm}.")
        why = "is not among the methods" if scratch is None else "is incomplete"
        said.append(f"{SCRATCH} {why}, so nothing is held against learning from scratch.")
    else:
        said += [_against(row, scratch, table.budget) for row in complete if row is not scratch]
    said += held_against_published(table)
    said += [row.incomplete for row in rows if row.incomplete]
    seeds = sorted({row.seeds for row in complete})
    if seeds and seeds[0] == 1:
        said.append("With one seed there is no interval, and no difference can be told from chance.")
    elif seeds and seeds[0] < FEW_SEEDS:
        said.append(
            f"rliable's intervals of {seeds[0]} seeds are too narrow (a bootstrap of few seeds covers less than it "
            "says); what is called separated rests on corrected ones."
        )
    return said


def _against(row: MethodSummary, scratch: MethodSummary, budget: int) -> str:
    steps = "" if row.online else " with 0 online steps"
    figures = f"{row.name} reaches IQM {row.iqm}{steps}, {SCRATCH} {scratch.iqm}"
    if row.against is None or row.against.corrected_low is None:
        return f"{figures}: {NOT_SEPARATED} ({ONE_SEED})."
    figures += f", difference {_signed(row.against)}"
    verdict = NOT_SEPARATED
    if row.against.excludes_zero:
        verdict = f"separated, {row.name} is {'higher' if row.against.value > 0 else 'lower'}"
    if row.scratch_cost is None:
        return f"{figures}: {verdict}."
    return f"{figures}: {verdict}; {_reached(row.scratch_cost.reach, budget)}."


def _signed(estimate: Estimate) -> str:
    return f"{three(estimate.value, '+')} {estimate.corrected}"


def _reached(reach: Reach, budget: int) -> str:
    """When the final score of scratch was reached, as a clause."""
    if reach.env_steps is None:
        return f"{SCRATCH}'s final IQM of {reach.level:.3f} is not reached"
    if reach.env_steps == 0:
        return f"{SCRATCH}'s final IQM of {reach.level:.3f} is there from the start"
    steps = f"{SCRATCH}'s final IQM of {reach.level:.3f} is reached after {reach.env_steps:,.0f} of {budget:,} steps"
    if reach.low is None:
        return steps
    high = "beyond the budget" if reach.high is None else f"{reach.high:,.0f}"
    return f"{steps} [{reach.low:,.0f}, {high}]"
