// Starts the page: header, views, panels. Everything live is drawn here from the server's API; the form is Gradio's.

import { appeared, el, replace } from "./dom.js";
import { folds, mount as mountForm, pointOut, titleOf } from "./form.js";
import { mount as mountJob, place } from "./job.js";
import { mount as mountLibrary } from "./library.js";
import { mount as mountModels } from "./models.js";
import { mount as mountOpen } from "./open.js";
import { badge, mount as mountQueue } from "./queue.js";
import { server } from "./server.js";
import { bytes, language, loadTexts, onLanguage, say, sayError, sayOf, seconds, sentence, setLanguage } from "./texts.js";

const VIEWS = ["create", "queue", "library", "models"];
const THEME = "stillmotion.theme";
const SOUND = "stillmotion.sound";
let about = {};
const viewListeners = new Set();

const page = {
  server, say, sayError, sayOf, sentence, seconds, bytes, language, onLanguage, el, replace,
  view: "create",
  user: () => about.user,
  show,
  onView(fn) {
    viewListeners.add(fn);
    return () => viewListeners.delete(fn);
  },
  openJob: (id) => show("create", { job: id }),
  remake: (job) => server.text("POST", "api/open", { job }).then((document) => (page.opened(document), page.openJob(job)), page.fail),
  opened(document) {
    replaced = sessionStorage.getItem(DRAFT);
    tell("opened", { document }); // as text: numbers stay exact
  },
  use: (template, values = {}) => tell("use", { template, values }),
  reset() {
    const before = sessionStorage.getItem(DRAFT);
    sessionStorage.removeItem(DRAFT);
    tell("reset", {});
    toast(say("form.is_reset"), wayBack(before));
  },
  put: (template, values) => tell("put", { template, values }), // what else was typed stays
  animate(job, output) {
    page.put("still_to_film", { image: place(output) });
    page.openJob(job);
  },
  recount: () => {},
  toast,
  fail(error) {
    if (error.code === "connection_lost") return;
    const number = error.code === "internal" && error.more?.id ? ` (${error.more.id})` : "";
    toast((sayError(error, titleOf) || say("server.answered", { status: error.status })) + number, { isBad: true });
  },
};

const DRAFT = "stillmotion.draft"; // what is being written, for as long as the tab is there
let replaced = null; // what was, before settings were filled in

// To the form as it was; a workflow of one's own has to be opened again.
function wayBack(draft) {
  const before = JSON.parse(draft);
  return before?.template ? { undo: () => page.use(before.template, before.values) } : {};
}

// To the form, which lives in Gradio.
function tell(name, data) {
  const detail = { name, data, draft: sessionStorage.getItem(DRAFT) ?? "", folds: folds() };
  if (name !== "language") document.querySelectorAll("#sm-toasts > .sm-bad").forEach((one) => one.remove()); // of what was tried before
  document.getElementById("sm-bridge").dispatchEvent(new CustomEvent("stillmotion", { detail, bubbles: true }));
  if (name !== "language") show("create");
}

// What a film will cost depends on those that wait, and is learnt from those that are made.
const outdated = () => document.getElementById("sm-cost")?.dispatchEvent(new CustomEvent("stillmotion-outdated", { bubbles: true }));

// From the form: each message once.
window.stillmotion = {
  language,
  folds,
  keep(template, names, values) {
    if (values.every((value) => (value ?? null) === null)) return; // of a form that has just been taken away
    sessionStorage.setItem(DRAFT, JSON.stringify({ template, values: Object.fromEntries(names.map((name, index) => [name, values[index]])) }));
  },
  heard(message) {
    if (!message) return;
    const { kind, ...data } = JSON.parse(message);
    if (kind === "submitted") {
      document.querySelectorAll("#sm-toasts > .sm-bad").forEach((one) => one.remove()); // it has been put right
      show("create", { job: data.jobs[0], isNew: true });
    }
    if (kind === "failed") {
      const places = Object.entries(data.fields).map(([name, text], index) => pointOut(name, text, { hasFocus: index === 0 }));
      if (!places.length || places.includes(false)) toast(data.text, { isBad: true });
    }
    if (kind === "lacks") pointOut(data.field, data.text);
    if (kind === "note") toast(say(data.key), wayBack(replaced));
  },
};

