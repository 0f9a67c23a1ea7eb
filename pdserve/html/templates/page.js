"use strict";
const figures = JSON.parse(document.getElementById("figures").textContent);

// Colours and fonts of figures are named after the style's variables: see what they are now.
function resolved(value, style) {
  if (typeof value === "string") {
    return value.startsWith("var(") ? style.getPropertyValue(value.slice(4, -1)).trim() : value;
  }
  if (Array.isArray(value)) {
    // Long columns of numbers are left alone.
    const numbers = value.length > 2 && typeof value[0] === "number";
    return numbers ? value : value.map((each) => resolved(each, style));
  }
  if (value && typeof value === "object") {
    return Object.fromEntries(Object.entries(value).map(([key, each]) => [key, resolved(each, style)]));
  }
  return value;
}

function draw() {
  const style = getComputedStyle(document.documentElement);
  for (const [name, figure] of Object.entries(figures)) {
    const { data, layout } = resolved(figure, style);
    Plotly.react(`plot-${name}`, data, layout, { displayModeBar: false, responsive: true });
  }
}

draw();
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", draw);
// Paper is light.
addEventListener("beforeprint", () => { document.documentElement.dataset.theme = "light"; draw(); });
addEventListener("afterprint", () => { delete document.documentElement.dataset.theme; draw(); });
