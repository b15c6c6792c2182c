// Gradio's form for those without a mouse, and what a person has to do in one of its fields. Gradio draws the form anew for another
// template or language; what was unfolded stays it.

import { el } from "./dom.js";
import { onLanguage } from "./texts.js";

const OPEN = "stillmotion.folds"; // for as long as the tab is there

export function mount(form) {
  new MutationObserver(mend).observe(form, { childList: true, subtree: true, attributes: true, attributeFilter: ["class"] });
  onLanguage(() => form.querySelectorAll(".sm-lacks").forEach((line) => line.remove())); // they were said in the other one
  form.addEventListener("click", asked, true); // before Gradio folds or unfolds
  mend();

  function asked(event) {
    const button = event.target.closest(".sm-fold > button");
    if (button) keep(button.parentElement.id, !button.classList.contains("open"));
  }

  function mend() {
    form.querySelectorAll("fieldset").forEach(group);
    form.querySelectorAll(".sm-fold").forEach(fold);
    form.querySelectorAll("ul[role=listbox]:not([tabindex])").forEach((list) => (list.tabIndex = -1)); // a long one is a stop of its own
  }

  // Radio buttons of one question have one name, or arrows do not move between them.
  function group(fieldset) {
    const radios = fieldset.querySelectorAll("input[type=radio]");
    for (const one of radios) if (one.name !== fieldset.id) one.name = fieldset.id;
  }

  function fold(box) {
    const button = box.querySelector("button");
    const isOpen = String(button?.classList.contains("open"));
    if (button && button.getAttribute("aria-expanded") !== isOpen) button.setAttribute("aria-expanded", isOpen);
  }
}

// Which groups of fields are unfolded: whoever draws the form asks.
export const folds = () => sessionStorage.getItem(OPEN) ?? "[]";
const keep = (id, isOpen) => sessionStorage.setItem(OPEN, JSON.stringify([...JSON.parse(folds()).filter((one) => one !== id), ...(isOpen ? [id] : [])]));

const fieldOf = (name) => document.getElementById(`sm-field-${name}`);

// What a field is called, where there is one.
export const titleOf = (name) => fieldOf(name)?.querySelector("[data-testid=block-info]")?.textContent.trim() || name;

// Gradio unfolds a moment after it was asked to.
function whenShown(element, fn, tries = 60) {
  if (element.offsetParent !== null) fn();
  else if (tries) requestAnimationFrame(() => whenShown(element, fn, tries - 1));
}

// Says at the field what is wrong with it, until it is changed, and unfolds what it stands in. False where there is no such field.
export function pointOut(name, text, { hasFocus = true } = {}) {
  const field = fieldOf(name);
  const input = field?.querySelector("textarea, input");
  if (!input) return false;
  const fold = field.closest(".sm-fold")?.querySelector("button");
  if (fold && !fold.classList.contains("open")) fold.click();
  const id = `sm-lacks-${name}`;
  document.getElementById(id)?.remove();
  const line = el("p", { id, class: "sm-bad sm-lacks", role: "alert" }, text);
  field.append(line);
  input.setAttribute("aria-invalid", "true");
  input.setAttribute("aria-describedby", id);
  if (hasFocus) whenShown(input, () => input.focus());
  const mended = () => {
    line.remove();
    input.removeAttribute("aria-invalid");
    input.removeAttribute("aria-describedby");
  };
  ["input", "change"].forEach((event) => field.addEventListener(event, mended, { once: true }));
  return true;
}
