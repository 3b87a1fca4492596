"""The style sheet of the report: system fonts, one column, light and dark screens, narrow ones, and paper."""

from experiments.report.arm_style import TONES

LIGHT = """
  --paper: #fff; --ink: #1d232b; --muted: #56606b; --faint: #68727d; --rule: #e3e6ea; --line: #bcc3ca; --wash: #f6f7f9;
  --accent: #0b5c8f; --strip: #e9edf2; --zero: #8a939d; --shade: #1d232b40;
  --good: #0a5483; --good-bg: #e6f1f9; --good-edge: #b5d5ea; --bad: #983900; --bad-bg: #fdeee5; --bad-edge: #f2c6ab;
  --even: #0b6a4f; --even-bg: #e5f5ef; --even-edge: #b0dccd; --open: #4b545e; --open-bg: #f3f4f6; --open-edge: #d9dde2;
  --warn: #6d4f00; --warn-bg: #fffaea; --warn-edge: #ecd59a;
"""
_DARK = """
  --paper: #14181d; --ink: #e6e9ed; --muted: #a9b2bc; --faint: #929ca7; --rule: #2a3038; --line: #48515c;
  --wash: #1b2027; --accent: #6fb6e6; --strip: #252c35; --zero: #7a848f; --shade: #000;
  --good: #8cc8f2; --good-bg: #12293a; --good-edge: #27506e; --bad: #ffab7d; --bad-bg: #3a2014; --bad-edge: #70402a;
  --even: #7fd6b8; --even-bg: #12302a; --even-edge: #25584a; --open: #b9c1ca; --open-bg: #232930; --open-edge: #3b444e;
  --warn: #ebcb7a; --warn-bg: #2c2514; --warn-edge: #5d4d22;
"""


def _tones(place: int) -> str:
    return " ".join(f".t{tone} {{ --tone: {pair[place]}; }}" for tone, pair in enumerate(TONES))


FIGURE_CSS = """
svg text { font-family: var(--sans); font-size: 12px; fill: var(--ink); font-variant-numeric: tabular-nums; }
svg text.tick, svg text.label { fill: var(--muted); }
svg text.seed { font-size: 9.5px; fill: var(--muted); }
svg text.name { font-weight: 600; font-size: 12.5px; }
svg path { fill: none; }
.grid { stroke: var(--rule); } .axis { stroke: var(--zero); } .zero { stroke: var(--zero); stroke-width: 1.2; }
.margin { fill: var(--strip); } .edge { stroke: var(--zero); stroke-dasharray: 3 3; }
.diagonal { stroke: var(--zero); stroke-dasharray: 4 4; }
.run { stroke: var(--tone); stroke-width: .9; opacity: .36; }
.untrained { stroke: var(--ink); stroke-width: 1.6; stroke-dasharray: 1.5 3; }
.open-run { stroke: var(--tone); stroke-width: 1.4; stroke-dasharray: 1.5 3; }
svg path.band { fill: var(--tone); opacity: .13; }
.mean { stroke: var(--tone); stroke-width: 2.2; stroke-linejoin: round; }
.bar { stroke: var(--tone); stroke-width: 3.4; } .wide-bar { stroke: var(--tone); stroke-width: 1.2; }
.join { stroke: var(--tone); stroke-width: .8; opacity: .4; }
.elbow { stroke: var(--tone); stroke-width: 1.2; } .clique { stroke: var(--ink); stroke-width: 4; }
svg path.mark { fill: var(--tone); stroke: var(--paper); stroke-width: .8; }
svg path.hollow { fill: var(--paper); stroke: var(--tone); stroke-width: .6; }
.cell { fill: var(--open-bg); stroke: var(--open-edge); } .cell.blank { fill: none; stroke: var(--rule); }
.cell.better { fill: var(--good-bg); stroke: var(--good-edge); }
.cell.worse { fill: var(--bad-bg); stroke: var(--bad-edge); }
.cell.equivalent { fill: var(--even-bg); stroke: var(--even-edge); }
svg text.on { font-weight: 600; fill: var(--open); } svg text.on.better { fill: var(--good); }
svg text.on.worse { fill: var(--bad); } svg text.on.equivalent { fill: var(--even); }
"""
"""What figures need of the style sheet, on the page and as files."""

