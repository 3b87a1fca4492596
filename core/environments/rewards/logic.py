"""Verifiers of logic: truth tables for propositional answers, and who is which among islanders.

Where the answer must stand is the hyper-parameter `form`, see `core.environments.rewards.answer_format`.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal

from core.environments.rewards import propositional
from core.environments.rewards.answer_format import MAX_CHARACTERS, UnreadableError, verdict
from core.environments.rewards.knights_knaves import Naming
from core.environments.rewards.propositional import MAX_VARIABLES, Formula
from core.errors import GrpoLabError, near
from core.parts.contracts import reward
from core.parts.problems import Problem, Score

# --- propositional logic ---------------------------------------------------------------------------------------------

_ANY_YES: Final = r"yes|true"
_ANY_NO: Final = r"no|nope|false"
_DENIED: Final = (
    r"(?:(?:is|are|does|do|can|could|would)\s+)?(?:not|cannot|never)\s+(?:be\s+)?(?:(?:necessarily|logically)\s+)?"
)
_NO_MODEL: Final = (
    r"not? (?:a )?(?:(?:satisfying|such|valid|possible) )?(?:assignment|model|solution|valuation)s?"
    r"(?: exists?| satisf(?:y|ies)(?: it)?)?"
)
_WORDS: Final = {
    "satisfiable": (r"satisfiable|sat|can be satisfied", r"unsatisfiable|unsat|impossible|none|" + _NO_MODEL),
    "entails": (r"follows?|entail(?:s|ed|ment)?|valid|holds?|implie[sd]", r"invalid|non-?entailment"),
}
_DENIABLE: Final = {
    "satisfiable": r"satisfiable|satisfied|sat|true",
    "entails": r"follow|entail(?:s|ed)?|valid|hold|imply|implied|true",
}
_YES: Final = {kind: re.compile(rf"\b(?:{_ANY_YES}|{yes})\b") for kind, (yes, _) in _WORDS.items()}
_NO: Final = {
    kind: re.compile(rf"\b(?:{no}|{_ANY_NO}|{_DENIED}(?:{_DENIABLE[kind]}))\b") for kind, (_, no) in _WORDS.items()
}
_DOUBT: Final = re.compile(
    r"\b(?:maybe|perhaps|possibly|probably|might|may|could|or|either|unless|unsure|unclear|unknown|depends|sometimes|if|"
    r"wait|actually|however|but|except|guess|not|never|neither|nor|cannot|undetermined)\b|n't\b|\?"
)
_REASON: Final = re.compile(r"(?:,?\s*\b(?:because|since|as|due to|for)\b|[:;(]|\s[-–—]\s).*$", re.DOTALL)
_LEAD: Final = re.compile(r"^\s*(?:the )?(?:final )?(?:answer|conclusion)(?: is)?\s*[:=]?\s*")
_CONTRACTED: Final = re.compile(r"(?<=\w)n['’]t\b")


def _says_yes(text: str, kind: str) -> bool:
    """A plain yes or no in words; raises on doubt, on both, and on neither."""
    if len(text) > MAX_CHARACTERS:
        raise UnreadableError("answer too long")
    plain = _CONTRACTED.sub(" not", re.sub(r"[*`$]|\\text", " ", text.casefold()))
    plain = _REASON.sub("", _LEAD.sub("", plain))
    plain = re.sub(r"\s+", " ", plain).strip(" .!{}")
    without_no, noes = _NO[kind].subn(" ", plain)
    if _DOUBT.search(without_no):
        raise UnreadableError("hedged", decided=True)
    yeses = len(_YES[kind].findall(without_no))
    if bool(noes) == bool(yeses):
        raise UnreadableError("contradictory" if noes else "no answer", decided=bool(noes))
    return bool(yeses)


@dataclass(frozen=True)
class _Question:
    """A propositional question, its formulas read."""

    kind: str
    formulas: tuple[Formula, ...]
    """The formula asked about, or premises."""
    conclusion: "Formula | None" = None
    more_names: tuple[str, ...] = ()
    """Variables that an answer may use though the question does not."""

    @property
    def names(self) -> tuple[str, ...]:
        return propositional.variables(
            *self.formulas, *self.more_names, *([self.conclusion] if self.conclusion else [])
        )

    def judge(self, answer: str) -> bool:
        """Whether the answer is right; raises `UnreadableError`."""
        if self.kind in ("satisfiable", "entails"):
            return _says_yes(answer, self.kind) == self._truth()
        if self.kind == "assignment":
            return self._is_model(answer)
        return self._is_formula(_formula(answer, self.names))

    def _table(self, *more: Formula, names: tuple[str, ...] | None = None) -> int:
        """Rows in which all of the question's formulas and `more` are true."""
        names = self.names if names is None else names
        rows = (1 << (1 << len(names))) - 1
        for formula in (*self.formulas, *more):
            rows &= propositional.table(formula, names)
        return rows

    def _truth(self) -> bool:
        if self.conclusion is None:
            return self._table() != 0
        return self._table(("~", (self.conclusion,))) == 0

    def _is_model(self, answer: str) -> bool:
        """Every row that agrees with the assignment, which may leave variables open, makes the formula true."""
        try:
            assignment = _assignment(answer, self.names)
        except UnreadableError:
            if re.search(r"[=∧&]", answer):
                raise
            if _says_yes(answer, "satisfiable"):
                raise  # that there is one is not one
            return self._table() == 0
        fixed: tuple[Formula, ...] = tuple(name if value else ("~", (name,)) for name, value in assignment.items())
        agreeing = _Question("", fixed)._table(names=self.names)
        return agreeing & ~self._table() == 0

    def _is_formula(self, answer: Formula) -> bool:
        names = tuple(sorted({*self.names, *propositional.variables(answer)}))
        if len(names) > MAX_VARIABLES:
            raise UnreadableError("too many variables")
        if self.kind == "equivalent":
            return self._table(names=names) == propositional.table(answer, names)
        if not set(names) <= set(self.names):
            raise UnreadableError("unknown variable")
        everywhere = (1 << (1 << len(names))) - 1
        is_tautology = propositional.table(answer, names) == everywhere
        return not is_tautology and self._table(("~", (answer,))) == 0


