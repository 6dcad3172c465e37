// Draws the charts. Without it the page stands: pictures.
"use strict";

const root = document.documentElement;
root.classList.add("js");

for (const place of document.querySelectorAll(".chart")) {
  const spec = JSON.parse(document.getElementById(`spec-${place.dataset.chart}`).textContent);
  const target = place.querySelector(".drawing");
  target.hidden = false;
  vegaEmbed(target, spec, { mode: "vega-lite", renderer: "svg", actions: false })
    .then(() => {
      place.querySelector("img").remove();
      place.classList.add("drawn");
    })
    .catch((error) => {
      target.remove();
      console.error(`chart ${place.dataset.chart}: ${error}`);
    });
}

