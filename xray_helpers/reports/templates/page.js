"use strict";
// Tables sort by a click on a heading, and can be copied; without scripts they are plain tables.
// What is folded opens where a link leads to it, and on paper.
const unfold = (at) => document.querySelectorAll(at).forEach((fold) => (fold.open = true));
const follow = () => location.hash.length > 1 && unfold(`details#${CSS.escape(decodeURIComponent(location.hash.slice(1)))}`);
addEventListener("hashchange", follow);
addEventListener("beforeprint", () => unfold("details.fold"));
follow();
const keyOf = (cell) => {
  const text = cell.textContent.trim();
  const number = text.match(/^[-+]?[\d,]*\.?\d+(e[-+]?\d+)?/i);
  return number ? parseFloat(number[0].replaceAll(",", "")) : text.toLowerCase();
};
const compare = (a, b) => (typeof a === typeof b ? (a < b ? -1 : a > b ? 1 : 0) : typeof a === "number" ? -1 : 1);
const sortBy = (table, index, heading) => {
  const down = heading.getAttribute("aria-sort") === "ascending";
  for (const other of heading.parentNode.cells) other.removeAttribute("aria-sort");
  heading.setAttribute("aria-sort", down ? "descending" : "ascending");
  const rows = [...table.tBodies[0].rows].map((row) => [keyOf(row.cells[index]), row]);
  rows.sort((a, b) => (down ? -1 : 1) * compare(a[0], b[0]));
  table.tBodies[0].append(...rows.map((pair) => pair[1]));
};
const copy = (table) => {
  const rows = [...table.rows].map((row) => [...row.cells].map((cell) => cell.innerText.replace(/\s+/g, " ").trim()));
  const area = document.createElement("textarea");
  area.value = rows.map((cells) => cells.join("\t")).join("\n");
  document.body.append(area);
  area.select();
  const done = document.execCommand("copy"); // works from a file too, where the clipboard interface may be missing
  area.remove();
  return done;
};
for (const table of document.querySelectorAll("main table:not(.plain)")) {
  const headings = table.tHead ? [...table.tHead.rows[0].cells] : [];
  if (table.tBodies.length !== 1 || table.tBodies[0].rows.length < 2 || !headings.length) continue;
  headings.forEach((heading, index) => {
    if (!heading.textContent.trim()) return;
    const button = document.createElement("button");
    button.type = "button";
    button.className = "sort";
    button.append(...heading.childNodes);
    button.title = "Sort by this column";
    button.addEventListener("click", () => sortBy(table, index, heading));
    heading.append(button);
  });
  const button = document.createElement("button");
  button.type = "button";
  button.className = "copy";
  button.textContent = "Copy table";
  button.addEventListener("click", () => {
    button.textContent = copy(table) ? "Copied" : "Select the table to copy it";
    setTimeout(() => (button.textContent = "Copy table"), 2000);
  });
  (table.closest(".scroll") || table).after(button);
}
