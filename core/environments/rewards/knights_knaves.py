"""Reading who is which: "A is a knight and B a knave", "knights: A; knaves: B, C", "p = true, q = false".

Every name is given one of two kinds, in any order and wording that leaves no doubt. The reader knows few words on
purpose. A word that it does not know makes a text unreadable, so a claim quoted from the puzzle ("A says that B is a
knave"), a denial ("it is false that ...") or a condition is never taken for the answer.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from core.environments.rewards.answer_format import MAX_CHARACTERS, UnreadableError

SYNONYMS: Final[Mapping[str, tuple[str, ...]]] = {
    "knight": (
        "truth-teller",
        "truthteller",
        "truth teller",
        "truthful",
        "tells the truth",
        "tell the truth",
        "honest",
    ),
    "knave": ("liar", "lies", "lie", "lying"),
    "true": ("t", "1", "⊤"),
    "false": ("f", "0", "⊥"),
}


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


_IS: Final = frozenset(
    {"is", "are", "=", ":", ":=", "be", "was", "were", "'s", "→", "->", "=>", "↦", "being", "-", "–", "—"}
)
_EQUALS: Final = frozenset({"=", ":", ":=", "→", "->", "=>", "↦"})
_SOFT: Final = _words(
    """
    and & , ∧ ∴ ( ) [ ] { } < > " “ ” $ • also but a an the while whereas both each respectively as so therefore thus
    hence then that who must we have has get conclude answer final solution conclusion assignment value values variable
    variables in to of them these there does do indeed definitely islander islanders people person inhabitants folks
    following together among always set
    """
)
_HARD: Final = frozenset({".", ";", "\n", "!"})
_HEDGES: Final = _words(
    """
    or maybe perhaps possibly probably likely might may could can cannot if iff xor either unless ? / | ∨ unsure unclear
    unknown undetermined guess think seems assume assuming suppose
    """
)
_COUNTS: Final = frozenset({"two", "three", "four", "five"})
_NOT: Final = frozenset({"not", "isn't", "aren't", "isn’t", "aren’t", "never", "wasn't"})
_ALL: Final = frozenset({"all", "everyone", "everybody", "everything"})
_REST: Final = frozenset({"rest", "others", "other"})
_NONE: Final = frozenset({"none", "nobody", "nothing", "neither", "no", "∅"})
_ONLY: Final = frozenset({"only", "sole"})
_AMBIGUOUS_AFTER_NOT: Final = frozenset({"all", "both", "each", "every", "everyone", "everybody", "only"})
_BEFORE_ARTICLE: Final = frozenset({"also", "as", "must", "definitely", "indeed"})
_REASON: Final = re.compile(r"[,(]?\s*\b(?:because|since)\b[^.;\n]*", re.IGNORECASE)
_LAYOUT: Final = re.compile(
    r"[*`]|\\(?:text(?:bf)?|mathrm|mathbf)\b|^\s*(?:[-•]|\d+[.)])\s|^\s*\||(?<=\w)\s*\|\s*(?=\w[^|\n]*\|\s*$)|\|\s*$",
    re.MULTILINE,
)
"""Emphasis, LaTeX, the dashes and numbers of lists, the bars of a table's rows."""
_TOKEN: Final = re.compile(r"\n|:=|->|=>|[^\W_]+(?:['’_-][^\W_]+)*|\S")


@dataclass
class _Clause:
    """What has been read and is not yet settled."""

    pending: list[str] = field(default_factory=list)
    """Names waiting for their kind."""
    kinds: list[bool] = field(default_factory=list)
    """Kinds in a row after those names."""
    leading: bool | None = None
    """The kind in front, when names follow their kind."""
    listed: list[str] = field(default_factory=list)
    negative: bool = False
    only: bool = False
    neither: bool = False