_KINDS: Final = ("satisfiable", "entails", "assignment", "equivalent", "consequence")


def _question(data: Mapping[str, Any]) -> _Question:
    """Read `problem.data["logic"]`; a mistake in it is the task's, not the response's."""
    spec = data.get("logic")
    if not isinstance(spec, Mapping) or spec.get("kind") not in _KINDS:
        kind = spec.get("kind") if isinstance(spec, Mapping) else spec
        raise GrpoLabError(
            f"problem.data['logic'] = {kind!r} is not a question: it must be a mapping with 'kind', one of "
            f"{', '.join(_KINDS)}, and 'formula', or 'premises' and 'conclusion'"
        )
    kind = str(spec["kind"])
    required = {"entails": ("premises", "conclusion"), "consequence": ("premises",)}.get(kind, ("formula",))
    for key in required:
        if key not in spec:
            raise GrpoLabError(f"problem.data['logic'] of kind '{kind}' lacks '{key}': {near(key, map(str, spec))}")
    texts = list(spec["premises"]) if "premises" in required else [spec["formula"]]
    texts += [spec["conclusion"]] if kind == "entails" else []
    try:
        read = tuple(propositional.parse(text) for text in texts)
    except propositional.UnreadableError as error:
        raise GrpoLabError(f"problem.data['logic'] of kind '{kind}': {error}: one of {texts!r}") from error
    more = tuple(map(str, spec.get("variables", ())))
    question = _Question(kind, read[:-1], read[-1]) if kind == "entails" else _Question(kind, read, more_names=more)
    if len(question.names) > MAX_VARIABLES:
        raise GrpoLabError(
            f"problem.data['logic'] has {len(question.names)} variables; truth tables are made for at most "
            f"{MAX_VARIABLES}: ask about fewer"
        )
    return question


