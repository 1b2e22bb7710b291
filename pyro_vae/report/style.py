"""The style sheet of a report."""

__all__ = ["STYLE"]

STYLE = """
:root { color-scheme: light; }
body {
  font: 16px/1.55 system-ui, sans-serif; color: #1c2126; background: #fff;
  max-width: 62rem; margin: 0 auto; padding: 1.2rem;
}
h1 { font-size: 1.7rem; line-height: 1.2; margin: .6rem 0 .2rem; }
h2 { font-size: 1.2rem; margin: 2.2rem 0 .6rem; border-bottom: 1px solid #d5dae0; }
h3 { font-size: 1rem; margin: 1.2rem 0 .2rem; }
p { margin: .4rem 0; max-width: 46rem; }
.quiet { color: #59636e; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; margin: .5rem 0; font-variant-numeric: tabular-nums; }
th, td {
  text-align: left; vertical-align: top;
  padding: .25rem .9rem .25rem 0; border-bottom: 1px solid #e6e9ed;
}
th { font-weight: 600; }
.facts td { overflow-wrap: anywhere; }
td.number, th.number { text-align: right; }
code, pre { font: .86rem/1.45 ui-monospace, monospace; overflow-wrap: anywhere; }
pre { background: #f5f7f9; padding: .7rem .9rem; overflow-x: auto; white-space: pre-wrap; }
summary { cursor: pointer; }
.formula img { max-width: 100%; height: auto; }
.warning {
  border-left: .25rem solid #b35900; background: #fff6ec;
  padding: .5rem .8rem; margin: .6rem 0; max-width: 46rem;
}
.figures {
  display: grid; gap: 1.4rem; align-items: start; grid-auto-flow: dense;
  grid-template-columns: repeat(auto-fit, minmax(min(100%, 27rem), 1fr));
}
figure { margin: 0; }
figure.broad { grid-column: 1 / -1; }
figure img { width: 100%; height: auto; }
figcaption { color: #59636e; font-size: .9rem; }
@media (max-width: 30rem) {
  table { font-size: .86rem; }
  th, td { padding-right: .45rem; }
  th { overflow-wrap: break-word; max-width: 11rem; }
  td { overflow-wrap: anywhere; }
  td.number { overflow-wrap: normal; }
}
@media print { body { max-width: none; } figure { break-inside: avoid; } }
"""
