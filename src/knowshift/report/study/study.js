// Filters figures and tables by click, and leads from a mark or a claim to its rows. Without it the page stands.
const picked = {};
const views = new Set();
const bar = document.querySelector(".bar");
const bodies = [...document.querySelectorAll(".rows table")];
const listed = new Map(bodies.map((table) => [table, [...table.tBodies[0].rows]]));
let claim = null;

const passes = (name, value) => !picked[name]?.size || value === undefined || picked[name].has(value);

function filterTable(table) {
  const rows = listed.get(table);
  let shown = 0;
  for (const row of rows) {
    const fits = claim
      ? row.dataset.claims?.split(" ").includes(claim)
      : Object.keys(picked).every((name) => passes(name, row.dataset[name]));
    row.hidden = !fits;
    shown += fits;
  }
  const across = table.dataset.across;
  for (const [place, head] of [...table.tHead.rows[0].cells].entries()) {
    if (head.dataset.value === undefined) continue;
    const gone = !claim && head.dataset.value !== "" && !passes(across, head.dataset.value);
    if (head.hidden === gone) continue;
    head.hidden = gone;
    for (const row of rows) row.cells[place].hidden = gone;
  }
  const note = table.closest(".rows").querySelector(".shown");
  const reason = claim ? "those that the claim rests on" : "by the filter";
  note.textContent = shown < rows.length ? `${shown} of ${rows.length} rows, ${reason}.` : "";
}

function tell(view) {
  for (const group of document.querySelectorAll("[data-filter]")) {
    const values = [...(picked[group.dataset.filter] ?? [])];
    const one = "one" in group.dataset;
    view.signal(`filter_${group.dataset.filter}`, values.length ? (one ? values[0] : values) : null);
  }
  return view.runAsync();
}

function apply() {
  bodies.forEach(filterTable);
  views.forEach(tell);
  const words = [...document.querySelectorAll('.bar [aria-pressed="true"]')].map((button) => button.textContent);
  if (!bar) return;
  bar.querySelector("output").textContent = words.length ? `by ${words.join(", ")}` : "";
  bar.querySelector(".clear").hidden = !words.length && !claim;
}

function toRow(row, scroll = true) {
  for (const old of document.querySelectorAll("tr.picked")) old.classList.remove("picked");
  row.closest("details").open = true;
  row.classList.add("picked");
  if (scroll) row.scrollIntoView({ block: "center", behavior: "instant" });
}

bar?.addEventListener("click", (event) => {
  const button = event.target.closest("button");
  if (!button) return;
  claim = null;
  if (button.classList.contains("clear")) {
    for (const name of Object.keys(picked)) delete picked[name];
  } else {
    const group = button.closest("[data-filter]");
    const own = (picked[group.dataset.filter] ??= new Set());
    const had = own.delete(button.dataset.value);
    if ("one" in group.dataset) own.clear();
    if (!had) own.add(button.dataset.value);
  }
  for (const other of bar.querySelectorAll("button[aria-pressed]")) {
    const own = picked[other.closest("[data-filter]").dataset.filter];
    other.setAttribute("aria-pressed", String(Boolean(own?.has(other.dataset.value))));
  }
  apply();
});
if (bar && matchMedia("(max-width: 40rem)").matches) bar.open = false;

document.addEventListener("drawn", (event) => {
  const view = event.detail;
  views.forEach((old) => old.container()?.isConnected || views.delete(old));
  views.add(view);
  tell(view);
  view.addEventListener("click", (_, item) => {
    const row = document.getElementById(item?.datum?.row ?? "");
    if (!row) return;
    if (row.hidden) {
      claim = null;
      apply();
    }
    toRow(row);
  });
});

for (const link of document.querySelectorAll("[data-claim]")) {
  link.addEventListener("click", (event) => {
    const details = document.querySelector(link.getAttribute("href"));
    event.preventDefault();
    claim = link.dataset.claim;
    apply();
    details.open = true;
    details.scrollIntoView({ block: "start", behavior: "instant" });
  });
}
