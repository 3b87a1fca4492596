"""Whether programs that a model writes can be graded here, and how far they are shut in."""

from collections.abc import Iterator
from typing import Final

from experiments.doctor.finding import CAVEAT, FAILS, WORKS, Finding
from experiments.doctor.visit import Visit

NAME: Final = "grading programs"
RIGHT: Final = "```python\ndef add(a, b):\n    return a + b\n```"
WRONG: Final = "```python\ndef add(a, b):\n    return a - b\n```"
REMEDY: Final = (
    "Install bubblewrap (apt-get install bubblewrap) and let this user make user namespaces (in a container, "
    "--security-opt seccomp=unconfined or the like)."
)


def check_grading(_: Visit) -> Iterator[Finding]:
    """The strongest sandbox, tried out, and in it a right and a wrong program."""
    from core.environments.rewards.code import code_tests
    from core.environments.sandbox import sandbox
    from core.parts.problems import Problem, Score

    here = sandbox()
    numbers = {"level": here.level, "refused": here.refused}
    refused = "".join(f"; not {level}: {why}" for level, why in here.refused.items())
    if here.level is None:
        yield Finding(NAME, FAILS, f"no sandbox{refused}", REMEDY, numbers)
        return
    problem = Problem("", "", 0, {"tests": ["assert add(2, 3) == 5"]})
    scores = [Score.of(code_tests(problem, program, level=here.level)) for program in (RIGHT, WRONG)]
    verdicts = [score.value for score in scores]
    seen = f"sandbox at level {here.level}{refused}"
    if verdicts != [1.0, 0.0]:
        seen = f"{seen}; a right and a wrong program score {verdicts} ({scores[0].cause})"
        yield Finding(NAME, FAILS, seen, REMEDY, numbers)
    elif here.level != "bubblewrap":
        yield Finding(NAME, CAVEAT, seen, REMEDY, numbers)
    else:
        yield Finding(NAME, WORKS, f"{seen}; a right program passes, a wrong one does not", numbers=numbers)
