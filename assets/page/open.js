// Files into the form: a picture to move, or the settings of any film, still or workflow; chosen, or dropped anywhere on the page.

import { pictureUrl } from "./jobs_view.js";

const MOVES = /\.(png|jpe?g|webp|bmp|gif)$/i;

export function mount(form, page) {
  const { el, replace, say, server } = page;
  document.addEventListener("dragover", (event) => holdsFiles(event) && (event.preventDefault(), form.classList.add("sm-drop")));
  document.addEventListener("dragleave", (event) => event.relatedTarget || form.classList.remove("sm-drop"));
  document.addEventListener("drop", (event) => {
    form.classList.remove("sm-drop");
    if (!holdsFiles(event)) return;
    event.preventDefault();
    if (event.dataTransfer.files.length) open(event.dataTransfer.files[0]);
  });
  new MutationObserver(enhance).observe(form, { childList: true, subtree: true });
  form.addEventListener("input", showCrop);
  form.addEventListener("change", showCrop);
  enhance();

  function enhance() {
    const place = form.querySelector("#sm-open");
    if (place && place.dataset.language !== page.language()) {
      place.dataset.language = page.language();
      const reset = el("button", { class: "sm-button sm-quiet", type: "button", title: say("form.reset.help"), "data-act": "reset", on: { click: page.reset } }, say("form.reset"));
      replace(place, chooser(say("open.file"), ".json,.png,.webp,.mp4,.jpg,.jpeg", open), reset);
    }
    const field = form.querySelector("#sm-field-image");
    if (!field) form.querySelectorAll(".sm-picture").forEach((box) => box.remove()); // Gradio takes away what it has drawn, and not ours
    if (field && field.previousElementSibling?.dataset.language !== page.language()) {
      if (field.previousElementSibling?.classList.contains("sm-picture")) field.previousElementSibling.remove();
      const box = el("div", { class: "sm-picture", "data-language": page.language() }, el("div", { class: "sm-crop" }), chooser(say("open.picture"), "image/*", picture));
      field.before(box);
      setTimeout(showCrop, 300); // Gradio puts the value in a moment later
    }
    showCrop();
  }

  function chooser(text, accept, fn) {
    const input = el("input", { type: "file", accept, hidden: true, on: { change: () => input.files.length && fn(input.files[0]).then(() => (input.value = "")) } });
    return el("span", {}, input, el("button", { class: "sm-button sm-quiet", type: "button", on: { click: () => input.click() } }, text));
  }

  // A file with settings fills the form; a picture without becomes the one to move.
  async function open(file) {
    const body = new FormData();
    body.append("file", file);
    try {
      page.opened(await server.text("POST", "api/open", body));
    } catch (error) {
      if (MOVES.test(file.name) && error.status && error.status < 500 && error.code !== "payload_too_large") return picture(file);
      page.fail(error);
    }
  }

  async function picture(file) {
    const body = new FormData();
    body.append("image", file);
    try {
      const { name, subfolder } = await server.send("POST", "upload/image", body);
      page.put("still_to_film", { image: subfolder ? `${subfolder}/${name}` : name });
    } catch (error) {
      page.fail(error);
    }
  }

  // What of the picture the film will show: the middle, in the film's shape.
  function showCrop() {
    const box = form.querySelector(".sm-crop");
    if (!box) return;
    const value = (name) => form.querySelector(`#sm-field-${name} input`)?.value;
    const [width, height] = [Number(value("width")) || 1, Number(value("height")) || 1];
    const url = pictureUrl(page, value("image"));
    const key = `${url}|${width}|${height}`;
    if (box.dataset.key === key) return;
    box.dataset.key = key;
    replace(box, url ? el("img", { src: url, alt: say("open.crop"), style: `aspect-ratio:${width}/${height}` }) : null,
      url ? el("small", {}, say("open.crop")) : null);
  }
}

const holdsFiles = (event) => [...(event.dataTransfer?.types ?? [])].includes("Files");
