"use strict";
// The service's address and its key for searches, from the page's own address. Never put the key for changes into a page.
const asked = new URLSearchParams(location.search);
const SERVICE = asked.get("service") ?? "http://127.0.0.1:8000";
const KEY = asked.get("key");
const SHOWN_FACETS = 5;
const SHOWN_VALUES = 8;

const element = (id) => document.getElementById(id);
const state = { photo: null, like: null, chosen: {}, facets: [], turn: 0 };

async function call(path, body) {
  const headers = { "Content-Type": "application/json", ...(KEY && { "X-API-Key": KEY }) };
  const options = body ? { method: "POST", headers, body: JSON.stringify(body) } : { headers };
  const answer = await fetch(SERVICE + path, options);
  const content = await answer.json();
  if (!answer.ok) throw new Error(`${content.error.problem} ${content.error.remedy}`);
  return content;
}

const filters = () => Object.fromEntries(Object.entries(state.chosen).filter(([, values]) => values.length));

// What a product is called comes from the shop's data: it is set as text, never as HTML.
function make(tag, properties = {}, ...children) {
  const made = Object.assign(document.createElement(tag), properties);
  made.append(...children);
  return made;
}

async function search() {
  const turn = ++state.turn; // an answer that comes late must not replace a newer one
  const text = element("text").value.trim();
  if (!text && !state.photo && state.like === null) return;
  element("status").className = "";
  element("status").textContent = "Searching…";
  try {
    const query = { top_k: 24, filters: filters() };
    const found = state.like !== null
      ? await call("/v1/similar", { id: state.like, ...query })
      : await call("/v1/search", { ...query, ...(text && { text }), ...(state.photo && { image: state.photo }) });
    const counts = state.facets.length ? await call("/v1/facets", { attributes: state.facets, filters: filters() }) : null;
    if (turn !== state.turn) return;
    showHits(found);
    if (counts) showFacets(counts.facets);
  } catch (error) {
    if (turn !== state.turn) return;
    element("hits").replaceChildren();
    showError(error);
  }
}

function showError(error) {
  element("status").className = "error";
  // `fetch` raises a TypeError where there is no answer at all.
  element("status").textContent = error instanceof TypeError ? `No answer from the service at ${SERVICE}.` : error.message;
}

// An <img> can't send a key, so with one its photo is fetched here.
async function showPhoto(image, id) {
  const address = `${SERVICE}/v1/products/${encodeURIComponent(id)}/photo`;
  image.onerror = () => image.remove();
  if (!KEY) { image.src = address; return; }
  const answer = await fetch(address, { headers: { "X-API-Key": KEY } });
  if (answer.ok) image.src = URL.createObjectURL(await answer.blob()); else image.remove();
}

function showHits({ hits, seconds }) {
  element("status").textContent = hits.length ? `${hits.length} products, in ${Math.round(seconds * 1000)} ms` : "Nothing matches these filters.";
  element("hits").replaceChildren(...hits.map((hit) => {
    const photo = make("img", { loading: "lazy", alt: "" });
    showPhoto(photo, hit.id);
    const about = Object.entries(hit.attributes).slice(0, 3).map(([, value]) => [value].flat().join(", ")).join(" · ");
    const more = make("button", { type: "button", textContent: "More like this" });
    more.onclick = () => { state.like = hit.id; search(); };
    return make("li", {}, photo, make("h2", { textContent: hit.title ?? "Untitled" }), make("p", { textContent: about }), more);
  }));
}

function showFacets(facets) {
  const useful = Object.entries(facets).filter(([name, values]) => values.length > 1 || state.chosen[name]?.length);
  element("facets").replaceChildren(...useful.map(([name, values]) => {
    const chosen = state.chosen[name] ??= [];
    const shown = values.slice(0, SHOWN_VALUES);
    return make("fieldset", {}, make("legend", { textContent: name }), ...shown.map(({ value, count }) => {
      const box = make("input", { type: "checkbox", checked: chosen.includes(value) });
      box.onchange = () => {
        state.chosen[name] = box.checked ? [...chosen, value] : chosen.filter((each) => each !== value);
        search();
      };
      return make("label", {}, box, String(value), make("output", { textContent: count }));
    }));
  }));
}

function setPhoto(file) {
  state.photo = null;
  element("asked").hidden = !file;
  if (!file) return search();
  const reader = new FileReader();
  reader.onload = () => {
    state.photo = reader.result.split(",")[1];
    state.like = null;
    element("thumb").src = reader.result;
    search();
  };
  reader.readAsDataURL(file);
}

// On a phone the products come first.
element("filters").open = !matchMedia("(max-width: 40rem)").matches;
element("search").onsubmit = (event) => { event.preventDefault(); state.like = null; search(); };
element("photo").onchange = (event) => setPhoto(event.target.files[0]);
element("forget").onclick = () => { element("photo").value = ""; setPhoto(null); };

call("/v1/catalog").then(({ products, attributes }) => {
  state.facets = Object.keys(attributes).filter((name) => attributes[name] !== "number").slice(0, SHOWN_FACETS);
  element("status").textContent = `${products.toLocaleString()} products`;
  element("text").value = asked.get("q") ?? "";
  search();
}).catch(showError);
