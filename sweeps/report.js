// Sort a table by any of its columns: a press on a head, again for the other way round. Cells
// without a value stay last. Without scripts the heads are plain text, and nothing is missing.
(() => {
  "use strict";
  const number = (cell) => (cell.dataset.key === undefined ? null : Number(cell.dataset.key));
  const compare = (a, b) => {
    if (typeof a === "string") return a.localeCompare(b, "en", { numeric: true });
    return a - b;
  };
  const sort = (table, place, rising) => {
    const body = table.tBodies[0];
    const keyed = Array.from(body.rows, (row) => {
      const cell = row.cells[place];
      return [cell.tagName === "TH" ? cell.textContent : number(cell), row];
    });
    const known = keyed.filter(([key]) => key !== null);
    const unknown = keyed.filter(([key]) => key === null);
    known.sort(([a], [b]) => (rising ? compare(a, b) : compare(b, a)));
    body.append(...[...known, ...unknown].map(([, row]) => row));
  };
  for (const table of document.querySelectorAll("table.sortable")) {
    const heads = Array.from(table.tHead.rows[table.tHead.rows.length - 1].cells);
    heads.forEach((head, place) => {
      const button = document.createElement("button");
      button.type = "button";
      button.append(...head.childNodes);
      head.append(button);
      button.addEventListener("click", () => {
        const now = head.getAttribute("aria-sort");
        const rising = now ? now === "descending" : place === 0;
        heads.forEach((other) => other.removeAttribute("aria-sort"));
        head.setAttribute("aria-sort", rising ? "ascending" : "descending");
        sort(table, place, rising);
      });
    });
    heads[1].setAttribute("aria-sort", table.dataset.order);
  }
})();