CSS = (
    f":root {{{LIGHT}}}\n{_tones(0)}\n"
    f"@media screen and (prefers-color-scheme: dark) {{\n:root {{{_DARK}}}\n{_tones(1)}\n}}"
    """
:root {
  --sans: system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", "Noto Sans", Arial, sans-serif;
  --mono: ui-monospace, "SF Mono", SFMono-Regular, Menlo, Consolas, "Liberation Mono", "DejaVu Sans Mono", monospace;
  color-scheme: light dark;
}
* { box-sizing: border-box; }
html { -webkit-text-size-adjust: 100%; }
body { margin: 0; background: var(--paper); color: var(--ink); font: 15.5px/1.55 var(--sans);
  overflow-wrap: break-word; }
main { max-width: 1100px; margin: 0 auto; padding: 52px 30px 72px; }
h1, h2, h3, h4 { line-height: 1.22; letter-spacing: -.012em; text-wrap: balance; font-weight: 650; }
h1 { font-size: 31px; margin: 6px 0 12px; max-width: 25em; }
h2 { font-size: 20px; margin: 50px 0 6px; padding-top: 18px; border-top: 1px solid var(--rule); }
h3 { font-size: 15.5px; margin: 26px 0 8px; letter-spacing: 0; }
h4 { font-size: 14px; margin: 18px 0 4px; letter-spacing: 0; }
p { margin: 0 0 12px; max-width: 47em; text-wrap: pretty; }
.eyebrow { margin: 0; color: var(--muted); font-size: 13px; letter-spacing: .02em; }
.answer { font-size: 18px; line-height: 1.45; font-weight: 500; max-width: 42em; }
.lede, .about { color: var(--muted); }
.about { font-size: 14px; margin-bottom: 16px; }
.about strong { color: var(--ink); }
code, pre, .mono { font-family: var(--mono); font-size: .88em; }
td.n { font-variant-numeric: tabular-nums lining-nums; }
:focus-visible { outline: 2px solid var(--accent); outline-offset: 2px; border-radius: 3px; }
.skip { position: absolute; left: -999em; }
.skip:focus { left: 12px; top: 10px; padding: 6px 12px; background: var(--paper); color: var(--accent); z-index: 1; }

.verdicts { list-style: none; margin: 22px 0 0; padding: 0; border-top: 1px solid var(--rule); }
.verdicts li { display: grid; grid-template-columns: 11.6em minmax(0, 1fr); gap: 4px 22px; align-items: start;
  padding: 11px 0; border-bottom: 1px solid var(--rule); }
.verdicts p { margin: 0; max-width: none; }
.verdicts .detail, .claim .detail { color: var(--muted); font-size: 13.5px; line-height: 1.45; margin-top: 2px; }
.contents { columns: 3 10.5em; list-style: none; margin: 26px 0 0; padding: 0; font-size: 14px; line-height: 1.75; }
.contents li { break-inside: avoid; }
.contents a { color: var(--accent); text-decoration: none; } .contents a:hover { text-decoration: underline; }
.back { position: fixed; right: 12px; bottom: 12px; padding: 5px 12px 6px; border: 1px solid var(--line);
  border-radius: 999px; background: var(--paper); color: var(--accent); font-size: 12.5px; text-decoration: none;
  z-index: 1; }
.badge { display: inline-block; padding: 1px 9px 2px 8px; border-radius: 999px; border: 1px solid; font-size: 12.5px;
  font-weight: 600; line-height: 1.5; white-space: nowrap; color: var(--open); background: var(--open-bg);
  border-color: var(--open-edge); }
.badge.long { white-space: normal; border-radius: 12px; }
.badge.better { color: var(--good); background: var(--good-bg); border-color: var(--good-edge); }
.badge.worse { color: var(--bad); background: var(--bad-bg); border-color: var(--bad-edge); }
.badge.equivalent { color: var(--even); background: var(--even-bg); border-color: var(--even-edge); }
.verdicts .depends { color: var(--warn); font-size: 13.5px; font-weight: 600; }
.alert summary { color: inherit; font-size: inherit; }
.alert details { margin: 0; }
.basis { display: block; color: var(--muted); font-size: 12px; margin: 1px 0 0 9px; white-space: nowrap; }
.turned { box-shadow: -3px 0 0 var(--bad); padding-left: 8px; margin-left: -8px; }
.alert, .claim { margin: 18px 0 0; padding: 11px 16px; border: 1px solid var(--warn-edge); border-radius: 8px;
  background: var(--warn-bg); }
.alert.strong { border-left-width: 5px; color: var(--warn); font-weight: 500; }
section > .alert { margin: 0 0 16px; }
.claim { border-color: var(--line); background: var(--wash); }
.claim strong { display: inline-block; min-width: 6.2em; }
.alert p, .claim p { margin: 0; max-width: none; }
.alert p + p, .claim p + p { margin-top: 6px; }

.scroll { overflow-x: auto; margin: 0 0 10px; background: linear-gradient(to right, var(--paper) 40%, transparent),
  linear-gradient(to left, var(--paper) 40%, transparent) right, linear-gradient(to right, var(--shade), transparent),
  linear-gradient(to left, var(--shade), transparent) right; background-repeat: no-repeat;
  background-size: 36px 100%, 36px 100%, 12px 100%, 12px 100%; background-attachment: local, local, scroll, scroll; }
.sideways { display: none; }
table { border-collapse: collapse; width: 100%; font-size: 14px; line-height: 1.4; }
th, td { text-align: left; padding: 8px 16px 8px 0; border-bottom: 1px solid var(--rule); vertical-align: middle; }
th:last-child, td:last-child { padding-right: 0; }
thead th { color: var(--muted); font-weight: 500; font-size: 12.5px; line-height: 1.3; vertical-align: bottom;
  border-bottom-color: var(--line); }
thead td { border-bottom-color: var(--line); }
thead th.n, td.n { text-align: right; }
tbody th { font-weight: 600; min-width: 7.5em; }
td.n { white-space: nowrap; }
.sortable td:not(.n) { min-width: 5.5em; }
.group thead th.n { min-width: 9em; }
td small, th small { display: block; color: var(--muted); font-size: 12px; font-weight: 400; }
th button { all: unset; cursor: pointer; display: block; width: 100%; position: relative; }
th button:focus-visible { outline: 2px solid var(--accent); outline-offset: 2px; border-radius: 3px; }
th button:hover { color: var(--accent); text-decoration: underline; }
th[aria-sort="ascending"] button::after { content: " ▲"; font-size: 9px; }
th[aria-sort="descending"] button::after { content: " ▼"; font-size: 9px; }
.arm { display: inline-flex; align-items: baseline; gap: 7px; }
th .arm { display: flex; }
th.n .arm { justify-content: flex-end; }
.arm span { min-width: 0; }
th .arm + small { margin-left: 37px; }
.swatch { width: 30px; height: 14px; flex: none; position: relative; top: 2px; overflow: visible; }
.interval { display: block; width: 150px; height: 26px; }
.interval + small { width: 150px; text-align: center; }
.comparisons tbody th { min-width: 8.4em; }
.comparisons td:nth-child(7) small { white-space: normal; max-width: 9em; margin-left: auto; }
.exploratory { border-left: 3px solid var(--warn-edge); padding-left: 14px; }
.exploratory td:nth-child(7) { min-width: 8em; }

dl.facts { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(240px, 100%), 1fr)); gap: 0 32px;
  margin: 8px 0 16px; }
dl.facts div { padding: 8px 0; border-bottom: 1px solid var(--rule); }
dl.facts dt { color: var(--muted); font-size: 12.5px; }
dl.facts dd { margin: 0; overflow-wrap: anywhere; }
ul.notes { margin: 0 0 12px; padding-left: 1.1em; max-width: 52em; }
ul.notes li { margin: 0 0 7px; padding-left: .2em; }
ul.notes li::marker { color: var(--faint); }

.legend { display: flex; flex-wrap: wrap; gap: 4px 24px; margin: 4px 0 14px; padding: 0; list-style: none;
  font-size: 14px; overflow-wrap: anywhere; }
.legend .tag, .tagged { color: var(--muted); }
.switch { border: 0; margin: 0 0 14px; padding: 0; display: flex; flex-wrap: wrap; gap: 6px 8px; font-size: 13.5px; }
.switch legend { float: left; padding: 4px 6px 4px 0; color: var(--muted); }
.switch input { position: absolute; opacity: 0; }
.switch label { padding: 3px 12px 4px; border: 1px solid var(--line); border-radius: 999px; cursor: pointer; }
.switch input:checked + label { background: var(--ink); color: var(--paper); border-color: var(--ink); }
.switch input:focus-visible + label { outline: 2px solid var(--accent); outline-offset: 2px; }
.panels { display: grid; grid-template-columns: repeat(2, minmax(0, 1fr)); gap: 22px 32px; }
.panels.thirds { grid-template-columns: repeat(3, minmax(0, 1fr)); margin-top: 18px; }
figure { margin: 0 0 8px; min-width: 0; }
figcaption { font-size: 13.5px; font-weight: 600; line-height: 1.4; margin: 0 0 4px; }

"""
    f"{FIGURE_CSS}"
    """
svg.figure { display: block; width: 100%; height: auto; }
.matrix { margin-top: 18px; } .matrix svg { width: 100%; }

.cards td, .cards thead th { min-width: 8.5em; overflow-wrap: anywhere; vertical-align: top; }
.cards thead th { color: var(--ink); font-weight: 600; font-size: 13.5px; }
.cards tbody th { color: var(--muted); font-weight: 500; width: 9em; vertical-align: top; }
.cards td { color: var(--faint); }
.cards tr.differs td { color: var(--ink); }
.cards tr.differs th { color: var(--ink); font-weight: 600; }
.cards tr.differs { background: var(--wash); }
.cards td, .cards th { padding-left: 10px; padding-right: 10px; }
.cards td.other { font-weight: 600; box-shadow: inset 3px 0 0 var(--tone); }
.cards code { font-size: 12px; }

.question { margin: 0 0 24px; break-inside: avoid; }
.question .prompt { color: var(--muted); font-size: 14px; margin: 16px 0 0; padding-bottom: 6px; max-width: none;
  border-bottom: 1px solid var(--line); overflow-wrap: anywhere; }
.question .prompt code { font-size: 15px; font-weight: 600; color: var(--ink); white-space: pre-wrap;
  margin: 0 .5em 0 0; }
.question td, .question th { vertical-align: baseline; padding-top: 7px; padding-bottom: 7px; }
.question th { width: 30%; font-size: 14px; font-weight: 500; }
.question th .arm { display: inline-flex; margin-right: 16px; }
.question .text { font-family: var(--mono); font-size: 13px; white-space: pre-wrap; overflow-wrap: anywhere;
  min-width: 16em; }
.question td.mark { white-space: nowrap; width: 13em; }
.question td.mark small { display: inline-block; min-width: 0; margin-left: .7em; }
.group td.none { color: var(--faint); }
.group thead th { width: auto; font-size: 12.5px; }
.right { color: var(--good); } .wrong { color: var(--bad); }
.cut { color: var(--faint); font-family: var(--sans); }
.turn { display: flex; gap: .7em; align-items: baseline; } .turn.read { color: var(--muted); }
.turn .role { flex: 0 0 7.5em; color: var(--faint); font: 12px var(--sans); }
.turn small { display: inline; min-width: 0; font-family: var(--sans); }

details { margin: 10px 0; }
summary { cursor: pointer; color: var(--accent); font-size: 14px; }
pre { background: var(--wash); border: 1px solid var(--rule); border-radius: 8px; padding: 12px 16px;
  margin: 8px 0 14px; overflow-x: auto; line-height: 1.5; font-size: 12.5px; }
pre.command { white-space: pre-wrap; overflow-wrap: anywhere; }
.runs td, .runs th { padding-top: 5px; padding-bottom: 5px; }
td small.cause { color: var(--bad); white-space: pre-wrap; max-width: 30em; overflow-wrap: anywhere; }
.failed { color: var(--bad); font-weight: 600; } .open { color: var(--warn); font-weight: 600; }

@supports selector(:has(*)) {
  @media screen {
    section:has(.switch) .on-axis { display: none; }
    section:has(#axis-steps:checked) .on-steps, section:has(#axis-seconds:checked) .on-seconds,
    section:has(#axis-sampled_tokens:checked) .on-sampled_tokens,
    section:has(#axis-tokens:checked) .on-tokens { display: block; }
    .on-axis > h3 { display: none; }
  }
}
@media screen {
  .overflows > .sideways { display: block; color: var(--muted); font-size: 12.5px; margin: 0 0 6px; position: sticky;
    left: 0; }
}
@media screen and (max-width: 820px) {
  figure.wide svg { min-width: 640px; }
  main { padding: 30px 18px 48px; }
  .panels, .panels.thirds { grid-template-columns: minmax(0, 1fr); }
  .verdicts li { grid-template-columns: minmax(0, 1fr); }
  .contents a { display: block; padding: 4px 0; }
  h1 { font-size: 26px; }
  table { font-size: 13.5px; }
  .sortable tbody th, .sortable thead th:first-child, .cards tbody th { position: sticky; left: 0;
    background: var(--paper); min-width: 6.6em; }
  th, td { padding-right: 13px; }
}
@media print {
  @page { size: A4; margin: 15mm 14mm 16mm; }
  body { font-size: 9.6pt; line-height: 1.45; print-color-adjust: exact; -webkit-print-color-adjust: exact; }
  main { max-width: none; padding: 0; }
  .skip, .switch, .contents, .back { display: none; }
  details::details-content { content-visibility: visible; display: block; }
  h1 { font-size: 19pt; } h2 { font-size: 13pt; margin-top: 24pt; padding-top: 9pt; }
  h2, h3, h4, .about, .legend, thead, figcaption, .prompt { break-after: avoid; }
  p, .lede { orphans: 3; widows: 3; font-size: inherit; } .answer { font-size: 11pt; }
  .about { font-size: 8.8pt; } .verdicts .detail { font-size: 8.2pt; } .basis { font-size: 7.4pt; }
  .about { break-inside: avoid; }
  table { font-size: 8pt; } td small, th small, thead th { font-size: 7.2pt; }
  th, td { padding: 3.5pt 6pt 3.5pt 0; } td.n { white-space: normal; }
  th button::after { content: none !important; }
  .scroll { overflow: visible; background: none; }
  .interval, .interval + small { width: 84px; }
  .badge { font-size: 7.6pt; padding: 0 6px 1px; } .basis { white-space: normal; margin-left: 4px; }
  figure, tr, li, .question, dl.facts div { break-inside: avoid; }
  .on-axis:not(.declared) figure:not(.main) { display: none; }
  .swatch { width: 22px; }
  .cards td, .cards thead th { min-width: 0; } .cards td, .cards th { padding-left: 5pt; padding-right: 5pt; }
  .cards code { font-size: 6.8pt; }
  .panels { gap: 12pt 14pt; }
  pre { white-space: pre-wrap; overflow-wrap: anywhere; font-size: 7.6pt; }
  .question .text { min-width: 0; font-size: 7.6pt; }
  tbody th, .comparisons tbody th, .sortable td:not(.n), .group thead th.n { min-width: 0; }
  .exploratory td:nth-child(7) { min-width: 0; }
}
"""
)