def _formula(answer: str, names: tuple[str, ...]) -> Formula:
    """A formula as an answer, without the markup and words that often surround one."""
    text = re.sub(r"\\[()\[\]]|[$`*]", " ", answer.replace("**", " ")).strip()
    text = re.sub(r"\\text\s*\{([^{}]*)\}", r" \1 ", text).strip().rstrip(".").strip()
    text = re.sub(r"^(?:therefore|thus|hence|so|∴)[,:]?\s+|^∴\s*", "", text, flags=re.IGNORECASE)
    try:
        read = propositional.parse(text)
    except propositional.UnreadableError as error:
        raise UnreadableError(str(error)) from error
    # p for P, where that is no other variable
    folded = {name.casefold(): name for name in names}
    return _renamed(read, folded if len(folded) == len(names) else {}, names)


def _renamed(formula: Formula, folded: Mapping[str, str], names: tuple[str, ...]) -> Formula:
    if isinstance(formula, str):
        return formula if formula in names else folded.get(formula.casefold(), formula)
    if isinstance(formula, bool):
        return formula
    return formula[0], tuple(_renamed(operand, folded, names) for operand in formula[1])


def _assignment(answer: str, names: tuple[str, ...]) -> dict[str, bool]:
    """Values by variable: "p = true, q = false", or literals, "p, ~q"."""
    try:
        return Naming(names, ("true", "false")).read(answer)
    except UnreadableError as error:
        if error.decided:
            raise
        unread = error
    assignment: dict[str, bool] = {}
    for piece in re.split(r"[,;\n]", answer.strip().strip("{}()[]")):
        try:
            literals = _formula(piece, names) if piece.strip() else True
        except UnreadableError:
            raise unread from None
        for literal in literals[1] if isinstance(literals, tuple) and literals[0] == "&" else (literals,):
            negative = isinstance(literal, tuple) and literal[0] == "~"
            name = literal[1][0] if isinstance(literal, tuple) and negative else literal
            if literal is True:
                continue
            if not isinstance(name, str) or name not in names:
                raise unread
            if assignment.setdefault(name, not negative) == negative:
                raise UnreadableError("contradictory", decided=True)
    if not assignment:
        raise unread
    return assignment


@reward
def truth_table(
    problem: Problem, response: str, *, form: Literal["answer_tag", "boxed", "mark"] = "answer_tag"
) -> Score:
    """1 if a truth table shows that the propositional answer is right, else 0.

    `problem.data["logic"]` is a mapping with `kind` and formulas:

        satisfiable  formula               yes or no
        entails      premises, conclusion  yes or no
        assignment   formula               values that make it true (open ones may be left out), or that there are none
        equivalent   formula               any formula with the same truth table
        consequence  premises              any formula that follows and is no tautology, in the premises' variables and
                                           those in `variables`, if given
    """
    return verdict(response, form, _question(problem.data).judge)


# --- islanders -------------------------------------------------------------------------------------------------------


@reward
def who_is_who(
    problem: Problem, response: str, *, form: Literal["answer_tag", "boxed", "mark"] = "answer_tag"
) -> Score:
    """1 if the answer says of every islander rightly which of the two kinds it is, in any order and wording, else 0.

    `problem.data["islanders"]` maps each name to whether it is of the first of `problem.data["kinds"]`, by default
    ("knight", "knave"). Hedged, contradictory and incomplete answers are wrong.
    """
    islanders = problem.data.get("islanders")
    if not isinstance(islanders, Mapping) or not islanders:
        raise GrpoLabError(
            f"problem.data['islanders'] = {islanders!r}: must map each name to whether it is a knight, e.g. "
            "{'Ann': True, 'Bob': False}"
        )
    one, other = problem.data.get("kinds", ("knight", "knave"))
    naming = Naming(islanders, (one, other))

    def judge(answer: str) -> bool:
        assignment = naming.read(answer)
        if assignment.keys() != islanders.keys():
            raise UnreadableError("incomplete answer")
        return assignment == dict(islanders)

    return verdict(response, form, judge)
