// Filters the table of facts. Without it the page stands: a plain table.
for (const box of document.querySelectorAll(".changes")) {
  const text = box.querySelector("input");
  const [model, change] = box.querySelectorAll("select");
  const status = box.querySelector("output");
  const rows = [...box.querySelectorAll("tbody tr")].map((row) => ({
    row,
    model: row.dataset.model,
    change: row.dataset.change,
    words: row.textContent.toLocaleLowerCase(),
  }));
  const filter = () => {
    const wanted = text.value.toLocaleLowerCase().split(/\s+/).filter(Boolean);
    let shown = 0;
    for (const { row, ...is } of rows) {
      const fits =
        (!model.value || is.model === model.value) &&
        (!change.value || is.change === change.value) &&
        wanted.every((word) => is.words.includes(word));
      row.hidden = !fits;
      shown += fits;
    }
    status.textContent = `${shown.toLocaleString("en")} of ${rows.length.toLocaleString("en")} shown`;
  };
  for (const control of [text, model, change]) control.addEventListener("input", filter);
  filter();
}