// Another view, another job, a film of the library or two that are compared have addresses of their own, and the browser finds back; from film
// to film it is one step.
function show(view, { job, film = "", other = "", isNew = false, count = 1, isKept = false } = {}) {
  const before = new URL(location.href);
  page.view = VIEWS.includes(view) ? view : "create";
  document.body.dataset.view = page.view;
  const address = new URL(before);
  if (job) address.searchParams.set("job", job);
  if (job === null) address.searchParams.delete("job");
  address.hash = page.view === "create" ? "" : [page.view, ...[film, other].filter(Boolean).map(encodeURIComponent)].join("/");
  const [from, to] = [before, address].map(placeIn);
  const isStep = address.search !== before.search || from.view !== to.view || !from.film !== !to.film || !from.other !== !to.other;
  history[isStep && !isKept ? "pushState" : "replaceState"](null, "", address.href.replace(/#$/, ""));
  document.querySelectorAll("#sm-nav [data-view]").forEach((link) => mark(link));
  viewListeners.forEach((fn) => fn(page.view, { job, film, other, isNew, count }));
}

// What somebody has typed may be no such code: then it is what it says.
function decoded(text) {
  try {
    return decodeURIComponent(text);
  } catch {
    return text;
  }
}

// What an address shows.
function placeIn(address) {
  const [view, film = "", other = ""] = address.hash.slice(1).split("/").map(decoded);
  return { view: VIEWS.includes(view) ? view : "create", film, other, job: address.searchParams.get("job") };
}

function showAddress(isFirst = false) {
  const { view, film, other, job } = placeIn(new URL(location.href));
  show(view, { film, other, job: isFirst ? (job ?? undefined) : job, isKept: true });
}

function mark(link) {
  if (link.dataset.view === page.view) link.setAttribute("aria-current", "page");
  else link.removeAttribute("aria-current");
}

function toast(text, { undo, undoText, isBad = false } = {}) {
  const place = document.getElementById("sm-toasts");
  if (!undo && [...place.querySelectorAll(".sm-toast > span")].some((shown) => shown.textContent === text)) return;
  const close = () => line.remove();
  const line = el("div", { class: isBad ? "sm-toast sm-bad" : "sm-toast", role: isBad ? "alert" : "status" }, el("span", {}, text));
  if (undo) line.append(el("button", { class: "sm-button sm-quiet", on: { click: () => (undo(), close()) } }, undoText ?? say("undo")));
  line.append(el("button", { class: "sm-button sm-quiet", "aria-label": say("close"), on: { click: close } }, "×"));
  place.append(line);
  while (place.children.length > 2) place.firstElementChild.remove(); // they stay where the header is
  setTimeout(close, undo || isBad ? 12000 : 5000);
}

function drawHeader(header) {
  const link = (view) => el("a", { href: `#${view}`, "data-view": view, on: { click: (event) => (event.preventDefault(), show(view)) } },
    say(`nav.${view}`), view === "queue" ? el("span", { class: "sm-badge", id: "sm-badge" }) : null);
  const other = language() === "en" ? "zh" : "en";
  const isDark = document.body.classList.contains("dark");
  const focus = [...header.querySelectorAll("a, button")].indexOf(document.activeElement);
  replace(header,
    el("strong", { class: "sm-name" }, "Stillmotion"),
    el("nav", { id: "sm-nav", "aria-label": say("nav.label") }, VIEWS.map(link)),
    el("span", { class: "sm-space" }),
    el("button", { class: "sm-button sm-quiet", lang: other === "zh" ? "zh-CN" : "en", on: { click: () => setLanguage(other) } }, other === "zh" ? "中文" : "English"),
    el("button", { class: "sm-button sm-quiet", id: "sm-theme", "aria-label": say(isDark ? "theme.light" : "theme.dark"), on: { click: () => setDark(!isDark) } }, isDark ? "☀" : "☾"),
    bell(),
    el("a", { class: "sm-button sm-quiet", href: "docs", target: "_blank" }, "API"),
    about.signs_in ? el("form", { method: "post", action: "logout", class: "sm-out", on: { submit: () => sessionStorage.removeItem(DRAFT) } }, el("button", { class: "sm-button sm-quiet", title: about.user }, say("sign.out"))) : null,
  );
  document.querySelectorAll("#sm-nav [data-view]").forEach((one) => mark(one));
  if (focus >= 0) header.querySelectorAll("a, button")[focus]?.focus(); // the keyboard stays where it was
}

function bell() {
  const isOn = localStorage.getItem(SOUND) === "on";
  const change = () => (localStorage.setItem(SOUND, isOn ? "off" : "on"), drawHeader(document.getElementById("sm-header")));
  return el("button", { class: "sm-button sm-quiet", "aria-pressed": String(isOn), "aria-label": say("sound"), title: say("sound"), on: { click: change } }, isOn ? "♪" : "♪̸");
}

function setDark(isDark) {
  document.body.classList.toggle("dark", isDark);
  localStorage.setItem(THEME, isDark ? "dark" : "light");
  drawHeader(document.getElementById("sm-header"));
}

// Another device, a lost connection, a server that was started anew: the page finds its way back by itself.
function watchConnection(line) {
  let timer;
  const look = () => server.get("api/about").then(reloadIfNew, () => {});
  const draw = (isLost) => {
    replace(line, isLost ? say("connection.lost") : "");
    line.hidden = !isLost;
    clearInterval(timer);
    if (isLost) timer = setInterval(look, 2000);
  };
  server.onConnection((isLost) => {
    draw(isLost);
    if (!isLost) look(); // whoever found it first
  });
  onLanguage(() => draw(server.lost));
  window.addEventListener("offline", () => server.get("api/about").catch(() => {}));
}

function reloadIfNew(found) {
  if (about.instance && about.instance !== found.instance) location.reload(); // Gradio's form belongs to the process that drew it
  about = found;
}

// Whether we are the same for the server the next time.
const lookForCookies = async () => (await server.get("api/about")).user === (await server.get("api/about")).user;

export const ready = Promise.all([server.get("api/about"), loadTexts()]); // the form is not drawn before: it speaks with us

async function start() {
  [about] = await ready;
  document.body.dataset.view = "create";
  const kept = localStorage.getItem(THEME);
  if (kept) document.body.classList.toggle("dark", kept === "dark");
  const [header] = await Promise.all(["#sm-header", "#sm-bridge", "#sm-models", "#sm-form", "#sm-job"].map(appeared));
  drawHeader(header);
  const drawNotices = () => replace(document.getElementById("sm-notices"), about.notices.map((key) => el("p", {}, say(`notice.${key}`))));
  drawNotices();
  onLanguage(drawNotices);
  if (about.notices.includes("space_apart")) lookForCookies().then((isKept) => isKept || ((about.notices = ["no_cookies"]), drawNotices()));
  watchConnection(document.getElementById("sm-connection"));
  mountJob(document.getElementById("sm-job"), page);
  mountForm(document.getElementById("sm-form"));
  mountOpen(document.getElementById("sm-form"), page);
  mountQueue(document.getElementById("sm-queue"), page);
  mountLibrary(document.getElementById("sm-library"), page);
  mountModels(document.getElementById("sm-models"), page);
  let open = 0;
  let isHeld = false;
  const drawBadge = () => (document.getElementById("sm-badge").textContent = open || "");
  badge(page, (count, isPaused) => {
    if (count !== open || isPaused !== isHeld) outdated();
    [open, isHeld] = [count, isPaused];
    drawBadge();
  });
  onLanguage(() => (drawHeader(header), drawBadge()));
  onLanguage((wanted) => tell("language", { language: wanted }));
  window.addEventListener("popstate", () => showAddress());
  document.addEventListener("keydown", (event) => {
    if ((event.ctrlKey || event.metaKey) && event.key === "Enter" && page.view === "create") document.querySelector("#sm-make")?.click();
    if (event.key === "Escape") document.querySelector("#sm-toasts > :last-child")?.remove();
  });
  showAddress(true);
}

start();
