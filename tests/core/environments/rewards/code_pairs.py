# ruff: noqa: E501 - a program is one string
"""Problems with programs that are right and programs that are wrong, labelled by hand when they were written.

Each problem: its tests, right programs, and wrong programs with what is wrong about them.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Labelled:
    """A problem's tests with programs of either kind."""

    tests: Sequence[Any]
    right: Sequence[str]
    wrong: dict[str, str]


def calls(name: str, *tests: tuple[list[Any], Any]) -> list[Any]:
    return [{"call": name, "args": args, "expected": expected} for args, expected in tests]


def lines(*tests: tuple[str, str]) -> list[Any]:
    return [{"stdin": stdin, "stdout": stdout} for stdin, stdout in tests]


PROBLEMS: dict[str, Labelled] = {}
P = PROBLEMS

P["add"] = Labelled(
    calls("add", ([2, 3], 5), ([-1, 1], 0), ([10**20, 1], 10**20 + 1)),
    [
        "def add(a, b):\n    return a + b",
        "add = lambda a, b: a + b",
        "from operator import add",
        "class Solution:\n    def add(self, a, b):\n        return sum([a, b])",
    ],
    {
        "subtracts": "def add(a, b):\n    return a - b",
        "prints": "def add(a, b):\n    print(a + b)",
        "text": "def add(a, b):\n    return str(a + b)",
        "rounds to a float": "def add(a, b):\n    return int(float(a) + float(b))",
        "other name": "def plus(a, b):\n    return a + b",
        "one argument": "def add(a):\n    return a",
    },
)
P["maximum"] = Labelled(
    ["assert biggest([1, 5, 3]) == 5", "assert biggest([-4, -2, -9]) == -2", "assert biggest([7]) == 7"],
    [
        "biggest = max",
        "def biggest(xs):\n    best = xs[0]\n    for x in xs[1:]:\n        if x > best:\n            best = x\n    return best",
        "def biggest(xs):\n    return sorted(xs)[-1]",
        "from functools import reduce\ndef biggest(xs):\n    return reduce(lambda a, b: a if a > b else b, xs)",
    ],
    {
        "starts from 0": "def biggest(xs):\n    best = 0\n    for x in xs:\n        best = max(best, x)\n    return best",
        "smallest": "biggest = min",
        "last": "def biggest(xs):\n    return xs[-1]",
        "a list": "def biggest(xs):\n    return [max(xs)]",
    },
)
P["factorial"] = Labelled(
    calls("factorial", ([0], 1), ([5], 120), ([25], 15511210043330985984000000)),
    [
        "from math import factorial",
        "def factorial(n):\n    return 1 if n == 0 else n * factorial(n - 1)",
        "def factorial(n):\n    r = 1\n    for i in range(2, n + 1):\n        r *= i\n    return r",
    ],
    {
        "0 at 0": "def factorial(n):\n    return n if n < 2 else n * factorial(n - 1)",
        "one factor short": "def factorial(n):\n    r = 1\n    for i in range(2, n):\n        r *= i\n    return r",
        "floats": "import math\ndef factorial(n):\n    return round(math.gamma(n + 1))",
        "never ends at 0": "def factorial(n):\n    return n * factorial(n - 1)",
    },
)
P["fibonacci"] = Labelled(
    ["assert fib(0) == 0", "assert fib(1) == 1", "assert fib(10) == 55", "assert fib(90) == 2880067194370816120"],
    [
        "def fib(n):\n    a, b = 0, 1\n    for _ in range(n):\n        a, b = b, a + b\n    return a",
        "from functools import lru_cache\n@lru_cache(None)\ndef fib(n):\n    return n if n < 2 else fib(n - 1) + fib(n - 2)",
        "memo = {0: 0, 1: 1}\ndef fib(n):\n    if n not in memo:\n        memo[n] = fib(n - 1) + fib(n - 2)\n    return memo[n]",
    ],
    {
        "starts at 1": "def fib(n):\n    a, b = 1, 1\n    for _ in range(n):\n        a, b = b, a + b\n    return a",
        "closed form in floats": "def fib(n):\n    return round((((1 + 5**.5) / 2)**n) / 5**.5)",
        "exponential time": "def fib(n):\n    return n if n < 2 else fib(n - 1) + fib(n - 2)",
        "wrong base": "def fib(n):\n    return 1 if n < 2 else fib(n - 1) + fib(n - 2)",
    },
)
P["palindrome"] = Labelled(
    [
        "assert is_palindrome('level')",
        "assert not is_palindrome('hello')",
        "assert is_palindrome('') == True",
        "assert is_palindrome('abca') is False",
    ],
    [
        "def is_palindrome(s):\n    return s == s[::-1]",
        "def is_palindrome(s):\n    return all(x == y for x, y in zip(s, reversed(s)))",
        "def is_palindrome(s):\n    i, j = 0, len(s) - 1\n    while i < j:\n        if s[i] != s[j]:\n            return False\n        i, j = i + 1, j - 1\n    return True",
    ],
    {
        "only the ends": "def is_palindrome(s):\n    return s[:1] == s[-1:]",
        "always": "def is_palindrome(s):\n    return True",
        "0 is not False": "def is_palindrome(s):\n    return int(s == s[::-1])",
        "empty is refused": "def is_palindrome(s):\n    return bool(s) and s == s[::-1]",
        "None for no": "def is_palindrome(s):\n    if s == s[::-1]:\n        return True",
    },
)
P["vowels"] = Labelled(
    calls("vowels", (["hello"], 2), (["XYZ"], 0), (["AEIOU aeiou"], 10)),
    [
        "def vowels(s):\n    return sum(c in 'aeiouAEIOU' for c in s)",
        "import re\ndef vowels(s):\n    return len(re.findall('[aeiou]', s, re.I))",
        "def vowels(s):\n    n = 0\n    for c in s.lower():\n        if c in set('aeiou'):\n            n += 1\n    return n",
    ],
    {
        "lower case only": "def vowels(s):\n    return sum(c in 'aeiou' for c in s)",
        "distinct ones": "def vowels(s):\n    return len(set(s.lower()) & set('aeiou'))",
        "counts y": "def vowels(s):\n    return sum(c in 'aeiouy' for c in s.lower())",
        "consonants": "def vowels(s):\n    return sum(c not in 'aeiou' for c in s.lower())",
    },
)
P["counts"] = Labelled(
    calls("counts", (["aab"], {"a": 2, "b": 1}), ([""], {}), (["zzz"], {"z": 3})),
    [
        "from collections import Counter as counts",
        "from collections import defaultdict\ndef counts(s):\n    d = defaultdict(int)\n    for c in s:\n        d[c] += 1\n    return d",
        "def counts(s):\n    return {c: s.count(c) for c in s}",
        "from collections import OrderedDict\ndef counts(s):\n    return OrderedDict((c, s.count(c)) for c in reversed(s))",
    ],
    {
        "pairs": "from collections import Counter\ndef counts(s):\n    return list(Counter(s).items())",
        "all ones": "def counts(s):\n    return dict.fromkeys(s, 1)",
        "one letter too many": "def counts(s):\n    return {**{c: s.count(c) for c in s}, '': 0}",
        "text numbers": "def counts(s):\n    return {c: str(s.count(c)) for c in s}",
    },
)
P["unique"] = Labelled(
    [
        "assert set(unique([1, 2, 2, 3])) == {1, 2, 3}",
        "assert len(unique([5, 5, 5])) == 1",
        "assert sorted(unique([3, 1, 3])) == [1, 3]",
    ],
    [
        "unique = set",
        "def unique(xs):\n    return list(dict.fromkeys(xs))",
        "def unique(xs):\n    out = []\n    for x in xs:\n        if x not in out:\n            out.append(x)\n    return tuple(out)",
    ],
    {
        "keeps them": "unique = list",
        "those that occur once": "def unique(xs):\n    return [x for x in xs if xs.count(x) == 1]",
        "a number": "def unique(xs):\n    return len(set(xs))",
        "drops the first": "def unique(xs):\n    return sorted(set(xs))[1:]",
    },
)
P["sort by second"] = Labelled(
    [
        "assert by_second([(1, 3), (2, 1)]) == [(2, 1), (1, 3)]",
        "assert by_second([]) == []",
        "assert by_second([('b', 2), ('a', 2)]) == [('b', 2), ('a', 2)]",
    ],
    [
        "def by_second(ps):\n    return sorted(ps, key=lambda p: p[1])",
        "from operator import itemgetter\ndef by_second(ps):\n    ps = list(ps)\n    ps.sort(key=itemgetter(1))\n    return ps",
        "def by_second(ps):\n    out = []\n    for p in ps:\n        i = len(out)\n        while i and out[i - 1][1] > p[1]:\n            i -= 1\n        out.insert(i, p)\n    return out",
    ],
    {
        "by first": "def by_second(ps):\n    return sorted(ps)",
        "not stable": "def by_second(ps):\n    return sorted(ps, key=lambda p: (p[1], p[0]))",
        "downwards": "def by_second(ps):\n    return sorted(ps, key=lambda p: -p[1])",
        "lists for tuples": "def by_second(ps):\n    return [list(p) for p in sorted(ps, key=lambda p: p[1])]",
        "sorts in place": "def by_second(ps):\n    ps.sort(key=lambda p: p[1])",
    },
)
P["mean"] = Labelled(
    calls("mean", ([[1, 2]], 1.5), ([[0.1, 0.2, 0.3]], 0.2), ([[3]], 3.0)),
    [
        "def mean(xs):\n    return sum(xs) / len(xs)",
        "from statistics import mean",
        "from math import fsum\ndef mean(xs):\n    return fsum(xs) / len(xs)",
    ],
    {
        "whole": "def mean(xs):\n    return sum(xs) // len(xs)",
        "rounded": "def mean(xs):\n    return round(sum(xs) / len(xs))",
        "median": "def mean(xs):\n    return sorted(xs)[len(xs) // 2]",
        "near": "def mean(xs):\n    return sum(xs) / len(xs) + 1e-6",
    },
)
P["circle"] = Labelled(
    [
        "assert math.isclose(area(1), 3.141592653589793, rel_tol=1e-9)",
        "assert abs(area(2.5) - 19.634954) < 1e-5",
        "assert area(0) == 0",
    ],
    [
        "import math\ndef area(r):\n    return math.pi * r ** 2",
        "from math import pi\narea = lambda r: pi * r * r",
        "import cmath\ndef area(r):\n    return cmath.pi * r * r",
    ],
    {
        "coarse": "def area(r):\n    return 3.14 * r * r",
        "circumference": "import math\ndef area(r):\n    return 2 * math.pi * r",
        "a text": "import math\ndef area(r):\n    return f'{math.pi * r * r:.9f}'",
        "not a number": "def area(r):\n    return float('nan')",
    },
)
P["prime"] = Labelled(
    [
        "assert is_prime(2) == True",
        "assert is_prime(1) == False",
        "assert is_prime(91) == False",
        "assert is_prime(7919) == True",
    ],
    [
        "def is_prime(n):\n    return n > 1 and all(n % d for d in range(2, int(n ** .5) + 1))",
        "def is_prime(n):\n    if n < 2:\n        return False\n    d = 2\n    while d * d <= n:\n        if n % d == 0:\n            return False\n        d += 1\n    return True",
        "def is_prime(n):\n    sieve = [False, False] + [True] * n\n    for i in range(2, n + 1):\n        if sieve[i]:\n            for j in range(i * i, n + 1, i):\n                sieve[j] = False\n    return sieve[n]",
        "def is_prime(n):\n    return 1 if n > 1 and all(n % d for d in range(2, n)) else 0",
    ],
    {
        "1 is one": "def is_prime(n):\n    return all(n % d for d in range(2, int(n ** .5) + 1))",
        "odd numbers": "def is_prime(n):\n    return n == 2 or n % 2 == 1",
        "2 is none": "def is_prime(n):\n    return n > 2 and all(n % d for d in range(2, n))",
        "few divisors": "def is_prime(n):\n    return n > 1 and all(n % d for d in (2, 3, 5) if d < n)",
    },
)
P["gcd"] = Labelled(
    calls("gcd", ([12, 18], 6), ([7, 5], 1), ([0, 9], 9), ([10**18, 10**12], 10**12)),
    [
        "from math import gcd",
        "def gcd(a, b):\n    while b:\n        a, b = b, a % b\n    return a",
        "def gcd(a, b):\n    return a if b == 0 else gcd(b, a % b)",
    ],
    {
        "subtracts for ever at 0": "def gcd(a, b):\n    while a != b:\n        if a > b:\n            a -= b\n        else:\n            b -= a\n    return a",
        "least multiple": "import math\ngcd = math.lcm",
        "tries them all": "def gcd(a, b):\n    return max(d for d in range(1, max(a, b) + 1) if a % d == b % d == 0)",
        "smaller one": "def gcd(a, b):\n    return min(a, b)",
    },
)
P["flatten"] = Labelled(
    calls("flatten", ([[1, [2, [3, []]]]], [1, 2, 3]), ([[]], []), ([[[["x"]]]], ["x"])),
    [
        "def flatten(x):\n    return [z for y in x for z in (flatten(y) if isinstance(y, list) else [y])]",
        "def flatten(x):\n    out, stack = [], list(reversed(x))\n    while stack:\n        y = stack.pop()\n        if isinstance(y, list):\n            stack.extend(reversed(y))\n        else:\n            out.append(y)\n    return out",
        "def walk(x):\n    for y in x:\n        if type(y) is list:\n            yield from walk(y)\n        else:\n            yield y\ndef flatten(x):\n    return list(walk(x))",
    ],
    {
        "one level": "def flatten(x):\n    return [z for y in x for z in (y if isinstance(y, list) else [y])]",
        "unchanged": "def flatten(x):\n    return x",
        "generator": "def flatten(x):\n    for y in x:\n        if isinstance(y, list):\n            yield from flatten(y)\n        else:\n            yield y",
        "tuple": "def flatten(x):\n    return tuple(z for y in x for z in (flatten(y) if isinstance(y, list) else [y]))",
        "backwards": "def flatten(x):\n    return [z for y in reversed(x) for z in (flatten(y) if isinstance(y, list) else [y])]",
    },
)
P["binary"] = Labelled(
    calls("binary", ([0], "0"), ([6], "110"), ([255], "11111111")),
    [
        "def binary(n):\n    return bin(n)[2:]",
        "def binary(n):\n    return f'{n:b}'",
        "def binary(n):\n    return str(n) if n < 2 else binary(n // 2) + str(n % 2)",
    ],
    {
        "prefix": "binary = bin",
        "number": "def binary(n):\n    return int(bin(n)[2:])",
        "backwards": "def binary(n):\n    return bin(n)[:1:-1]",
        "nothing for 0": "def binary(n):\n    s = ''\n    while n:\n        s, n = str(n % 2) + s, n // 2\n    return s",
    },
)
P["caesar"] = Labelled(
    calls("shift", (["abc", 1], "bcd"), (["xyz", 3], "abc"), (["Hi!", 2], "Jk!")),
    [
        "def shift(s, n):\n    out = ''\n    for c in s:\n        if c.isalpha():\n            a = ord('a') if c.islower() else ord('A')\n            c = chr((ord(c) - a + n) % 26 + a)\n        out += c\n    return out",
        "import string\ndef shift(s, n):\n    l, u = string.ascii_lowercase, string.ascii_uppercase\n    return s.translate(str.maketrans(l + u, l[n:] + l[:n] + u[n:] + u[:n]))",
    ],
    {
        "does not wrap": "def shift(s, n):\n    return ''.join(chr(ord(c) + n) if c.isalpha() else c for c in s)",
        "the other way": "def shift(s, n):\n    return ''.join(chr((ord(c) - 97 - n) % 26 + 97) if c.islower() else c for c in s)",
        "lower case only": "def shift(s, n):\n    return ''.join(chr((ord(c) - 97 + n) % 26 + 97) if c.islower() else c for c in s)",
        "shifts marks": "def shift(s, n):\n    return ''.join(chr((ord(c) - 97 + n) % 26 + 97) for c in s)",
    },
)
P["two sum"] = Labelled(
    calls("two_sum", ([[2, 7, 11, 15], 9], [0, 1]), ([[3, 2, 4], 6], [1, 2]), ([[3, 3], 6], [0, 1])),
    [
        "class Solution:\n    def two_sum(self, nums, target):\n        seen = {}\n        for i, x in enumerate(nums):\n            if target - x in seen:\n                return [seen[target - x], i]\n            seen[x] = i",
        "def two_sum(nums, target):\n    for i in range(len(nums)):\n        for j in range(i + 1, len(nums)):\n            if nums[i] + nums[j] == target:\n                return [i, j]",
        "from itertools import combinations\nfrom typing import List\ndef two_sum(nums: List[int], target: int) -> List[int]:\n    return next([i, j] for (i, x), (j, y) in combinations(enumerate(nums), 2) if x + y == target)",
    ],
    {
        "values": "def two_sum(nums, target):\n    return next([x, y] for i, x in enumerate(nums) for y in nums[i + 1:] if x + y == target)",
        "one twice": "def two_sum(nums, target):\n    return next([i, j] for i, x in enumerate(nums) for j, y in enumerate(nums) if x + y == target)",
        "swapped": "def two_sum(nums, target):\n    seen = {}\n    for i, x in enumerate(nums):\n        if target - x in seen:\n            return [i, seen[target - x]]\n        seen[x] = i",
        "uses List without import": "def two_sum(nums: List[int], target: int):\n    return [0, 1]",
    },
)
P["transpose"] = Labelled(
    calls("transpose", ([[[1, 2], [3, 4], [5, 6]]], [[1, 3, 5], [2, 4, 6]]), ([[[1]]], [[1]])),
    [
        "def transpose(m):\n    return [list(r) for r in zip(*m)]",
        "def transpose(m):\n    return [[r[i] for r in m] for i in range(len(m[0]))]",
    ],
    {
        "rows as tuples": "def transpose(m):\n    return list(zip(*m))",
        "unchanged": "def transpose(m):\n    return m",
        "square only": "def transpose(m):\n    return [[m[j][i] for j in range(len(m[0]))] for i in range(len(m[0]))]",
        "iterator": "def transpose(m):\n    return map(list, zip(*m))",
    },
)
P["divide"] = Labelled(
    calls("divide", ([7, 2], (3, 1)), ([-7, 2], (-4, 1)), ([6, 3], (2, 0))),
    [
        "divide = divmod",
        "def divide(a, b):\n    return a // b, a % b",
        "from collections import namedtuple\nR = namedtuple('R', 'q r')\ndef divide(a, b):\n    return R(*divmod(a, b))",
    ],
    {
        "list": "def divide(a, b):\n    return [a // b, a % b]",
        "towards zero": "def divide(a, b):\n    q = int(a / b)\n    return q, a - q * b",
        "swapped": "def divide(a, b):\n    return a % b, a // b",
        "quotient only": "def divide(a, b):\n    return a // b",
    },
)
P["set union"] = Labelled(
    ["assert union({1}, {2}) == {1, 2}", "assert union(set(), {3}) == {3}", "assert union({'a'}, {'a'}) == {'a'}"],
    ["def union(a, b):\n    return a | b", "union = set.union", "def union(a, b):\n    return frozenset(a) | b"],
    {
        "intersection": "def union(a, b):\n    return a & b",
        "list": "def union(a, b):\n    return list(a | b)",
        "difference": "def union(a, b):\n    return a ^ b",
        "adds in place": "def union(a, b):\n    return a.update(b)",
    },
)
P["none"] = Labelled(
    ["assert find([1, 2], 3) is None", "assert find([1, 2], 2) == 1", "assert find([], 0) == None"],
    [
        "def find(xs, x):\n    return xs.index(x) if x in xs else None",
        "def find(xs, x):\n    for i, y in enumerate(xs):\n        if x == y:\n            return i",
    ],
    {
        "-1": "def find(xs, x):\n    return xs.index(x) if x in xs else -1",
        "raises": "def find(xs, x):\n    return xs.index(x)",
        "text": "def find(xs, x):\n    return xs.index(x) if x in xs else 'None'",
        "False": "def find(xs, x):\n    return xs.index(x) if x in xs else False",
    },
)
P["bytes"] = Labelled(
    calls("packed", ([[72, 105]], b"Hi"), ([[]], b""), ([[255, 0]], b"\xff\x00")),
    [
        "packed = bytes",
        "def packed(xs):\n    return b''.join(x.to_bytes(1, 'big') for x in xs)",
        "import struct\ndef packed(xs):\n    return struct.pack(f'{len(xs)}B', *xs)",
    ],
    {
        "text": "def packed(xs):\n    return ''.join(map(chr, xs))",
        "bytearray": "packed = bytearray",
        "hex": "def packed(xs):\n    return bytes(xs).hex()",
    },
)
P["merge"] = Labelled(
    calls(
        "merge",
        ([[[1, 3], [2, 6], [8, 10]]], [[1, 6], [8, 10]]),
        ([[[1, 4], [4, 5]]], [[1, 5]]),
        ([[[5, 6], [1, 9]]], [[1, 9]]),
    ),
    [
        "def merge(xs):\n    out = []\n    for a, b in sorted(xs):\n        if out and a <= out[-1][1]:\n            out[-1][1] = max(out[-1][1], b)\n        else:\n            out.append([a, b])\n    return out",
        "def merge(xs):\n    xs = sorted(map(list, xs))\n    i = 0\n    while i + 1 < len(xs):\n        if xs[i + 1][0] <= xs[i][1]:\n            xs[i][1] = max(xs[i][1], xs.pop(i + 1)[1])\n        else:\n            i += 1\n    return xs",
    ],
    {
        "does not sort": "def merge(xs):\n    out = []\n    for a, b in xs:\n        if out and a <= out[-1][1]:\n            out[-1][1] = max(out[-1][1], b)\n        else:\n            out.append([a, b])\n    return out",
        "touching kept apart": "def merge(xs):\n    out = []\n    for a, b in sorted(xs):\n        if out and a < out[-1][1]:\n            out[-1][1] = max(out[-1][1], b)\n        else:\n            out.append([a, b])\n    return out",
        "takes the later end": "def merge(xs):\n    out = []\n    for a, b in sorted(xs):\n        if out and a <= out[-1][1]:\n            out[-1][1] = b\n        else:\n            out.append([a, b])\n    return out",
    },
)
P["keyword"] = Labelled(
    [
        {"call": "greet", "args": ["Ann"], "kwargs": {"mark": "?"}, "expected": "Hi Ann?"},
        "assert greet('Bo') == 'Hi Bo!'",
        "assert greet(name='Cy', mark='.') == 'Hi Cy.'",
    ],
    [
        "def greet(name, mark='!'):\n    return 'Hi ' + name + mark",
        "def greet(name, *, mark='!'):\n    return f'Hi {name}{mark}'",
        "def greet(name, **more):\n    return 'Hi %s%s' % (name, more.get('mark', '!'))",
    ],
    {
        "no default": "def greet(name, mark):\n    return f'Hi {name}{mark}'",
        "no mark": "def greet(name, mark='!'):\n    return 'Hi ' + name",
        "other keyword": "def greet(name, end='!'):\n    return f'Hi {name}{end}'",
    },
)
P["roman"] = Labelled(
    calls("roman", ([4], "IV"), ([1994], "MCMXCIV"), ([58], "LVIII")),
    [
        "def roman(n):\n    out = ''\n    for v, s in zip((1000,900,500,400,100,90,50,40,10,9,5,4,1), 'M CM D CD C XC L XL X IX V IV I'.split()):\n        while n >= v:\n            out += s\n            n -= v\n    return out",
        "def roman(n):\n    t = ['', 'I', 'II', 'III', 'IV', 'V', 'VI', 'VII', 'VIII', 'IX']\n    up = lambda s, a: s.translate(str.maketrans('IVX', a))\n    return 'M' * (n // 1000) + up(t[n // 100 % 10], 'CDM') + up(t[n // 10 % 10], 'XLC') + t[n % 10]",
    ],
    {
        "IIII": "def roman(n):\n    out = ''\n    for v, s in ((1000,'M'),(500,'D'),(100,'C'),(50,'L'),(10,'X'),(5,'V'),(1,'I')):\n        out += s * (n // v)\n        n %= v\n    return out",
        "lower case": "def roman(n):\n    out = ''\n    for v, s in zip((1000,900,500,400,100,90,50,40,10,9,5,4,1), 'm cm d cd c xc l xl x ix v iv i'.split()):\n        while n >= v:\n            out += s\n            n -= v\n    return out",
        "does not compile": "def roman(n)\n    return 'IV'",
    },
)
P["anagram"] = Labelled(
    [
        "assert anagram('listen', 'silent') == True",
        "assert anagram('aab', 'abb') == False",
        "assert anagram('a', 'aa') == False",
    ],
    [
        "def anagram(a, b):\n    return sorted(a) == sorted(b)",
        "from collections import Counter\ndef anagram(a, b):\n    return Counter(a) == Counter(b)",
        "def anagram(a, b):\n    b = list(b)\n    for c in a:\n        if c not in b:\n            return False\n        b.remove(c)\n    return not b",
    ],
    {
        "sets": "def anagram(a, b):\n    return set(a) == set(b)",
        "lengths": "def anagram(a, b):\n    return len(a) == len(b)",
        "part of": "def anagram(a, b):\n    return all(c in b for c in a)",
        "stops with an exit": "import sys\ndef anagram(a, b):\n    sys.exit(sorted(a) == sorted(b))",
    },
)
P["balanced"] = Labelled(
    [
        "assert balanced('([])') == True",
        "assert balanced('([)]') == False",
        "assert balanced('(') == False",
        "assert balanced(')(') == False",
        "assert balanced('') == True",
    ],
    [
        "def balanced(s):\n    stack = []\n    for c in s:\n        if c in '([{':\n            stack.append(c)\n        elif not stack or stack.pop() + c not in ('()', '[]', '{}'):\n            return False\n    return not stack",
        "def balanced(s):\n    while True:\n        t = s.replace('()', '').replace('[]', '').replace('{}', '')\n        if t == s:\n            return s == ''\n        s = t",
    ],
    {
        "counts only": "def balanced(s):\n    return s.count('(') == s.count(')') and s.count('[') == s.count(']')",
        "forgets the rest": "def balanced(s):\n    stack = []\n    for c in s:\n        if c in '([{':\n            stack.append(c)\n        elif not stack or stack.pop() + c not in ('()', '[]', '{}'):\n            return False\n    return True",
        "pops from nothing": "def balanced(s):\n    stack = []\n    for c in s:\n        if c in '([{':\n            stack.append(c)\n        elif stack.pop() + c not in ('()', '[]', '{}'):\n            return False\n    return not stack",
        "empty is not": "def balanced(s):\n    if not s: return False\n    while '()' in s or '[]' in s:\n        s = s.replace('()', '').replace('[]', '')\n    return not s",
    },
)
P["digits"] = Labelled(
    calls("digits", ([123], 6), ([0], 0), ([99999], 45)),
    [
        "def digits(n):\n    return sum(map(int, str(n)))",
        "def digits(n):\n    s = 0\n    while n:\n        n, d = divmod(n, 10)\n        s += d\n    return s",
        "def digits(n):\n    return n if n < 10 else n % 10 + digits(n // 10)",
    ],
    {
        "digital root": "def digits(n):\n    return n and (n - 1) % 9 + 1",
        "how many": "def digits(n):\n    return len(str(n))",
        "product": "import math\ndef digits(n):\n    return math.prod(map(int, str(n)))",
        "does not end": "def digits(n):\n    s = 0\n    while n > 0:\n        s += n % 10\n    return s",
    },
)
P["window"] = Labelled(
    calls("best", ([[1, -2, 3, 4], 2], 7), ([[-5, -1, -3], 1], -1), ([list(range(20000)), 10000], 149995000)),
    [
        "def best(xs, k):\n    s = m = sum(xs[:k])\n    for i in range(k, len(xs)):\n        s += xs[i] - xs[i - k]\n        m = max(m, s)\n    return m",
        "from itertools import accumulate\ndef best(xs, k):\n    c = [0, *accumulate(xs)]\n    return max(b - a for a, b in zip(c, c[k:]))",
    ],
    {
        "starts from 0": "def best(xs, k):\n    return max(0, *(sum(xs[i:i + k]) for i in range(len(xs) - k + 1)))",
        "last one left out": "def best(xs, k):\n    return max(sum(xs[i:i + k]) for i in range(len(xs) - k))",
        "sleeps": "import time\ndef best(xs, k):\n    time.sleep(60)\n    return 7",
    },
)
P["power mod"] = Labelled(
    calls("power", ([2, 10, 1000], 24), ([3, 10**15, 10**9 + 7], pow(3, 10**15, 10**9 + 7)), ([5, 0, 7], 1)),
    [
        "power = pow",
        "def power(b, e, m):\n    r = 1\n    while e:\n        if e & 1:\n            r = r * b % m\n        b, e = b * b % m, e >> 1\n    return r % m",
    ],
    {
        "too slow and too large": "def power(b, e, m):\n    return b ** e % m",
        "step by step": "def power(b, e, m):\n    r = 1\n    for _ in range(e):\n        r = r * b % m\n    return r",
        "0 at 0": "def power(b, e, m):\n    return pow(b, e, m) if e else 0",
    },
)
P["nested data"] = Labelled(
    calls("invert", ([{"a": 1, "b": 1, "c": 2}], {1: ["a", "b"], 2: ["c"]}), ([{}], {})),
    [
        "def invert(d):\n    out = {}\n    for k, v in d.items():\n        out.setdefault(v, []).append(k)\n    return out",
        "from collections import defaultdict\ndef invert(d):\n    out = defaultdict(list)\n    for k in d:\n        out[d[k]] += [k]\n    return out",
    ],
    {
        "last wins": "def invert(d):\n    return {v: [k] for k, v in d.items()}",
        "bare values": "def invert(d):\n    return {v: k for k, v in d.items()}",
        "text keys": "def invert(d):\n    out = {}\n    for k, v in d.items():\n        out.setdefault(str(v), []).append(k)\n    return out",
        "sets": "def invert(d):\n    out = {}\n    for k, v in d.items():\n        out.setdefault(v, set()).add(k)\n    return out",
    },
)
P["complex roots"] = Labelled(
    ["assert abs(root(-4) - 2j) < 1e-9", "assert root(9) == 3", "assert root(0) == 0"],
    ["import cmath\nroot = cmath.sqrt", "def root(x):\n    return x ** .5 if x >= 0 else (-x) ** .5 * 1j"],
    {
        "real only": "import math\nroot = math.sqrt",
        "negative": "def root(x):\n    return -(x + 0j) ** .5 if x else 1",
        "of the size": "def root(x):\n    return abs(x) ** .5",
    },
)
P["rotate"] = Labelled(
    [
        "assert rotate([1, 2, 3], 1)[0] == 3",
        "assert rotate([1, 2, 3], 4) == [3, 1, 2]",
        "assert rotate([], 3) == []",
        "assert rotate([1, 2], 0)[-1] == 2",
    ],
    [
        "def rotate(xs, k):\n    if not xs:\n        return []\n    k %= len(xs)\n    return xs[-k:] + xs[:-k] if k else xs",
        "from collections import deque\ndef rotate(xs, k):\n    d = deque(xs)\n    d.rotate(k)\n    return list(d)",
    ],
    {
        "to the left": "def rotate(xs, k):\n    return xs[k % len(xs):] + xs[:k % len(xs)] if xs else []",
        "no modulo": "def rotate(xs, k):\n    return xs[-k:] + xs[:-k]",
        "deque": "from collections import deque\ndef rotate(xs, k):\n    d = deque(xs)\n    d.rotate(k)\n    return d",
        "divides by nothing": "def rotate(xs, k):\n    k %= len(xs)\n    return xs[-k:] + xs[:-k]",
    },
)

