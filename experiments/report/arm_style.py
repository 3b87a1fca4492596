"""The style of an arm, the same in every figure."""

from collections.abc import Sequence
from dataclasses import dataclass

INK, MUTED, RULE = "#1d232b", "#5b6570", "#e3e6ea"
# Okabe and Ito's palette, which colour-blind readers can tell apart, after the baseline's neutral ink; its yellow is
# darkened for white paper. The second colour of a pair is for dark screens.
TONES = (
    ("#3d4550", "#c6cdd6"),
    ("#0072b2", "#4fa8e8"),
    ("#d55e00", "#ff8a45"),
    ("#009e73", "#2cc498"),
    ("#cc79a7", "#e79fca"),
    ("#e69f00", "#f2b632"),
    ("#56b4e9", "#9adbff"),
    ("#a89a00", "#d6c93e"),
)
_MARKERS = ("o", "s", "D", "^", "v", "P", "X", "p")
_DASHES = ("-", (0, (5, 1.5)), (0, (2, 1.2)), (0, (5, 1.5, 1, 1.5)))


@dataclass(frozen=True)
class Style:
    """How one arm is drawn: its colour, its marker and its dashes are each unique."""

    tone: int  # a place in TONES
    marker: str
    dash: str | tuple[int, tuple[float, ...]]

    @property
    def colour(self) -> str:
        """The colour on white paper."""
        return TONES[self.tone][0]


def arm_styles(arms: Sequence[str], baseline: str) -> dict[str, Style]:
    """A style for each arm: the baseline in neutral ink, the others in the palette's order; 28 before one returns."""
    styles = {}
    for index, arm in enumerate(arm for arm in arms if arm != baseline):
        tone = 1 + index % (len(TONES) - 1)
        styles[arm] = Style(tone, _MARKERS[tone], _DASHES[index % len(_DASHES)])
    return {arm: styles.get(arm, Style(0, _MARKERS[0], "-")) for arm in arms}
