"""Writes the generated part of `logic_pairs.jsonl`; the pairs labelled by hand are kept as they are.

No label comes from the code under test: a formula is made as a tree, judged by walking all assignments through the
tree with plain booleans, and only then written down in one of several notations; islanders are judged by reasoning-gym.

    python tests/core/environments/rewards/make_logic_pairs.py
"""

import itertools
import json
import random
from pathlib import Path
from typing import Any

FILE = Path(__file__).with_name("logic_pairs.jsonl")
NOTATIONS = {
    "ascii": ("~", " & ", " | ", " -> ", " <-> "),
    "unicode": ("¬", " ∧ ", " ∨ ", " → ", " ↔ "),
    "words": ("not ", " and ", " or ", " implies ", " iff "),
    "latex": (r"\neg ", r" \land ", r" \lor ", r" \to ", r" \leftrightarrow "),
    "code": ("!", " && ", " || ", " => ", " <=> "),
}
SIGNS = ["not", "and", "or", "implies", "iff"]


def draw(rng: random.Random, names: str, depth: int) -> Any:
    if depth == 0 or rng.random() < 0.2:
        return rng.choice(names)
    sign = rng.choice(SIGNS)
    return [sign, *(draw(rng, names, depth - 1) for _ in range(1 if sign == "not" else 2))]


def is_true(tree: Any, world: dict[str, bool]) -> bool:
    if isinstance(tree, str):
        return world[tree]
    sign, *inside = tree
    values = [is_true(part, world) for part in inside]
    if sign == "not":
        return not values[0]
    if sign == "and":
        return values[0] and values[1]
    if sign == "or":
        return values[0] or values[1]
    if sign == "implies":
        return values[1] if values[0] else True
    return values[0] == values[1]


def names_in(tree: Any) -> set[str]:
    return {tree} if isinstance(tree, str) else set().union(*map(names_in, tree[1:]))


def worlds(names: Any) -> list[dict[str, bool]]:
    ordered = sorted(names)
    return [dict(zip(ordered, row, strict=True)) for row in itertools.product((False, True), repeat=len(ordered))]


def write(tree: Any, notation: str) -> str:
    """Every connective in brackets: what binds more tightly is tested by hand."""
    if isinstance(tree, str):
        return tree
    signs = dict(zip(SIGNS, NOTATIONS[notation], strict=True))
    if tree[0] == "not":
        inside = write(tree[1], notation)
        return signs["not"] + (inside if isinstance(tree[1], str) else f"({inside})")
    return "(" + write(tree[1], notation) + signs[tree[0]] + write(tree[2], notation) + ")"


def same_but_otherwise(tree: Any) -> Any:
    """An equivalent tree without implies and iff, by rules that everybody knows."""
    if isinstance(tree, str):
        return tree
    sign, *inside = tree
    inside = [same_but_otherwise(part) for part in inside]
    if sign == "implies":
        return ["or", ["not", inside[0]], inside[1]]
    if sign == "iff":
        return ["or", ["and", inside[0], inside[1]], ["and", ["not", inside[1]], ["not", inside[0]]]]
    if sign == "and":
        return ["not", ["or", ["not", inside[1]], ["not", inside[0]]]]
    return [sign, *inside]


