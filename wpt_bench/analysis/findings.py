"""The sentences that may be said about a table of runs, by the same rules for every table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from wpt_bench.analysis.aggregate import NOT_SEPARATED, ONE_SEED, Estimate, three
from wpt_bench.analysis.bootstrap import CONFIDENCE
from wpt_bench.analysis.factorial import PARTS, Effect, Factorial
from wpt_bench.analysis.literature import held_against_published
from wpt_bench.analysis.reach import Saving
from wpt_bench.analysis.rows import Held, MethodSummary, Part
from wpt_bench.analysis.scores import SCRATCH, RunTable

WPT = "wpt"
FEW_SEEDS = 10
"""Below this many seeds rliable's percentile intervals are clearly too narrow, and the page says so."""


def headline(table: RunTable, rows: Sequence[MethodSummary]) -> str:
    """Whether WPT learns faster than from scratch: yes or no only where the areas under the curves are separated.

    The answer is of the tasks that were measured, and says so. Where WPT acts in some episodes by a policy that was
    cloned from the data, and is not shown to end above what that policy has alone, that is said in the same breath.
    """
    by_name = {row.name: row for row in rows}
    wpt, scratch = by_name.get(WPT), by_name.get(SCRATCH)
    question = f"Does {WPT}, with its offline data, learn faster than {SCRATCH}, the same agent from scratch?"
    if wpt is None or scratch is None:
        absent = " and ".join(name for name in (WPT, SCRATCH) if name not in by_name)
        return f"{question} These runs cannot say: {absent} not among the methods."
    faster = wpt.against.auc if wpt.against else None
    if faster is None or scratch.auc is None or wpt.auc is None:
        absent = " and ".join(row.name for row in (wpt, scratch) if row.auc is None)
        return f"{question} Not known yet: {absent} incomplete."
    tasks = f"{len(table.tasks)} tasks measured" if len(table.tasks) > 1 else f"one task measured ({table.tasks[0]})"
    if table.under_way:
        tasks += f", {len(table.under_way)} more under way"
    answer, more = "not shown", ""
    if faster.excludes_zero and faster.value < 0:
        answer = "no, it learns more slowly"
    elif faster.excludes_zero:
        answer, more = "yes", f"; {_reached(wpt.reach)}" if wpt.reach else ""
    if answer == "yes" and wpt.above_prior is not None and not _above(wpt.above_prior):
        more += ". It is not shown to end above its own cloned prior"
        if wpt.above_prior_return is not None and _above(wpt.above_prior_return):
            more += " in success, but is in return"
    return (
        f"{question} On the {tasks}: {answer}, at this budget of {table.budget:,} environment steps. Area under the "
        f"curve {wpt.auc.value:.3f} against {scratch.auc.value:.3f}, difference {_signed(faster)}{more}."
    )


def glance(rows: Sequence[MethodSummary], embodiments: Mapping[str, Sequence[Part]], effects: Factorial) -> list[str]:
    """Where WPT learns faster, at what cost, which of its parts does it, and what its cloned prior has alone, as far as
    it is known."""
    said = []
    parts = {name: part for name, all_of in embodiments.items() for part in all_of if part.method == WPT}
    against = {name: part.auc_against for name, part in parts.items() if part.auc_against is not None}
    if len(embodiments) > 1 and against:
        said.append(f"Where: area under the curve of {WPT} minus {SCRATCH}'s, by embodiment: {_each(against)}.")
    by_name = {row.name: row for row in rows}
    wpt, scratch = by_name.get(WPT), by_name.get(SCRATCH)
    if wpt and scratch and wpt.wall_clock_range and scratch.wall_clock_range:
        said.append(
            f"At what cost: a run of {WPT} makes {_spent(wpt)}, one of {SCRATCH} {_spent(scratch)}; the "
            "updates of the shared pre-training and of cloning the prior are not among them. Wall-clock: median, "
            "shortest and longest run; it depends on what else the machine does, updates do not."
        )
    shown = effects.effects[: len(PARTS)] or effects.single
    if shown:
        each = "; ".join(f"{effect.name} {_signed(effect.estimate)}, {_shown(effect)}" for effect in shown)
        said.append(f"Which part: on the IQM of the area under the curve, {each}.")
    if wpt and wpt.prior is not None and wpt.above_prior is not None:
        ends = "ends above" if _above(wpt.above_prior) else "is not shown to end above"
        said.append(
            f"Beyond its data: {WPT} {ends} its own cloned prior, the policy that is cloned from retrieved episodes "
            f"before the first environment step and has IQM {three(wpt.prior.value)} {wpt.prior.corrected} alone; "
            f"difference {_signed(wpt.above_prior)}.{_by_return(wpt.above_prior_return)}"
        )
    return said


def _by_return(its: Estimate | None) -> str:
    """What WPT's return has above its prior's, which says more than success of what was learned."""
    if its is None or its.corrected_low is None or its.corrected_high is None:
        return ""
    lies = "is above" if _above(its) else "is not shown to be above"
    interval = f"[{its.corrected_low:,.0f}, {its.corrected_high:,.0f}]"
    return f" Its mean return, which it learns from, {lies} the prior's; difference {its.value:+,.0f} {interval}."


def _above(estimate: Estimate) -> bool:
    return estimate.excludes_zero and estimate.value > 0


def duration(seconds: float | None) -> str:
    """``1:02:03`` or ``2:03``; a dash for None."""
    if seconds is None:
        return "—"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"


