// Many prompts at once: lines or a table that are typed, or a file of either. All of them are asked for, or if one is wrong none.

import { titleOf } from "./form.js";

const DRAFT = "stillmotion.draft"; // what the form holds, for as long as the tab is there
const MOST = 1000;

export function manyPrompts(place, page, act) {
  const { el, replace, say, server } = page;
  let table = null; // a CSV that was chosen: { name, text }
  let typed = "";
  let seeds = 1;
  let isBusy = false;
  let isOpen = false;
  let templates = null; // titles by id, once they are asked for
  let learning = null;
  let refresh; // what stands there, after a change
  draw();
  page.onLanguage(draw);
  page.onView((view) => view === "queue" && (replace(place.querySelector(".sm-many-wrong")), refresh()));

  function draw() {
    const text = el("textarea", { class: "sm-input", id: "sm-many-text", rows: "6", spellcheck: "true", "aria-describedby": "sm-many-help", on: { input: () => ((typed = text.value), replace(wrong), refresh()) } });
    text.value = typed;
    const file = el("input", { type: "file", accept: ".csv,.tsv,.txt,text/csv,text/plain", hidden: true, on: { change: () => read(file.files[0]).then(() => (file.value = "")) } });
    const each = el("input", { class: "sm-input sm-many-each", id: "sm-many-each", type: "number", min: "1", max: "100", inputmode: "numeric", on: { input: () => ((seeds = Math.max(1, Math.min(100, Math.round(Number(each.value)) || 1))), refresh()) } });
    each.value = seeds;
    const chosen = el("p", { class: "sm-row" });
    const asTable = el("p", { class: "sm-soft sm-many-table", role: "status" });
    const wrong = el("ul", { class: "sm-bad sm-many-wrong", role: "alert" });
    const shared = el("p", { class: "sm-soft" });
    const make = el("button", { class: "sm-button sm-primary", type: "button", on: { click: () => submit(wrong) } });
    const details = el("details", { class: "sm-card sm-many", open: isOpen, on: { toggle: () => ((isOpen = details.open), refresh()) } },
      el("summary", {}, say("many.title")),
      el("p", { class: "sm-soft", id: "sm-many-help" }, say("many.help")),
      el("label", { class: "sm-spoken", for: "sm-many-text" }, say("many.lines")), text, asTable, chosen,
      el("div", { class: "sm-row" }, file, el("button", { class: "sm-button sm-quiet", type: "button", on: { click: () => file.click() } }, say("many.file")),
        el("label", { class: "sm-row", for: "sm-many-each" }, say("many.each"), each), el("span", { class: "sm-space" }), make),
      shared, wrong);
    details.addEventListener("dragover", (event) => event.dataTransfer?.types.includes("Files") && (event.preventDefault(), event.stopPropagation()));
    details.addEventListener("drop", (event) => {
      if (!event.dataTransfer?.files.length) return;
      event.preventDefault();
      event.stopPropagation();
      read(event.dataTransfer.files[0]);
    });
    refresh = () => {
      const count = films() * seeds;
      text.hidden = table !== null;
      replace(chosen, table ? [el("strong", {}, table.name), el("span", { class: "sm-soft" }, say("many.rows", { count: films() })), el("button", { class: "sm-button sm-quiet", type: "button", on: { click: () => ((table = null), replace(wrong), refresh()) } }, say("many.drop"))] : []);
      chosen.hidden = !table;
      asTable.hidden = table !== null || !isTable(typed);
      asTable.textContent = asTable.hidden ? "" : say("many.table", { count: films() });
      make.textContent = say("many.make", { count });
      make.disabled = isBusy || !count || count > MOST;
      shared.textContent = count > MOST ? say("many.most", { count: MOST }) : how();
    };
    replace(place, details);
    refresh();
  }

  async function read(file) {
    if (!file) return;
    let text;
    try {
      text = new TextDecoder("utf-8", { fatal: true }).decode(await file.arrayBuffer());
    } catch {
      return page.toast(say("many.encoding", { name: file.name }), { isBad: true });
    }
    isOpen = true;
    if (/\.(csv|tsv)$/i.test(file.name)) table = { name: file.name, text };
    else (typed = text), (table = null);
    draw();
  }

  function films() {
    const text = table?.text ?? (isTable(typed) ? typed : null);
    return text !== null ? Math.max(0, records(text) - 1) : typed.split(/\r\n|\r|\n/).filter((one) => one.trim()).length;
  }

  // By which template, and with whose settings.
  function how() {
    const { template, values } = sharedValues();
    if (!templates && isOpen) learn();
    if (!templates) return "";
    return say(Object.keys(values).length ? "many.shared" : "many.defaults", { template: page.sayOf(templates.get(template)) || template });
  }

  function learn() {
    learning ??= server.get("api/templates").then((found) => ((templates = new Map(found.templates.map((one) => [one.id, one.title]))), refresh()), () => (learning = null));
  }

  // Those of the form, if it is a template's and has a prompt: whoever has set it up there need not do it again.
  function sharedValues() {
    try {
      const { template, values } = JSON.parse(sessionStorage.getItem(DRAFT));
      if (!template || !("prompt" in values)) return { template: "text_to_film", values: {} };
      const given = Object.entries(values).filter(([name, value]) => name !== "prompt" && value !== null && value !== "");
      return { template, values: Object.fromEntries(given) };
    } catch {
      return { template: "text_to_film", values: {} };
    }
  }

  async function submit(wrong) {
    isBusy = true;
    refresh();
    replace(wrong);
    try {
      const body = { ...sharedValues(), seeds, ...(table ? { csv: table.text } : isTable(typed) ? { csv: typed.trimStart() } : { lines: typed }) };
      const { jobs } = await server.send("POST", "api/films/batch", body);
      typed = "";
      table = null;
      seeds = 1;
      draw();
      page.toast(say("many.done", { count: jobs.length }));
      act.poll();
    } catch (error) {
      const rows = Object.entries(error.more?.rows ?? {});
      if (error.code === "connection_lost") return;
      if (!rows.length) return replace(wrong, el("li", {}, page.sayError(error, titleOf)), error.more?.fields ? el("li", {}, say("many.mend")) : null);
      replace(wrong, rows.map(([where, text]) => el("li", {}, `${where.replace(/^Line (\d+)$/, (_, number) => say("many.line", { number }))}: ${page.sentence(text)}`)), rows.length && error.hint ? el("li", {}, page.sentence(error.hint)) : null);
    } finally {
      isBusy = false;
      refresh();
    }
  }
}

// Whether the first line names fields, as no prompt does: single words, one of them `prompt`, and something below.
function isTable(text) {
  const [first, ...others] = text.trimStart().split(/\r\n|\r|\n/);
  const names = first.split(/[,;\t]/).map((one) => one.trim().replace(/^"(.*)"$/, "$1"));
  return names.every((one) => /^\w+$/.test(one)) && names.some((one) => one.toLowerCase() === "prompt") && others.some((one) => one.trim());
}

// Lines of a table that hold something; a line break between quotes is none.
function records(text) {
  let isQuoted = false;
  let isFilled = false;
  let found = 0;
  for (const sign of text) {
    if (sign === '"') isQuoted = !isQuoted;
    if (!isQuoted && (sign === "\n" || sign === "\r")) {
      found += isFilled;
      isFilled = false;
    } else if (!/[\s,;\ufeff]/.test(sign)) isFilled = true;
  }
  return found + isFilled;
}