# whole programs, from standard input to standard output
P["sum of two"] = Labelled(
    lines(("3 4\n", "7\n"), ("-1 1\n", "0\n"), ("1000000000000 1\n", "1000000000001\n")),
    [
        "a, b = map(int, input().split())\nprint(a + b)",
        "import sys\nprint(sum(map(int, sys.stdin.read().split())))",
        "def main():\n    a, b = input().split()\n    print(int(a) + int(b))\n\nif __name__ == '__main__':\n    main()",
        "import sys\nsys.stdout.write(str(sum(int(x) for x in sys.stdin.readline().split())))",
        "import os\nos.write(1, b'%d' % sum(map(int, os.read(0, 100).split())))\nos._exit(0)",
    ],
    {
        "a word too many": "a, b = map(int, input().split())\nprint('sum', a + b)",
        "two lines expected": "a = int(input())\nb = int(input())\nprint(a + b)",
        "floats": "a, b = map(float, input().split())\nprint(a + b)",
        "to standard error": "import sys\na, b = map(int, input().split())\nprint(a + b, file=sys.stderr)",
        "fails after": "a, b = map(int, input().split())\nprint(a + b)\nraise ValueError",
        "defines only": "def main():\n    a, b = map(int, input().split())\n    print(a + b)",
    },
)
P["reverse lines"] = Labelled(
    lines(("a\nb\nc\n", "c\nb\na\n"), ("x\n", "x\n"), ("1 2\n\u00e9\n", "\u00e9\n1 2\n")),
    [
        "import sys\nprint('\\n'.join(reversed(sys.stdin.read().splitlines())))",
        "import sys\nfor line in list(sys.stdin)[::-1]:\n    print(line, end='')",
        "out = []\nwhile True:\n    try:\n        out.append(input())\n    except EOFError:\n        break\nprint(*out[::-1], sep='\\n')",
    ],
    {
        "letters": "import sys\nprint(sys.stdin.read()[::-1])",
        "as it came": "import sys\nprint(sys.stdin.read())",
        "first line": "print(input())",
        "sorted downwards": "import sys\nprint(*sorted(sys.stdin.read().splitlines())[::-1], sep=' ')",
    },
)
P["pyramid"] = Labelled(
    lines(("3\n", "  *\n ***\n*****\n"), ("1\n", "*\n")),
    [
        "n = int(input())\nfor i in range(n):\n    print(' ' * (n - 1 - i) + '*' * (2 * i + 1))",
        "n = int(input())\nfor i in range(n):\n    print(('*' * (2 * i + 1)).center(2 * n - 1))",
    ],
    {
        "not centred": "n = int(input())\nfor i in range(n):\n    print('*' * (2 * i + 1))",
        "upside down": "n = int(input())\nfor i in reversed(range(n)):\n    print(' ' * (n - 1 - i) + '*' * (2 * i + 1))",
        "a row short": "n = int(input())\nfor i in range(n - 1):\n    print(' ' * (n - 1 - i) + '*' * (2 * i + 1))",
        "empty lines between": "n = int(input())\nfor i in range(n):\n    print(' ' * (n - 1 - i) + '*' * (2 * i + 1) + '\\n')",
    },
)
P["average"] = Labelled(
    lines(("2\n1 2\n", "1.50\n"), ("3\n1 1 2\n", "1.33\n")),
    [
        "n = int(input())\nxs = list(map(int, input().split()))\nprint(f'{sum(xs) / n:.2f}')",
        "input()\nxs = [*map(int, input().split())]\nprint('%.2f' % (sum(xs) / len(xs)))",
    ],
    {
        "not rounded": "n = int(input())\nxs = list(map(int, input().split()))\nprint(sum(xs) / n)",
        "whole": "n = int(input())\nxs = list(map(int, input().split()))\nprint(sum(xs) // n)",
        "one decimal": "n = int(input())\nxs = list(map(int, input().split()))\nprint(f'{sum(xs) / n:.1f}')",
        "with n": "import sys\nxs = [*map(int, sys.stdin.read().split())]\nprint(f'{sum(xs) / len(xs):.2f}')",
    },
)
P["queries"] = Labelled(
    lines(
        ("3\npush 1\npush 2\npop\n", "2\n"),
        ("2\npop\npush 3\n", "empty\n"),
        ("4\npush 5\npop\npop\npush 1\n", "5\nempty\n"),
    ),
    [
        "stack = []\nfor _ in range(int(input())):\n    words = input().split()\n    if words[0] == 'push':\n        stack.append(words[1])\n    else:\n        print(stack.pop() if stack else 'empty')",
        "import sys\ndata = sys.stdin.read().split('\\n')\ns = []\nfor q in data[1:int(data[0]) + 1]:\n    if q == 'pop':\n        try:\n            print(s.pop())\n        except IndexError:\n            print('empty')\n    else:\n        s += [q[5:]]",
    ],
    {
        "a queue": "stack = []\nfor _ in range(int(input())):\n    words = input().split()\n    if words[0] == 'push':\n        stack.append(words[1])\n    else:\n        print(stack.pop(0) if stack else 'empty')",
        "fails when empty": "stack = []\nfor _ in range(int(input())):\n    words = input().split()\n    if words[0] == 'push':\n        stack.append(words[1])\n    else:\n        print(stack.pop())",
        "echoes": "stack = []\nfor _ in range(int(input())):\n    words = input().split()\n    if words[0] == 'push':\n        stack.append(words[1])\n        print(words[1])\n    else:\n        print(stack.pop() if stack else 'empty')",
        "keeps it": "stack = []\nfor _ in range(int(input())):\n    words = input().split()\n    if words[0] == 'push':\n        stack.append(words[1])\n    else:\n        print(stack[-1] if stack else 'empty')",
    },
)
P["deep"] = Labelled(
    lines(("5\n", "15\n"), ("20000\n", "200010000\n")),
    [
        "n = int(input())\nprint(n * (n + 1) // 2)",
        "import sys\nsys.setrecursionlimit(10**6)\ndef f(n):\n    return n and n + f(n - 1)\nprint(f(int(input())))",
        "import sys, threading\nsys.setrecursionlimit(10**6)\nthreading.stack_size(64 << 20)\ndef f(n):\n    return n and n + f(n - 1)\ndef main():\n    print(f(int(input())))\nt = threading.Thread(target=main)\nt.start()\nt.join()",
    ],
    {
        "too deep": "def f(n):\n    return n and n + f(n - 1)\nprint(f(int(input())))",
        "to n - 1": "print(sum(range(int(input()))))",
        "product": "import math\nprint(math.factorial(int(input())) % 1000)",
        "thread not waited for dies": "import threading, os\nt = threading.Thread(target=lambda: print(15))\nprint(end='')\nos._exit(0)",
    },
)
P["yes or no"] = Labelled(
    lines(("8\n", "YES\n"), ("3\n", "NO\n"), ("2\n", "NO\n")),
    [
        "n = int(input())\nprint('YES' if n > 2 and n % 2 == 0 else 'NO')",
        "w = int(input())\nif w % 2 or w == 2:\n    print('NO')\nelse:\n    print('YES')\nexit()",
    ],
    {
        "2 is split": "n = int(input())\nprint('YES' if n % 2 == 0 else 'NO')",
        "other case": "n = int(input())\nprint('Yes' if n > 2 and n % 2 == 0 else 'No')",
        "always no": "print('NO')",
        "full stop": "n = int(input())\nprint('YES.' if n > 2 and n % 2 == 0 else 'NO.')",
        "prompts": "n = int(input('weight? '))\nprint('YES' if n > 2 and n % 2 == 0 else 'NO')",
    },
)
P["word count"] = Labelled(
    lines(("the cat the\n", "cat 1\nthe 2\n"), ("b a\n", "a 1\nb 1\n")),
    [
        "from collections import Counter\nfor w, n in sorted(Counter(input().split()).items()):\n    print(w, n)",
        "words = input().split()\nfor w in sorted(set(words)):\n    print(f'{w} {words.count(w)}  ')",
    ],
    {
        "in order of coming": "from collections import Counter\nfor w, n in Counter(input().split()).items():\n    print(w, n)",
        "by number": "from collections import Counter\nfor w, n in Counter(input().split()).most_common():\n    print(w, n)",
        "colon": "from collections import Counter\nfor w, n in sorted(Counter(input().split()).items()):\n    print(w + ':', n)",
        "on one line": "from collections import Counter\nfor w, n in sorted(Counter(input().split()).items()):\n    print(w, n, end=' ')",
    },
)
P["scratch"] = Labelled(
    lines(("abc\n", "cba\n"), ("xy\n", "yx\n")),
    [
        "with open('note.txt', 'w') as f:\n    f.write(input())\nprint(open('note.txt').read()[::-1])",
        "import tempfile\nwith tempfile.TemporaryFile('w+') as f:\n    f.write(input())\n    f.seek(0)\n    print(f.read()[::-1])",
        "import atexit\ns = input()\natexit.register(lambda: print(s[::-1]))",
        "import asyncio\nasync def main():\n    await asyncio.sleep(0)\n    print(input()[::-1])\nasyncio.run(main())",
    ],
    {
        "file that is not there": "print(open('input.txt').read()[::-1])",
        "not turned": "print(input())",
        "upper case": "print(input()[::-1].upper())",
        "installed package": "import numpy\nprint(input()[::-1])",
    },
)
P["multiplication table"] = Labelled(
    lines(("2\n", "1 2\n2 4\n"), ("3\n", "1 2 3\n2 4 6\n3 6 9\n")),
    [
        "n = int(input())\nfor i in range(1, n + 1):\n    print(*(i * j for j in range(1, n + 1)))",
        "n = int(input())\nprint('\\n'.join(' '.join(str(i * j) for j in range(1, n + 1)) for i in range(1, n + 1)))\n",
    ],
    {
        "from 0": "n = int(input())\nfor i in range(n):\n    print(*(i * j for j in range(n)))",
        "sums": "n = int(input())\nfor i in range(1, n + 1):\n    print(*(i + j for j in range(1, n + 1)))",
        "commas": "n = int(input())\nfor i in range(1, n + 1):\n    print(*(i * j for j in range(1, n + 1)), sep=', ')",
        "lists": "n = int(input())\nfor i in range(1, n + 1):\n    print([i * j for j in range(1, n + 1)])",
    },
)
P["collatz"] = Labelled(
    lines(("1\n", "0\n"), ("6\n", "8\n"), ("27\n", "111\n")),
    [
        "n, k = int(input()), 0\nwhile n != 1:\n    n, k = (3 * n + 1 if n % 2 else n // 2), k + 1\nprint(k)",
        "from functools import cache\n@cache\ndef f(n):\n    return 0 if n == 1 else 1 + f(3 * n + 1 if n & 1 else n >> 1)\nprint(f(int(input())))",
    ],
    {
        "counts the start": "n, k = int(input()), 1\nwhile n != 1:\n    n, k = (3 * n + 1 if n % 2 else n // 2), k + 1\nprint(k)",
        "never ends": "n, k = int(input()), 0\nwhile n:\n    n, k = (3 * n + 1 if n % 2 else n // 2), k + 1\nprint(k)",
        "odd steps only": "n, k = int(input()), 0\nwhile n != 1:\n    k += n % 2\n    n = 3 * n + 1 if n % 2 else n // 2\nprint(k)",
    },
)
P["grid path"] = Labelled(
    lines(("2 2\n..\n..\n", "2\n"), ("3 3\n...\n.#.\n...\n", "2\n"), ("1 1\n.\n", "1\n")),
    [
        "h, w = map(int, input().split())\ng = [input() for _ in range(h)]\nd = [0] * w\nd[0] = 1\nfor r in g:\n    for j, c in enumerate(r):\n        d[j] = 0 if c == '#' else d[j] + (d[j - 1] if j else 0)\nprint(d[-1])",
        "import sys\nfrom functools import cache\nh, w, *g = sys.stdin.read().split()\nh, w = int(h), int(w)\n@cache\ndef f(i, j):\n    if i < 0 or j < 0 or g[i][j] == '#':\n        return 0\n    return 1 if i == j == 0 else f(i - 1, j) + f(i, j - 1)\nprint(f(h - 1, w - 1))",
    ],
    {
        "ignores walls": "from math import comb\nh, w = map(int, input().split())\nprint(comb(h + w - 2, h - 1))",
        "shortest": "h, w = map(int, input().split())\nprint(h + w - 2)",
        "also across": "h, w = map(int, input().split())\ng = [input() for _ in range(h)]\nd = [[0] * (w + 1) for _ in range(h + 1)]\nd[0][0] = 1\nfor i in range(h):\n    for j in range(w):\n        if g[i][j] == '.':\n            d[i + 1][j + 1] = d[i][j] + d[i][j + 1] + d[i + 1][j]\nprint(d[h][w])",
    },
)
P["big numbers"] = Labelled(
    lines(("2 200\n", f"{2**200}\n"), ("10 50\n", f"{10**50}\n")),
    [
        "a, b = map(int, input().split())\nprint(a ** b)",
        "a, b = map(int, input().split())\nr = 1\nfor _ in range(b):\n    r *= a\nprint(r)",
    ],
    {
        "floats": "a, b = map(float, input().split())\nprint(int(a ** b))",
        "in powers of ten": "a, b = map(int, input().split())\nprint(f'{a ** b:e}')",
        "times": "a, b = map(int, input().split())\nprint(a * b)",
    },
)
P["floats by tolerance"] = Labelled(
    lines(("2\n", "1.41421356237\n"), ("0.25\n", "0.5\n")),
    [
        "print(f'{float(input()) ** .5:.11f}')",
        "import math\nprint(math.sqrt(float(input())))",
        "import cmath\nprint(cmath.sqrt(float(input())).real)",
    ],
    {
        "two decimals": "print(f'{float(input()) ** .5:.2f}')",
        "square": "print(float(input()) ** 2)",
        "not a number": "print('nan')",
        "complex": "import cmath\nprint(cmath.sqrt(float(input())))",
    },
)
