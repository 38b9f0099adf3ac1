// Runs in the browser, in the results of a search panel. NAME is the panel's name, SHAREABLE whether the page's address
// follows the search.
const dialog = document.createElement("dialog");
dialog.className = "why";
dialog.id = "NAME-why-dialog";
dialog.setAttribute("aria-labelledby", "NAME-why-title");
dialog.innerHTML = `<header><h2 id="NAME-why-title">Why this product?</h2>
  <button type="button" aria-label="Close" autofocus>×</button></header><div class="content" aria-live="polite"></div>`;
// Within .contain, to which Gradio confines the page's styles.
element.closest(".contain").append(dialog);
const content = dialog.querySelector(".content");
const waiting = `<div class="waiting" role="status"><div></div><div></div>
  <span class="unseen">Looking at what this match rests on</span></div>`;
let opened = false, followed = false, opener = null, ticket = 0;

dialog.querySelector("button").addEventListener("click", () => dialog.close());
dialog.addEventListener("click", (event) => event.target === dialog && dialog.close());
dialog.addEventListener("close", () => opener?.focus());

// Another photo of the product, in its card or in the dialog.
function showPhoto(event) {
  const button = event.target.closest("[data-photo]");
  if (!button) return;
  const photos = button.closest(".card, .photos");
  photos.querySelector(".photo img").src = button.dataset.photo;
  photos.querySelectorAll("[data-photo]").forEach((other) => other.setAttribute("aria-pressed", String(other === button)));
}
element.addEventListener("click", showPhoto);
dialog.addEventListener("click", showPhoto);

element.addEventListener("click", (event) => {
  const why = event.target.closest("[data-why]");
  if (why) {
    opener = why;
    content.innerHTML = waiting;
    dialog.showModal();
    trigger("expand", { product: why.dataset.why, ticket: String(++ticket) });
    return;
  }
  const link = event.target.closest("a[data-like], a[data-as-words]");
  if (!link || event.ctrlKey || event.metaKey || event.shiftKey) return;
  event.preventDefault();
  followed = true;
  trigger("select", { product: link.dataset.like ?? "", words: link.dataset.asWords ?? "" });
});

// The answer comes into a component that isn't shown, which Gradio redraws as it likes; the dialog isn't Gradio's.
watch("why", () => {
  const answer = document.createElement("template");
  answer.innerHTML = props.why;
  // An answer that comes after another product was asked about is out of date.
  if (answer.content.firstElementChild?.dataset.ticket === String(ticket)) content.replaceChildren(answer.content);
});

watch("value", () => {
  // Gradio gives an image that is there another address, and the browser shows the old one until the new one is loaded.
  element.querySelectorAll(".photo img").forEach((photo) => photo.replaceWith(photo.cloneNode()));
  if (SHAREABLE) {
    const address = element.querySelector("[data-address]").dataset.address;
    history[opened ? "pushState" : "replaceState"](null, "", address);
    opened = true;
  }
  if (!followed) return;
  followed = false;
  element.querySelector("h2").focus({ preventScroll: true });
  element.scrollIntoView({ block: "nearest" });
});
if (SHAREABLE) window.addEventListener("popstate", () => location.reload());