def formula_pairs(rng: random.Random) -> list[dict[str, Any]]:
    pairs: list[dict[str, Any]] = []

    def add(logic: dict[str, Any], answer: str, correct: bool) -> None:
        pairs.append(
            {
                "reward": "truth_table",
                "data": {"logic": logic},
                "response": f"<answer>{answer}</answer>",
                "correct": correct,
                "lenient": correct,
                "by": "trees",
            }
        )

    for i in range(60):
        tree = draw(rng, "pqrs", 3)
        question_form, answer_form = rng.choice(list(NOTATIONS)), rng.choice(list(NOTATIONS))
        text, models = write(tree, question_form), [w for w in worlds(names_in(tree)) if is_true(tree, w)]
        if i % 3 == 0:
            add({"kind": "satisfiable", "formula": text}, rng.choice(["yes", "Yes.", "satisfiable"]), bool(models))
            add({"kind": "satisfiable", "formula": text}, rng.choice(["no", "No.", "unsatisfiable"]), not models)
        if i % 3 == 1:
            world = rng.choice(worlds(names_in(tree)))
            form = rng.choice(["{} = {}", "{}: {}", "{} is {}"])
            in_words = ", ".join(form.format(name, str(value).lower()) for name, value in world.items())
            add({"kind": "assignment", "formula": text}, in_words, world in models)
            if models:
                model = rng.choice(models)
                literals = ", ".join(name if value else "¬" + name for name, value in model.items())
                add({"kind": "assignment", "formula": text}, literals, True)
        if i % 3 == 2:
            add({"kind": "equivalent", "formula": text}, write(same_but_otherwise(tree), answer_form), True)
        other = draw(rng, "pqrs", 2)
        both = worlds(names_in(tree) | names_in(other))
        equivalent = all(is_true(tree, w) == is_true(other, w) for w in both)
        add({"kind": "equivalent", "formula": text}, write(other, answer_form), equivalent)
        follows = all(is_true(other, w) for w in both if is_true(tree, w))
        entailment = {"kind": "entails", "premises": [text], "conclusion": write(other, answer_form)}
        add(entailment, rng.choice(["yes", "It follows.", "entailed"]), follows)
        add(entailment, rng.choice(["no", "It does not follow.", "not entailed"]), not follows)
    return pairs


def oracle_pairs(rng: random.Random) -> list[dict[str, Any]]:
    import reasoning_gym

    pairs = []
    puzzles = reasoning_gym.create_dataset("knights_knaves", n_people=3, seed=5, size=40)
    for entry in puzzles:
        names, terms = entry["metadata"]["names"], entry["metadata"]["knight_knave_terms"]
        truth = entry["metadata"]["solution"]
        data = {"islanders": dict(zip(names, truth, strict=True)), "kinds": [terms["knight"], terms["knave"]]}
        turned = [value != (rng.random() < 0.4) for value in truth]
        claims = [f"{n} is {terms['a_knight' if v else 'a_knave']}" for n, v in zip(names, turned, strict=True)]
        rng.shuffle(claims)
        for answer in (entry["answer"], ", and ".join(claims) + "."):
            correct = puzzles.score_answer(answer=answer, entry=entry) == 1.0
            pairs.append(
                {
                    "reward": "who_is_who",
                    "data": data,
                    "response": f"So: <answer>{answer}</answer>",
                    "correct": correct,
                    "lenient": correct,
                    "by": "reasoning-gym",
                }
            )
    premises = reasoning_gym.create_dataset("propositional_logic", seed=5, size=60)
    for entry in premises:
        made = premises._generate_expression(rng, entry["metadata"]["variables"], 3)
        for answer in {entry["metadata"]["example_answer"], str(made)}:
            # to the oracle a single variable is trivial, whatever the premises say: a definition that is not ours
            if len(answer) == 1:
                continue
            correct = premises.score_answer(answer, entry) == 1.0
            logic = {
                "kind": "consequence",
                "premises": entry["metadata"]["premises"],
                "variables": entry["metadata"]["variables"],
            }
            pairs.append(
                {
                    "reward": "truth_table",
                    "data": {"logic": logic},
                    "response": f"<answer>{answer}</answer>",
                    "correct": correct,
                    "lenient": correct,
                    "by": "reasoning-gym",
                }
            )
    return pairs


if __name__ == "__main__":
    by_hand = [line for line in FILE.read_text().splitlines() if json.loads(line)["by"] == "hand"]
    rng = random.Random(0)
    made = dict.fromkeys(json.dumps(pair, ensure_ascii=False) for pair in (*formula_pairs(rng), *oracle_pairs(rng)))
    FILE.write_text("\n".join([*by_hand, *made]) + "\n")
