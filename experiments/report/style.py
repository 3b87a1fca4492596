"""The style sheet of the report: system fonts, one column of at most 1100 px, and a form for paper."""

CSS = """
:root {
  --ink: #1d232b; --muted: #5b6570; --faint: #8a939d; --rule: #e3e6ea; --wash: #f6f7f9; --accent: #0b5c8f;
  --sans: system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", "Noto Sans", Arial, sans-serif;
  --mono: ui-monospace, "SF Mono", SFMono-Regular, Menlo, Consolas, "Liberation Mono", "DejaVu Sans Mono", monospace;
  color-scheme: light;
}
* { box-sizing: border-box; }
html { -webkit-text-size-adjust: 100%; }
body { margin: 0; background: #fff; color: var(--ink); font: 15.5px/1.55 var(--sans); }
main { max-width: 1100px; margin: 0 auto; padding: 52px 30px 72px; }
h1, h2, h3 { line-height: 1.22; letter-spacing: -.012em; text-wrap: balance; font-weight: 650; }
h1 { font-size: 31px; margin: 6px 0 12px; max-width: 25em; overflow-wrap: break-word; }
h2 { font-size: 20px; margin: 50px 0 6px; padding-top: 18px; border-top: 1px solid var(--rule); }
h3 { font-size: 15.5px; margin: 26px 0 8px; letter-spacing: 0; }
p { margin: 0 0 12px; max-width: 47em; text-wrap: pretty; }
.eyebrow { margin: 0; color: var(--muted); font-size: 13px; letter-spacing: .02em; }
.lede, .about { color: var(--muted); }
.lede { font-size: 15.5px; }
.about { font-size: 14px; margin-bottom: 16px; }
code, pre, .mono { font-family: var(--mono); font-size: .88em; }
.nums, td.n { font-variant-numeric: tabular-nums lining-nums; }
ul.plain { list-style: none; margin: 0; padding: 0; }

.verdicts { list-style: none; margin: 26px 0 0; padding: 0; border-top: 1px solid var(--rule); }
.verdicts li { display: grid; grid-template-columns: 9.2em minmax(0, 1fr); gap: 4px 22px; align-items: start;
  padding: 11px 0; border-bottom: 1px solid var(--rule); }
.verdicts p { margin: 0; max-width: none; overflow-wrap: break-word; }
.verdicts .detail { color: var(--muted); font-size: 13.5px; line-height: 1.45; margin-top: 2px; }
.badge { display: inline-block; padding: 1px 9px 2px 8px; border-radius: 999px; border: 1px solid; font-size: 12.5px;
  font-weight: 600; line-height: 1.5; white-space: nowrap; }
.badge.long { white-space: normal; border-radius: 12px; }
.badge.better { color: #0a5483; background: #e6f1f9; border-color: #b5d5ea; }
.badge.worse { color: #a03c00; background: #fdeee5; border-color: #f2c6ab; }
.badge.equivalent { color: #0b6a4f; background: #e5f5ef; border-color: #b0dccd; }
.badge.inconclusive, .badge.untestable, .badge.none { color: #4b545e; background: #f3f4f6; border-color: #d9dde2; }
.basis { display: block; color: var(--muted); font-size: 12px; margin: 1px 0 0 9px; white-space: nowrap; }
.badge.base { color: var(--muted); background: none; border-color: transparent; padding-left: 0; font-weight: 500; }
.alert { margin: 20px 0 0; padding: 11px 16px; border: 1px solid #ecd59a; background: #fffaea; border-radius: 8px; }
.alert p { margin: 0; max-width: none; }
.alert p + p { margin-top: 6px; }

.scroll { overflow-x: auto; margin: 0 0 10px; }
table { border-collapse: collapse; width: 100%; font-size: 14px; line-height: 1.4; }
th, td { text-align: left; padding: 8px 16px 8px 0; border-bottom: 1px solid var(--rule); vertical-align: middle; }
th:last-child, td:last-child { padding-right: 0; }
thead th { color: var(--muted); font-weight: 500; font-size: 12.5px; line-height: 1.3; vertical-align: bottom;
  border-bottom-color: #bcc3ca; }
thead th.n, td.n { text-align: right; }
tbody th { font-weight: 600; min-width: 7em; }
.verdict-table tbody th { min-width: 9.4em; }
td.n { white-space: nowrap; }
td small, th small { display: block; color: var(--muted); font-size: 12px; font-weight: 400; }
.arm { display: inline-flex; align-items: baseline; gap: 7px; }
th .arm { display: flex; }
.arm span { overflow-wrap: break-word; min-width: 0; }
.swatch { width: 26px; height: 14px; flex: none; position: relative; top: 2px; overflow: visible; }
.interval { display: block; width: 150px; height: 26px; }

dl.facts { display: grid; grid-template-columns: repeat(auto-fill, minmax(240px, 1fr)); gap: 0 32px;
  margin: 8px 0 16px; }
dl.facts div { padding: 8px 0; border-bottom: 1px solid var(--rule); }
dl.facts dt { color: var(--muted); font-size: 12.5px; }
dl.facts dd { margin: 0; overflow-wrap: anywhere; }
ul.notes { margin: 0 0 12px; padding-left: 1.1em; max-width: 52em; }
ul.notes li { margin: 0 0 7px; padding-left: .2em; }
ul.notes li::marker { color: var(--faint); }

.legend { display: flex; flex-wrap: wrap; gap: 4px 24px; margin: 4px 0 14px; padding: 0; list-style: none;
  font-size: 14px; overflow-wrap: anywhere; }
.legend .tag { color: var(--muted); }
.panels { display: grid; grid-template-columns: repeat(6, minmax(0, 1fr)); gap: 22px 26px; }
.panels > * { grid-column: span 3; min-width: 0; }
.panels > .third { grid-column: span 2; }
figure { margin: 0 0 8px; }
figcaption { color: var(--muted); font-size: 13px; line-height: 1.45; margin-top: 8px; max-width: 60em; }
svg.figure { display: block; width: 100%; height: auto; }
svg.figure text { font-family: var(--sans) !important; font-variant-numeric: tabular-nums; }

.cards td, .cards thead th { min-width: 8.5em; overflow-wrap: anywhere; vertical-align: top; }
.cards thead th { color: var(--ink); font-weight: 600; font-size: 13.5px; }
.cards tbody th { color: var(--muted); font-weight: 500; width: 9em; vertical-align: top; }
.cards td { color: var(--faint); }
.cards tr.differs td { color: var(--ink); }
.cards tr.differs th { color: var(--ink); font-weight: 600; }
.cards tr.differs { background: linear-gradient(var(--wash), var(--wash)); }
.cards td, .cards th { padding-left: 10px; padding-right: 10px; }
.cards td.other { font-weight: 600; box-shadow: inset 3px 0 0 var(--arm); }
.cards code { font-size: 12px; }

.question { margin: 0 0 24px; break-inside: avoid; }
.question h3 { font-weight: 400; color: var(--muted); font-size: 14px; margin: 22px 0 0; padding-bottom: 6px;
  border-bottom: 1px solid #bcc3ca; }
.question h3 code { font-size: 15px; font-weight: 600; color: var(--ink); white-space: pre-wrap;
  overflow-wrap: anywhere; margin: 0 .5em 0 0; }
.question td, .question th { vertical-align: baseline; padding-top: 7px; padding-bottom: 7px; }
.question table { table-layout: fixed; }
.question th { width: 30%; font-size: 14px; font-weight: 500; }
.question th .arm { display: inline-flex; margin-right: 16px; }
.question td.text { font-family: var(--mono); font-size: 13px; white-space: pre-wrap; overflow-wrap: anywhere; }
.question td.mark { white-space: nowrap; width: 13em; }
.question td.mark small { display: inline-block; min-width: 0; margin-left: .7em; }
.right { color: #0a5483; } .wrong { color: #a03c00; }
.cut { color: var(--faint); font-family: var(--sans); }

details { margin: 10px 0; }
summary { cursor: pointer; color: var(--accent); font-size: 14px; }
pre { background: var(--wash); border: 1px solid var(--rule); border-radius: 8px; padding: 12px 16px;
  margin: 8px 0 14px;
  overflow-x: auto; line-height: 1.5; font-size: 12.5px; }
pre.command { white-space: pre-wrap; overflow-wrap: anywhere; }
.runs td, .runs th { padding-top: 5px; padding-bottom: 5px; }
.runs tr.first td, .runs tr.first th { border-top: 1px solid #bcc3ca; }
.runs .error td { color: #a03c00; padding-top: 0; border-bottom-color: var(--rule); white-space: pre-wrap; }
.failed { color: #a03c00; font-weight: 600; } .open { color: #7a5a00; font-weight: 600; }
footer { margin-top: 64px; padding-top: 14px; border-top: 1px solid var(--rule); color: var(--muted); font-size: 13px; }

@media screen and (max-width: 820px) {
  figure.wide svg { min-width: 680px; }
  main { padding: 30px 18px 48px; }
  .panels > *, .panels > .third { grid-column: 1 / -1; }
  .verdicts li { grid-template-columns: 1fr; }
  h1 { font-size: 26px; }
}
@media print {
  @page { size: A4; margin: 15mm 14mm 16mm; }
  body { font-size: 9.6pt; line-height: 1.45; print-color-adjust: exact; -webkit-print-color-adjust: exact; }
  main { max-width: none; padding: 0; }
  h1 { font-size: 19pt; } h2 { font-size: 13pt; margin-top: 24pt; padding-top: 9pt; break-after: avoid; }
  h3, .about, .legend, thead { break-after: avoid; }
  p, .lede { orphans: 3; widows: 3; font-size: inherit; }
  .about { font-size: 8.8pt; } .verdicts .detail { font-size: 8.2pt; } .basis { font-size: 7.4pt; }
  .about, .verdict-table { break-inside: avoid; }
  table { font-size: 8.4pt; } td small, th small, thead th { font-size: 7.6pt; }
  th, td { padding: 3.5pt 8pt 3.5pt 0; }
  .scroll { overflow: visible; }
  .verdict-table .interval { width: 84px; }
  .badge { font-size: 7.8pt; padding: 0 6px 1px; }
  figure, tr, li, .question, dl.facts div { break-inside: avoid; }
  .cards td, .cards thead th { min-width: 0; } .cards td, .cards th { padding-left: 5pt; padding-right: 5pt; }
  .cards code { font-size: 6.8pt; }
  .panels { gap: 12pt 14pt; }
  pre { white-space: pre-wrap; font-size: 7.6pt; }
  tbody th, .verdict-table tbody th { min-width: 0; }
}
"""