class Naming:
    """The reader for one puzzle's names and two kinds; `kinds[0]` is what True stands for."""

    def __init__(self, names: Iterable[str], kinds: tuple[str, str]) -> None:
        self.names = tuple(names)
        self._folded = {name.casefold(): name for name in self.names}
        if len(self._folded) < len(self.names):
            self._folded = {}  # names that differ in case only are read exactly
        self._kinds: dict[str, bool] = {}
        self._values: dict[str, bool] = {}
        """Kinds by every word for them, also one that is a name: what stands after "p =" can be nothing else."""
        for kind, meaning in zip(kinds, (True, False), strict=True):
            for word in (kind, *SYNONYMS.get(kind.casefold(), ())):
                for form in (word, word + "s", word + "es"):
                    self._values.setdefault(re.sub(r"[\s-]", "", form.casefold()), meaning)
                    if form not in self.names and (len(form) > 2 or form.casefold() not in self._folded):
                        self._kinds.setdefault(re.sub(r"[\s-]", "", form.casefold()), meaning)
        words = [word for kind in kinds for word in (kind, *SYNONYMS.get(kind.casefold(), ()))]
        phrases = [re.sub(r"\\?[\s-]+", r"[\\s-]+", re.escape(word)) for word in words if re.search(r"[\s-]", word)]
        self._phrases = re.compile("|".join(rf"\b{phrase}s?\b" for phrase in phrases) or r"(?!)", re.IGNORECASE)
        either = "|".join(sorted(map(re.escape, self.names), key=len, reverse=True))
        letters = "|".join(map(re.escape, kinds))
        self._glued = re.compile(rf"(?:(?:{either})(?:{letters}))+")
        self._pair = re.compile(rf"({either})({letters})")

    def read(self, text: str) -> dict[str, bool]:
        """Name to kind, as far as the text names them; raises `UnreadableError`."""
        if len(text) > MAX_CHARACTERS:
            raise UnreadableError("answer too long")
        assignment: dict[str, bool] = {}
        clause = _Clause()
        tokens = self._tokens(text)
        for place, token in enumerate(tokens):
            self._step(tokens, place, token, clause, assignment)
        self._close(clause, assignment)
        if not assignment:
            raise UnreadableError("no answer")
        return assignment

    def _tokens(self, text: str) -> list[str]:
        # a reason given for a statement is no statement of its own
        text = _REASON.sub(" ", _LAYOUT.sub(" ", text))
        text = self._phrases.sub(lambda phrase: re.sub(r"[\s-]", "", phrase[0]), text)
        tokens: list[str] = []
        for token in _TOKEN.findall(text):
            if self._glued.fullmatch(token) and token not in self.names and token.casefold() not in self._kinds:
                tokens.extend(part for pair in self._pair.findall(token) for part in pair)
            elif token.endswith(("'s", "’s")) and self._name(token[:-2]):
                tokens.extend((token[:-2], "is"))
            elif "-" in token[1:] and self._name(token) is None:
                tokens.extend(re.split("(-)", token))
            else:
                tokens.append(token)
        return tokens

    def _name(self, token: str) -> str | None:
        return token if token in self.names else self._folded.get(token.casefold())

    def _kind(self, token: str) -> bool | None:
        return self._kinds.get(token.casefold())

    def _is_article(self, tokens: Sequence[str], place: int) -> bool:
        """Whether "a" or "A" is the article here, in a puzzle that also has a name like that."""
        if tokens[place] not in ("a", "A", "an"):
            return False
        if place + 1 == len(tokens) or self._kind(tokens[place + 1]) is None:
            return False
        if tokens[place] not in self.names and tokens[place].islower():
            return True  # the name is written A
        before = tokens[place - 1] if place else "\n"
        return before.casefold() in (_IS | _NOT | _BEFORE_ARTICLE) - {":", "="} or (
            tokens[place] == "a" and self._name(before) is not None
        )

    def _step(
        self, tokens: Sequence[str], place: int, token: str, clause: _Clause, assignment: dict[str, bool]
    ) -> None:
        word = token.casefold()
        after = tokens[place + 1].casefold() if place + 1 < len(tokens) else "\n"
        name = None if self._is_article(tokens, place) else self._name(token)
        kind = self._kind(token)
        if place > 1 and tokens[place - 1] in _EQUALS and self._name(tokens[place - 2]) is not None:
            kind = self._values.get(word, kind)
            name = None if kind is not None else name
        if name is not None:
            self._add_names([name], clause, assignment)
        elif kind is not None:
            self._add_kind(kind, clause, assignment)
        elif word in _HEDGES and not (word == "or" and clause.neither):
            raise UnreadableError("hedged", decided=True)
        elif word in _HARD:
            # a line of a list may end between a name and its kind
            if not (token == "\n" and (clause.pending and not clause.kinds)):
                self._close(clause, assignment)
        elif word in _NOT:
            if after in _AMBIGUOUS_AFTER_NOT:
                raise UnreadableError("unreadable answer")
            clause.negative = not clause.negative
        elif word in _ALL or (word == "both" and after in _IS and len(self.names) == 2 and not clause.pending):
            if _NOT & {t.casefold() for t in tokens[place:]}:
                raise UnreadableError("unreadable answer")  # "all are not knights": none, or not every one?
            self._add_names(list(self.names), clause, assignment)
        elif word in _REST:
            if clause.kinds or clause.listed:
                self._close(clause, assignment)
            self._add_names([name for name in self.names if name not in assignment], clause, assignment)
        elif word in _ONLY:
            if clause.kinds or clause.listed:
                self._close(clause, assignment)
            clause.only = True
        elif word == "nor" and clause.neither:
            pass
        elif word in _NONE:
            self._add_none(tokens, place, clause, assignment)
        elif word in _IS:
            if (
                clause.leading is not None
                and clause.listed
                and place
                and self._name(tokens[place - 1]) == clause.listed[-1]
            ):
                # "the knights are A and B and C is a knave": the last name was not one of the list
                last = clause.listed.pop()
                self._close(clause, assignment)
                clause.pending = [last]
        elif word not in _SOFT and (word not in _COUNTS or after == "of"):  # "two of A, B and C" says not which
            raise UnreadableError("unreadable answer")

    def _add_names(self, names: list[str], clause: _Clause, assignment: dict[str, bool]) -> None:
        if clause.kinds:
            self._settle(clause, assignment)
        if clause.negative and clause.pending and not clause.neither:
            raise UnreadableError("unreadable answer")  # "B isn't, A is a knight": what is denied of whom?
        if clause.leading is not None:
            clause.listed.extend(names)
        else:
            clause.pending.extend(names)

    def _add_kind(self, kind: bool, clause: _Clause, assignment: dict[str, bool]) -> None:
        kind ^= clause.negative
        clause.negative = False
        if clause.pending:
            clause.kinds.append(kind)
        elif clause.leading is None or clause.listed:
            self._close(clause, assignment, keep_only=True)
            clause.leading = kind
        else:
            raise UnreadableError("unreadable answer")

    def _add_none(self, tokens: Sequence[str], place: int, clause: _Clause, assignment: dict[str, bool]) -> None:
        """ "knaves: none", "no knaves", "neither A nor B is a knave", "none of them is a knave"."""
        if clause.leading is not None and not clause.listed:
            none_of, clause.leading = clause.leading, None
            self._assign(self.names, [not none_of], assignment)
        elif tokens[place].casefold() == "neither":
            clause.neither = True
            clause.negative = not clause.negative
            if place + 1 == len(tokens) or self._name(tokens[place + 1]) is None:
                if len(self.names) != 2:
                    raise UnreadableError("unreadable answer")
                self._add_names(list(self.names), clause, assignment)
        elif (
            not clause.pending
            and not clause.listed
            and (tokens[place].casefold() != "no" or self._is_kind_next(tokens, place))
        ):
            clause.negative = not clause.negative
            self._add_names(list(self.names), clause, assignment)
        else:
            raise UnreadableError("unreadable answer")

    def _is_kind_next(self, tokens: Sequence[str], place: int) -> bool:
        return place + 1 < len(tokens) and self._kind(tokens[place + 1]) is not None

    def _settle(self, clause: _Clause, assignment: dict[str, bool]) -> None:
        """Give the pending names their kinds."""
        self._assign(clause.pending, clause.kinds, assignment, only=clause.only)
        clause.pending, clause.kinds, clause.only, clause.neither = [], [], False, False

    def _close(self, clause: _Clause, assignment: dict[str, bool], *, keep_only: bool = False) -> None:
        """End a clause; what it leaves open makes it unreadable."""
        if clause.kinds:
            self._settle(clause, assignment)
        if clause.pending or clause.negative:
            raise UnreadableError("unreadable answer")
        if clause.leading is not None:
            if not clause.listed:
                raise UnreadableError("unreadable answer")
            self._assign(clause.listed, [clause.leading], assignment, only=clause.only)
            clause.leading, clause.listed, clause.only = None, [], False
        if not keep_only:
            clause.only = False

    def _assign(
        self, names: Sequence[str], kinds: Sequence[bool], assignment: dict[str, bool], *, only: bool = False
    ) -> None:
        if len(kinds) == 1 or (len(names) == 1 and len(set(kinds)) == 1):
            pairs = [(name, kinds[0]) for name in names]
        elif len(kinds) == len(names):
            pairs = list(zip(names, kinds, strict=True))
        else:
            raise UnreadableError("unreadable answer")
        if only:
            pairs += [(name, not kinds[0]) for name in self.names if name not in names]
        for name, kind in pairs:
            if assignment.setdefault(name, kind) != kind:
                raise UnreadableError("contradictory", decided=True)
