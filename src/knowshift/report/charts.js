// Draws the charts. Without it the page stands: pictures.
"use strict";

const root = document.documentElement;
root.classList.add("js");

const drawn = new Map();

function rowsOf(sets) {
  const unfolded = ({ columns, rows }) =>
    rows.map((row) => Object.fromEntries(columns.map((name, place) => [name, row[place]])));
  return Object.fromEntries(Object.entries(sets).map(([name, set]) => [name, set.columns ? unfolded(set) : set]));
}

// A chart of facets is told how many of them fit side by side, and how wide each may be.
function fitted(spec, width) {
  if (!spec.facet) return spec;
  const { axis, least } = spec.usermeta;
  const columns = Math.max(1, Math.min(spec.columns, Math.floor((width - axis) / least)));
  const inner = Math.floor((width - axis - 20 * (columns - 1)) / columns) - 6;
  return { ...spec, datasets: rowsOf(spec.datasets), columns, spec: { ...spec.spec, width: Math.max(inner, 80) } };
}

async function draw(place) {
  const spec = JSON.parse(document.getElementById(`spec-${place.dataset.chart}`).textContent);
  const target = place.querySelector(".drawing");
  target.hidden = false;
  try {
    drawn.get(place)?.finalize();
    const made = await vegaEmbed(target, fitted(spec, place.clientWidth), {
      mode: "vega-lite",
      renderer: "svg",
      actions: false,
    });
    made.view.logLevel(1); // a chart of which a filter leaves nothing is no cause for a warning
    drawn.set(place, made);
    place.querySelector("img")?.remove();
    place.classList.add("drawn");
    place.dispatchEvent(new CustomEvent("drawn", { bubbles: true, detail: made.view }));
    return spec;
  } catch (error) {
    target.remove();
    console.error(`chart ${place.dataset.chart}: ${error}`);
    return {};
  }
}

for (const place of document.querySelectorAll(".chart")) {
  draw(place).then((spec) => {
    if (!spec.facet) return;
    let width = place.clientWidth;
    let waiting;
    new ResizeObserver(() => {
      if (Math.abs(place.clientWidth - width) < 8) return;
      width = place.clientWidth;
      clearTimeout(waiting);
      waiting = setTimeout(() => draw(place), 200);
    }).observe(place);
  });
}

