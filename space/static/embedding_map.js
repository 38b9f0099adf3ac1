// Runs in the browser, in the map: draws it when its tab is first seen; titles at the pointer; one value by the legend.
new IntersectionObserver((entries, observer) => {
  if (!entries.some((entry) => entry.isIntersecting)) return;
  observer.disconnect();
  trigger("expand");
}).observe(element);
element.addEventListener("pointerover", (event) => {
  const tip = element.querySelector(".tip"), point = event.target.closest("[data-title]");
  if (!tip) return;
  tip.hidden = !point;
  if (!point) return;
  tip.textContent = [point.dataset.title, point.dataset.value].filter(Boolean).join(" · ");
  const figure = tip.parentElement.getBoundingClientRect(), box = point.getBoundingClientRect();
  const left = box.left - figure.left, half = tip.offsetWidth / 2;
  tip.style.left = Math.max(half, Math.min(left, figure.width - half)) + "px";
  tip.style.top = box.top - figure.top + "px";
});
element.addEventListener("click", (event) => {
  const point = event.target.closest("circle[data-row]"), key = event.target.closest("[data-colour]");
  if (point) trigger("select", { row: Number(point.dataset.row) });
  if (!key) return;
  const on = key.getAttribute("aria-pressed") !== "true";
  for (const other of element.querySelectorAll("[data-colour]"))
    other.setAttribute("aria-pressed", other === key && on);
  for (const circle of element.querySelectorAll("circle[data-row]"))
    circle.classList.toggle("faint", on && !circle.classList.contains(key.dataset.colour));
});