def _spent(row: MethodSummary) -> str:
    shortest, longest = (duration(seconds) for seconds in row.wall_clock_range or (None, None))
    return f"{row.updates:,.0f} updates in {duration(row.wall_clock)} ({shortest} to {longest})"


def _each(estimates: Mapping[str, Estimate]) -> str:
    return "; ".join(f"{name} {_signed(estimate)}, {_verdict(estimate)}" for name, estimate in estimates.items())


def _verdict(estimate: Estimate) -> str:
    return "separated from zero" if estimate.excludes_zero else estimate.verdict


def _shown(effect: Effect) -> str:
    """Whether an effect is separated from zero, and still is as one of several."""
    if effect.holm is None or not effect.estimate.excludes_zero:
        return _verdict(effect.estimate)
    stays = "also" if effect.holm <= 1 - CONFIDENCE else "but not"
    return f"separated from zero, {stays} after Holm's correction for all of the effects (p {p_text(effect.holm)})"


def p_text(p: float) -> str:
    """A p-value to three digits."""
    return f"= {p:.3f}" if p >= 0.0005 else "< 0.001"


def sentences(table: RunTable, rows: Sequence[MethodSummary]) -> list[str]:
    """What the rows say: each method against learning from scratch, against published scores, and with what caution."""
    said = []
    scratch = next((row for row in rows if row.name == SCRATCH), None)
    complete = [row for row in rows if row.iqm is not None]
    if scratch is None or scratch.iqm is None:
        if complete:
            best = complete[0]
            said.append(f"{best.name} has the highest IQM, {_corrected(best)}.")
        why = "is not among the methods" if scratch is None else "is incomplete"
        said.append(f"{SCRATCH} {why}, so nothing is held against learning from scratch.")
    else:
        said += [_against_scratch(row, row.against, scratch) for row in complete if row.against is not None]
    said += _beside_wpt(complete)
    said += held_against_published(table)
    said += [row.incomplete for row in rows if row.incomplete]
    if table.under_way:
        each = ", ".join(f"{one.task} ({one.done} of {one.expected} runs)" for one in table.under_way)
        said.append(f"Under way, and in no figure yet: {each}.")
    seeds = sorted({row.seeds for row in complete})
    if seeds and seeds[0] == 1:
        said.append("With one seed there is no interval, and no difference can be told from chance.")
    elif seeds and seeds[0] < FEW_SEEDS:
        said.append(
            "Intervals in these sentences are corrected 95% intervals, on which rests what is called separated; "
            f"rliable's of {seeds[0]} seeds are too narrow (a bootstrap of few seeds covers less than it says)."
        )
    elif seeds:
        said.append("Intervals in these sentences are corrected 95% intervals.")
    return said


def _against_scratch(row: MethodSummary, its: Held, scratch: MethodSummary) -> str:
    steps = "" if row.online else " with 0 online steps"
    figures = f"{row.name} reaches IQM {_corrected(row)}{steps}, {SCRATCH} {_corrected(scratch)}"
    if its.score.corrected_low is None:
        return f"{figures}: {NOT_SEPARATED} ({ONE_SEED})."
    figures += f", difference {_signed(its.score)}"
    verdict = its.score.verdict if its.score.flat else NOT_SEPARATED
    if its.score.excludes_zero:
        verdict = f"separated, {row.name} is {'higher' if its.score.value > 0 else 'lower'}"
    # Of two curves that are not apart, one may be sooner at any level by luck alone.
    apart = its.auc is not None and its.auc.excludes_zero
    return f"{figures}: {verdict}{f'; {_reached(row.reach)}' if row.reach and apart else ''}."


def _beside_wpt(rows: Sequence[MethodSummary]) -> list[str]:
    """How WPT ends beside the methods that are no variants of it, in one sentence; none without such methods."""
    found: dict[str, list[str]] = {"above": [], "below": [], "not separated from": []}
    for row in rows:
        if row.wpt_against is None:
            continue
        its = row.wpt_against.score
        where = "not separated from" if not its.excludes_zero else "above" if its.value > 0 else "below"
        found[where].append(f"{row.name} ({_signed(its)})")
    each = "; ".join(f"{where} {', '.join(names)}" for where, names in found.items() if names)
    return [f"At the budget, in IQM, {WPT} is {each}."] if each else []


def _corrected(row: MethodSummary) -> str:
    """The IQM of a complete method."""
    assert row.iqm is not None
    return f"{three(row.iqm.value)} {row.iqm.corrected}"


def _signed(estimate: Estimate) -> str:
    return f"{three(estimate.value, '+')} {estimate.corrected}"


def _reached(found: Saving) -> str:
    """When the final score of scratch was reached, and what that saves, as a clause."""
    if not found.other:
        return (
            f"{SCRATCH} ends no higher than it began (IQM {found.level:.3f}), so the steps saved cannot be quantified"
        )
    final = f"{SCRATCH}'s final IQM of {found.level:.3f}"
    if found.env_steps is None or found.saved is None:
        return f"{final} is not reached"
    steps = f"{final} is first reached after {found.env_steps:,.0f} steps, by {SCRATCH} itself after {found.other:,.0f}"
    interval = saved_interval(found)
    if interval and (found.saved_low is None or found.saved_low <= 0):
        interval += ", not shown to be above 0"
    return f"{steps}: {found.saved:.0%} saved {interval}".rstrip()


def saved_interval(found: Saving) -> str:
    """The corrected interval of what is saved; empty without one."""
    if found.saved_high is None:
        return ""
    low = "no lower bound" if found.saved_low is None else f"{found.saved_low:.0%}"
    return f"[{low}, {found.saved_high:.0%}]"
