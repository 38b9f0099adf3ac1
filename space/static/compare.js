// Runs in the browser, in the results of a comparison: pointing at a product marks it in every list; where there is no
// photo, the words below it show.
element.addEventListener("error", (event) => event.target.remove(), true);
element.addEventListener("pointerover", (event) => {
  const product = event.target.closest("[data-product]")?.dataset.product;
  for (const card of element.querySelectorAll("[data-product]"))
    card.classList.toggle("same", card.dataset.product === product);
});
