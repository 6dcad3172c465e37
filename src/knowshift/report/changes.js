// Filters the table of facts. Without it the page stands: a plain table.
for (const box of document.querySelectorAll(".changes")) {
  const text = box.querySelector("input");
  const chosen = [...box.querySelectorAll("select")];
  const status = box.querySelector("output");
  const rows = [...box.querySelectorAll("tbody tr")].map((row) => ({
    row,
    words: row.textContent.toLocaleLowerCase(),
  }));
  const filter = () => {
    const wanted = text.value.toLocaleLowerCase().split(/\s+/).filter(Boolean);
    let shown = 0;
    for (const { row, words } of rows) {
      const fits =
        chosen.every((select) => !select.value || row.dataset[select.name] === select.value) &&
        wanted.every((word) => words.includes(word));
      row.hidden = !fits;
      shown += fits;
    }
    status.textContent = `${shown.toLocaleString("en")} of ${rows.length.toLocaleString("en")} shown`;
  };
  for (const control of [text, ...chosen]) control.addEventListener("input", filter);
  filter();
}
