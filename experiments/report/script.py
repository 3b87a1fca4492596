"""The report's script: headings become buttons that sort, what is too wide says so, folded parts open for printing."""

SCRIPT = """
"use strict";
for (const table of document.querySelectorAll("table.sortable")) {
  const heads = [...table.tHead.rows[0].cells], body = table.tBodies[0];
  if (body.rows.length < 2) continue;
  heads.forEach((head, place) => {
    const button = document.createElement("button");
    button.type = "button";
    button.append(...head.childNodes);
    head.append(button);
    head.setAttribute("aria-sort", "none");
    button.addEventListener("click", () => {
      const down = head.getAttribute("aria-sort") === "ascending", turn = down ? -1 : 1;
      const key = (row) => {
        const cell = row.cells[place], value = cell.dataset.v;
        return value === undefined ? cell.textContent.trim() : value === "" ? null : Number(value);
      };
      const rows = [...body.rows].map((row) => [key(row), row]);
      rows.sort(([a], [b]) => a === b ? 0 : a === null ? 1 : b === null ? -1 : turn *
        (typeof a === "number" && typeof b === "number" ? a - b
          : String(a).localeCompare(String(b), "en", { numeric: true })));
      body.append(...rows.map(([, row]) => row));
      for (const other of heads) other.setAttribute("aria-sort", "none");
      head.setAttribute("aria-sort", down ? "descending" : "ascending");
    });
  });
}
const sizes = new ResizeObserver((entries) => {
  for (const { target } of entries) target.classList.toggle("overflows", target.scrollWidth > target.clientWidth + 1);
});
for (const each of document.querySelectorAll(".scroll")) sizes.observe(each);
let folded = [];
addEventListener("beforeprint", () => {
  folded = [...document.querySelectorAll("details:not([open])")];
  for (const each of folded) each.open = true;
});
addEventListener("afterprint", () => { for (const each of folded) each.open = false; });
"""
