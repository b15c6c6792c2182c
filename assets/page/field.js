// What a person has to do in one field of the form stands below it, until something is done there.

import { el } from "./dom.js";

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
