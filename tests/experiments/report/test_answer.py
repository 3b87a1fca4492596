"""The head of the page answers its title in one sentence, with levels beside differences."""

import json
from pathlib import Path

from experiments.report import render
from experiments.report.answer import NAMED, answer
from experiments.results.stored_study import load_study
from tests.experiments.report.studies import FINALS, judge, write_curves, write_study


def test_two_arms_in_one_sentence_redone_by_hand(tmp_path: Path) -> None:
    study = write_study(tmp_path / "pair", FINALS)
    said = answer(study, judge(study))
    assert said == (
        "dapo and grpo: not enough evidence: +4.0 points, between −0.97 and +8.97; "
        "about 34 seeds would be enough to detect 1.0 points; "
        "held-out accuracy 56.0 % against 52.0 %."
    )
    page = render(study, judge(study))
    assert page.index("</h1>") < page.index(f'<p class="answer">{said}</p>') < page.index('<p class="lede">')
    assert page.count("held-out accuracy 56.0 % against 52.0 %") == 1


def test_greedy_answers_stand_beside_sampled_ones(tmp_path: Path) -> None:
    """Sampled answers go 74.7 % against 64.7 %; greedily every second question is right, always."""
    right = {
        "grpo": [[10, 100, 200, 210], [12, 90, 190, 200], [9, 80, 205, 215]],
        "dapo": [[10, 100, 220, 240], [12, 120, 230, 240], [9, 110, 225, 235]],
    }
    study = write_curves(tmp_path / "curves", right)
    assert answer(study, judge(study)).endswith("held-out accuracy 74.7 % against 64.7 %; greedy 50.0 % in both.")
    for file in (study.path / "dapo").glob("seed=*/eval/*.json"):
        record = json.loads(file.read_text())
        record["summary"]["greedy_accuracy"] = 0.53125  # 68 of 128
        for question in record["questions"][:8]:
            question["greedy"]["correct"] = True
        file.write_text(json.dumps(record))
    study = load_study(study.path)
    assert answer(study, judge(study)).endswith("74.7 % against 64.7 %; greedy 53.1 % against 50.0 %, +3.1.")


def test_many_arms_are_grouped_by_verdict_and_counted(tmp_path: Path) -> None:
    base = [0.50, 0.52, 0.54]
    better = {f"better{k}": [0.60, 0.62, 0.641] for k in range(NAMED + 2)}
    study = write_study(tmp_path / "many", {"grpo": base, **better, "open<": [0.54, 0.50, 0.56]})
    said = answer(study, judge(study))
    assert said.startswith("Compared with grpo, held-out accuracy is better with better0 (62.0 % against 52.0 %, +10")
    assert said.count("better with") == 1
    assert "better3" not in said
    assert " and 2 more; undecided with open< (53.3 % against 52.0 %, +1.3 points)." in said
    page = render(study, judge(study))
    assert "open&lt; (53.3" in page
    assert "<p>better3 is better than grpo: +10.0 points, between +9.9 and +10.2; 3 seeds; held-out accuracy 6" in page


def test_an_unfinished_study_says_so_and_one_arm_gives_its_mean(tmp_path: Path) -> None:
    open_study = write_study(tmp_path / "open", FINALS, unfinished=[("dapo", 2, "running")])
    alone = write_study(tmp_path / "alone", {"grpo": [0.50, 0.52, 0.54]})
    assert answer(open_study, judge(open_study)).startswith("Interim: ")
    assert answer(alone, None) == "grpo reaches 52.0 % (mean of 3 seeds)."
