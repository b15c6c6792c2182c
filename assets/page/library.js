// The library: posters by day, one film that plays at a time, as many pages as there are. See library_player.js and library_compare.js.

import { comparison } from "./library_compare.js";
import { pathOf, titleOf } from "./jobs_view.js";
import { download } from "./library_parts.js";
import { player } from "./library_player.js";
import { grid } from "./library_grid.js";
import { patience } from "./patience.js";

const PAGE = 48;
const LOOK_AGAIN = 5000;
const CHIPS = { all: {}, favourites: { favourite: true }, films: { makes: "film" }, stills: { makes: "still" } };

export function mount(element, page) {
  const { el, replace, say, server } = page;
  const wish = { chip: "all", text: "", tag: "", until: "" };
  const known = new Map(); // by id, in the order in which they are shown
  const chosen = new Set();
  let cursor = null;
  let isOver = false;
  let serial = 0; // of the wish: late answers to an earlier one are dropped
  let asking = null;
  let timer = null;
  let resting = null; // after an error
  let scrolled = 0;
  let compared = null;

  const errors = patience(page);
  const bar = el("div", { class: "sm-row sm-library-bar" });
  const news = el("button", { class: "sm-button sm-library-news", hidden: true, on: { click: () => begin(true) } });
  const list = el("div", { class: "sm-library-list" });
  const end = el("div", { class: "sm-library-end", role: "status" });
  const tray = el("div", { class: "sm-tray", role: "region", hidden: true });
  const wall = el("div", {}, bar, news, list, end);
  const stage = el("div", { hidden: true });
  element.append(wall, stage, tray);

  const posters = grid(page, list, { open, choose, favourite, remove, chosen: (job) => chosen.has(job.id), known: (id) => known.get(id) });
  const leave = () => page.show("library");
  const viewer = player(page, { close: leave, opened: (job) => page.show("library", { film: job.id }), step, favourite, remove, compare, tagged: (tag) => (leave(), wanted({ tag })) });
  new IntersectionObserver((seen) => seen.some((one) => one.isIntersecting) && more(), { rootMargin: "900px" }).observe(end);

  // What is asked for

  function query(more = {}) {
    const asked = { has_files: true, limit: PAGE, ...CHIPS[wish.chip], ...more };
    if (wish.text.trim()) asked.text = wish.text.trim();
    if (wish.tag) asked.tag = wish.tag;
    if (wish.until) asked.until = dayAfter(wish.until).toISOString();
    return `api/jobs?${new URLSearchParams(Object.entries(asked))}`;
  }

  function wanted(changes) {
    Object.assign(wish, changes);
    drawBar();
    begin();
  }

  async function begin(toTop = false) {
    serial += 1;
    asking = null;
    wake();
    [cursor, isOver, news.hidden] = [null, false, true];
    if (toTop) window.scrollTo({ top: 0 });
    await more();
  }

  function wake() {
    clearTimeout(resting);
    resting = null;
  }

  async function more() {
    if (asking || isOver || resting || page.view !== "library") return asking;
    const mine = serial;
    const isFirst = cursor === null;
    asking = server.get(query(isFirst ? {} : { cursor })).then((found) => {
      if (mine !== serial) return;
      errors.answered();
      if (isFirst) {
        known.clear();
        posters.clear();
      }
      const fresh = found.jobs.filter((job) => !known.has(job.id));
      fresh.forEach((job) => known.set(job.id, job));
      posters.append(fresh);
      [cursor, isOver] = [found.cursor, found.cursor === null];
      drawEnd();
    }, (error) => {
      if (mine === serial) resting = setTimeout(() => (wake(), more()), errors.failed(error));
    }).finally(() => {
      if (mine === serial) asking = null;
      if (mine === serial && !resting && !isOver && !server.lost && isNear(end)) more();
    });
    return asking;
  }

  // What came meanwhile: shown at once where nobody is scrolled away from it, else offered.
  async function look() {
    clearTimeout(timer);
    if (page.view !== "library") return;
    if (!document.hidden && !asking && stage.hidden) {
      const mine = serial;
      const found = await server.get(query({ limit: 20 })).catch(() => null);
      const fresh = found?.jobs.filter((job) => !known.has(job.id)) ?? [];
      if (mine === serial && fresh.length) {
        if (window.scrollY < 200 && fresh.length < 20) prepend(fresh);
        else offer(fresh.length);
      }
    }
    clearTimeout(timer);
    timer = setTimeout(look, LOOK_AGAIN);
  }

  function prepend(fresh) {
    const before = [...known];
    known.clear();
    [...fresh.map((job) => [job.id, job]), ...before].forEach(([id, job]) => known.set(id, job));
    posters.prepend(fresh);
    drawEnd();
  }

  function offer(count) {
    replace(news, say("library.news", { count }));
    news.hidden = false;
  }

  // What is done with jobs

  async function favourite(job) {
    try {
      const changed = await server.send("PATCH", pathOf(job), { is_favourite: !job.is_favourite });
      job.is_favourite = changed.is_favourite;
    } catch (error) {
      page.fail(error);
    }
    posters.update(job);
  }

  // `wasOpen`: it was the one in the player, which shows it again if it comes back.
  async function remove(jobs, wasOpen = false) {
    const gone = [];
    for (const job of jobs) {
      try {
        await server.send("DELETE", pathOf(job));
        gone.push(job);
      } catch (error) {
        page.fail(error);
        break;
      }
    }
    if (!gone.length) return;
    gone.forEach((job) => chosen.delete(job.id));
    posters.hide(gone, true);
    drawTray();
    drawEnd();
    const text = gone.length === 1 ? say("library.deleted", { title: titleOf(page, gone[0]) }) : say("library.deleted.many", { count: gone.length });
    page.toast(text, { undo: () => undo(gone, wasOpen), undoText: say("undo") });
  }

  async function undo(jobs, wasOpen) {
    try {
      for (const job of jobs) await server.send("POST", `${pathOf(job)}/undo`);
      posters.hide(jobs, false);
      if (wasOpen && viewer.job) viewer.open(jobs[0]);
    } catch (error) {
      page.fail(error);
    }
    drawEnd();
  }

  function choose(jobs, isChosen) {
    jobs.forEach((job) => (isChosen ? chosen.add(job.id) : chosen.delete(job.id)));
    jobs.forEach(posters.update);
    drawTray();
  }

  const chosenJobs = () => [...chosen].map((id) => known.get(id)).filter(Boolean);

  // The player and the comparison take the place of the posters

  function toStage(content) {
    posters.stop();
    if (stage.hidden) scrolled = window.scrollY;
    replace(stage, content);
    [wall.hidden, stage.hidden, tray.hidden] = [true, false, true];
    element.scrollIntoView({ block: "start" });
  }

  function closeStage() {
    const last = viewer.job;
    viewer.close();
    compared?.close();
    compared = null;
    replace(stage);
    [wall.hidden, stage.hidden] = [false, true];
    drawTray();
    window.scrollTo({ top: scrolled });
    if (last) posters.focus(last);
  }

  function open(job) {
    toStage(viewer.element);
    viewer.open(job);
  }

  // By its address, which may be of a film that no page has shown yet.
  const find = async (id) => known.get(id) ?? (await server.get(pathOf({ id })).catch(missed));
  const missed = (error) => (error.status === 404 ? page.toast(say("library.gone"), { isBad: true }) : page.fail(error), null);

  async function openTwo(...ids) {
    if (compared?.key === ids.join("/")) return;
    const jobs = await Promise.all(ids.map(find));
    if (page.view !== "library") return;
    if (jobs.every(Boolean)) compare(...jobs);
    else leave();
  }

  async function openFilm(id) {
    if (viewer.job?.id === id) return;
    const job = await find(id);
    if (page.view !== "library") return;
    if (!job || job.deleted) leave();
    else open(job);
    if (job?.deleted) page.toast(say("library.deleted", { title: titleOf(page, job) }), { undo: () => undo([job]).then(() => page.show("library", { film: id })), undoText: say("undo") });
  }

  // The one before or after; null at the end. Further pages are fetched as they are needed.
  async function step(job, by) {
    const shown = () => [...known.values()].filter((one) => one.id === job.id || !posters.isHidden(one));
    let place = shown().findIndex((one) => one.id === job.id) + by;
    if (place >= shown().length && !isOver) await more();
    place = shown().findIndex((one) => one.id === job.id) + by;
    return shown()[place] ?? null;
  }

  function compare(first, second) {
    viewer.close();
    compared?.close();
    compared = { key: `${first.id}/${second.id}`, ...comparison(page, first, second, leave) };
    toStage(compared.element);
    compared.begin();
    page.show("library", { film: first.id, other: second.id });
  }

  // Drawing

  function drawBar() {
    const focus = document.activeElement?.dataset?.part;
    const chips = Object.keys(CHIPS).map((name) =>
      el("button", { class: "sm-chip", "data-part": name, "aria-pressed": String(wish.chip === name), on: { click: () => wanted({ chip: name }) } }, say(`library.chip.${name}`)));
    const tag = wish.tag ? [el("button", { class: "sm-chip", "aria-pressed": "true", on: { click: () => wanted({ tag: "" }) } }, `${wish.tag} ×`)] : [];
    const day = el("input", { class: "sm-input", type: "date", "data-part": "until", "aria-label": say("library.until"), title: say("library.until"), value: wish.until,
      on: { change: (event) => wanted({ until: event.target.value }) } });
    replace(bar, search, ...chips, ...tag, el("span", { class: "sm-space" }), day);
    search.placeholder = say("library.search");
    search.setAttribute("aria-label", say("library.search"));
    if (focus) bar.querySelector(`[data-part="${focus}"]`)?.focus();
  }

  function drawTray() {
    const jobs = chosenJobs();
    tray.hidden = !jobs.length || !stage.hidden;
    tray.setAttribute("aria-label", say("library.chosen", { count: jobs.length }));
    const button = (name, fn, disabled = false) => el("button", { class: "sm-button", disabled, on: { click: fn } }, say(`library.tray.${name}`));
    replace(tray, el("strong", { role: "status" }, say("library.chosen", { count: jobs.length })), el("span", { class: "sm-space" }),
      button("zip", () => download(page, chosenJobs())), button("compare", () => compare(...chosenJobs()), jobs.length !== 2),
      button("delete", () => remove(chosenJobs())), button("none", () => choose(chosenJobs(), false)));
  }

  function drawEnd() {
    const isEmpty = ![...known.values()].some((job) => !posters.isHidden(job));
    if (!isOver) return replace(end);
    if (!isEmpty) return replace(end, el("p", { class: "sm-soft sm-library-keys" }, say("library.keys")));
    const isFiltered = wish.chip !== "all" || wish.text || wish.tag || wish.until;
    const back = isFiltered
      ? el("button", { class: "sm-button", on: { click: () => ((search.value = ""), wanted({ chip: "all", text: "", tag: "", until: "" })) } }, say("library.show_all"))
      : el("button", { class: "sm-button sm-primary", on: { click: () => page.show("create") } }, say("library.create"));
    replace(end, el("div", { class: "sm-empty" }, el("p", {}, say(isFiltered ? "library.empty.filtered" : "library.empty")), back));
  }

  function isNear(one) {
    const box = one.getBoundingClientRect();
    return page.view === "library" && !wall.hidden && box.top < window.innerHeight + 900;
  }

  let typing = null;
  const search = el("input", { class: "sm-input sm-library-search", type: "search", "data-part": "search", on: {
    input: () => {
      clearTimeout(typing);
      typing = setTimeout(() => search.value !== wish.text && wanted({ text: search.value }), 250);
    },
  } });

  page.onView((view, { film, other }) => {
    if (view !== "library") {
      posters.stop();
      viewer.pause();
      compared?.pause();
      return;
    }
    if (other) openTwo(film, other);
    else if (film) openFilm(film);
    else if (!stage.hidden) closeStage();
    if (known.size) look();
    else begin().then(look);
  });
  page.onLanguage(() => {
    drawBar();
    posters.redraw([...known.values()]);
    drawTray();
    drawEnd();
    viewer.redraw();
    compared?.redraw();
  });
  server.onConnection((isLost) => !isLost && page.view === "library" && (wake(), more()));
  document.addEventListener("visibilitychange", () => (document.hidden ? posters.stop() : look()));
  drawBar();
}

function dayAfter(text) {
  const [year, month, day] = text.split("-").map(Number);
  return new Date(year, month - 1, day + 1);
}
