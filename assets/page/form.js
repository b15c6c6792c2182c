// Gradio's form for those without a mouse, and what a person has to do in one of its fields. Gradio draws the form anew for another
// template or language: folds stay open.

import { el } from "./dom.js";

const OPEN = "stillmotion.folds"; // for as long as the tab is there

export function mount(form) {
  new MutationObserver(mend).observe(form, { childList: true, subtree: true, attributes: true, attributeFilter: ["class"] });
  form.addEventListener("click", (event) => event.target.closest(".sm-fold > button") && requestAnimationFrame(remember));
  mend();

  function mend() {
    form.querySelectorAll("fieldset").forEach(group);
    form.querySelectorAll(".sm-fold").forEach(fold);
  }

  // Radio buttons of one question have one name, or arrows do not move between them.
  function group(fieldset) {
    const radios = fieldset.querySelectorAll("input[type=radio]");
    for (const one of radios) if (one.name !== fieldset.id) one.name = fieldset.id;
  }

  function fold(box) {
    const button = box.querySelector("button");
    if (!button) return;
    if (!box.dataset.known) {
      box.dataset.known = "yes";
      const isWanted = kept().includes(box.id);
      setTimeout(() => isWanted && !button.classList.contains("open") && button.click(), 50); // once Gradio hears it
    }
    const isOpen = String(button.classList.contains("open"));
    if (button.getAttribute("aria-expanded") !== isOpen) button.setAttribute("aria-expanded", isOpen);
  }

  function remember() {
    const shown = [...form.querySelectorAll(".sm-fold")];
    const others = kept().filter((id) => !shown.some((box) => box.id === id));
    const open = shown.filter((box) => box.querySelector("button.open")).map((box) => box.id);
    sessionStorage.setItem(OPEN, JSON.stringify([...others, ...open]));
  }
}

const kept = () => JSON.parse(sessionStorage.getItem(OPEN) ?? "[]");

export function pointOut(name, text) {
  const field = document.getElementById(`sm-field-${name}`);
  const input = field?.querySelector("textarea, input");
  if (!input) return;
  const id = `sm-lacks-${name}`;
  document.getElementById(id)?.remove();
  const line = el("p", { id, class: "sm-bad sm-lacks", role: "alert" }, text);
  field.append(line);
  input.setAttribute("aria-invalid", "true");
  input.setAttribute("aria-describedby", id);
  input.focus();
  input.addEventListener("input", () => {
    line.remove();
    input.removeAttribute("aria-invalid");
    input.removeAttribute("aria-describedby");
  }, { once: true });
}
