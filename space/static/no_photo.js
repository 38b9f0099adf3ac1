// Runs in the browser: where there is no photo, the words below it show.
element.addEventListener("error", (event) => event.target.remove(), true);
