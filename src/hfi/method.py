"""Human Feedback Inversion on one screen (Kim et al., ECCV 2024, arXiv 2407.21032; SDD: arXiv 2307.05977).

    x ~ p_theta(x | c)                        generation/   1  the original model draws pictures of the concept
    y in {0, 1}, or an order of M             feedback/     2  people judge them
    r_psi(x)                                  reward/       3  an MLP on CLIP embeddings learns the judgement
    top-K of r_psi                            reward/       4  the worst pictures, weights >= 0 of mean 1
    v* = argmin E[r(x) ||eps - eps_theta(z_t, t, c(v))||^2]     inversion/    5  soft tokens that draw them
    min E||eps_theta(z_t, t, c_s) - sg eps_theta(z_t, t, c_0)||^2   erasure/  6  SDD forgets c_s, built from v*

Each stage reads results of earlier ones, writes one folder of the study, and returns what it wrote. A stage that is done
under the present settings is read back instead of run, so this function continues wherever it was stopped.
"""

from __future__ import annotations

from hfi.workspace import STAGES, Workspace


def run(study: Workspace, until: str = STAGES[-1]):
    """Do whatever the study still misses, in order, up to and including `until`; returns that stage's result."""
    from hfi.diffusion.model import study_model
    from hfi.erasure.erase import erase
    from hfi.evaluation.evaluate import evaluate
    from hfi.evaluation.quick import round_score
    from hfi.feedback.label import label
    from hfi.generation.generate import generate
    from hfi.inversion.invert import invert
    from hfi.report.report import report
    from hfi.reward.reward import reward

    config = study.config
    model = study_model(config)  # theta
    steps = {
        "generate": lambda done: generate(model, study),
        "label": lambda done: label(done["generate"], study),
        "reward": lambda done: reward(done["generate"], done["label"], study),
        "invert": lambda done: invert(model, done["generate"], done["reward"], study),
        "erase": lambda done: erase(model, done["generate"], done["reward"], done["invert"], study, round_score(model, study)),
        "evaluate": lambda done: evaluate(model, done["generate"], done["reward"], done["invert"], done["erase"], study),
        "report": lambda done: report(done["evaluate"], study),
    }
    done: dict[str, object] = {}
    for stage in STAGES[: STAGES.index(until) + 1]:
        done[stage] = steps[stage](done)
    return done[until]
