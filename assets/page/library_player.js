// One job, large: its film, what can be done with it, and everything that it was made with.

import { changesOf, elsewhere, extend, filmOf, isOpen, isShown, isVideo, makeChanged, motionWord, open as openForm, pathOf, stillsOf, suffix, titleOf } from "./jobs_view.js";
import { likeness, shownOf, stopped } from "./library_parts.js";

const STAGES = ["waking", "loading", "still", "motion", "decoding", "encoding"];

export function player(page, hooks) {
  const { el, replace, say, server } = page;
  const checks = new Map(); // job id -> how its verification stands
  let job = null;
  let told = null; // its details
  let form = null; // the form that it would be, where it can be opened
  let isUnfolded = localStorage.getItem("stillmotion.details") === "open";
  const media = el("div", { class: "sm-player-media" });
  const side = el("div", { class: "sm-player-side" });
  const way = el("div", { class: "sm-row sm-player-way" });
  const element = el("div", { class: "sm-player", tabindex: "-1" }, way, media, side);

  function open(shown) {
    stopped(media.firstElementChild);
    [job, told, form] = [shown, null, null];
    replace(media, shownOf(page, shown, { controls: true, autoplay: true }));
    redraw();
    element.focus({ preventScroll: true });
    hooks.opened(shown);
    server.get(`${pathOf(shown)}/details`).then((found) => {
      if (job !== shown) return;
      told = found;
      redraw();
    }, page.fail);
    openForm(page, shown).then((found) => {
      if (job !== shown) return;
      form = found;
      redraw();
    }, () => {}); // nobody misses the buttons of what cannot be opened
  }

  function close() {
    stopped(media.firstElementChild);
    [job, told, form] = [null, null, null];
  }

  async function step(by) {
    const next = await hooks.step(job, by);
    if (next) open(next);
  }

  function keys(event) {
    if (!element.isConnected || page.view !== "library" || !(element.contains(event.target) || event.target === document.body)) return;
    if (event.ctrlKey || event.metaKey || event.altKey || event.target.closest("input, textarea, video")) return;
    const acts = { ArrowLeft: () => step(-1), ArrowRight: () => step(1), Escape: hooks.close, f: favourite, Delete: remove };
    if (!acts[event.key]) return;
    event.preventDefault();
    acts[event.key]();
  }

  // What can be done

  async function favourite() {
    const shown = job;
    await hooks.favourite(shown);
    if (job === shown) redraw();
  }

  async function remove() {
    const gone = job;
    const next = (await hooks.step(gone, 1)) ?? (await hooks.step(gone, -1));
    if (next) open(next);
    else hooks.close();
    hooks.remove([gone], true);
  }

  const again = () => ask(() => server.send("POST", `${pathOf(job)}/duplicate`, { new_seeds: true }));

  // The same with something changed, where it has such a thing.
  function changes() {
    return (form && filmOf(job) ? changesOf(form) : []).map(([name, change]) => el("button", { class: "sm-button", "data-act": name, title: motionWord(page, form, change), on: { click: () => ask(() => makeChanged(page, job, form, change)) } }, say(`act.${name}`)));
  }

  async function ask(fn) {
    try {
      const made = await fn();
      page.toast(say("library.again", { title: titleOf(page, made) }), { undo: () => page.openJob(made.id), undoText: say("library.follow") });
    } catch (error) {
      page.fail(error);
    }
  }

  async function verify() {
    const shown = job;
    if (isOpen(checks.get(shown.id)?.now)) return; // it is at it
    try {
      const made = await server.send("POST", `${pathOf(shown)}/verify`);
      checks.set(shown.id, { now: made });
      redraw();
      follow(shown, made.id);
    } catch (error) {
      page.fail(error);
    }
  }

  // Until it is done again; then the two are compared. What came out the same is not kept twice.
  async function follow(shown, id) {
    const later = () => setTimeout(() => follow(shown, id), 1000);
    if (document.hidden || page.view !== "library") return later();
    try {
      const now = await server.get(`api/jobs/${encodeURIComponent(id)}`);
      checks.set(shown.id, { now });
      if (isOpen(now)) later();
      else if (now.status === "succeeded") {
        const found = await server.get(`${pathOf(shown)}/comparison?${new URLSearchParams({ with: id })}`);
        if (found.is_identical) await server.send("DELETE", pathOf(now));
        checks.set(shown.id, { now, found });
      }
    } catch (error) {
      if (error.code === "connection_lost") later();
      else checks.set(shown.id, { error });
    }
    if (job?.id === shown.id) drawCheck();
  }

  // Drawing

  const check = el("div", { class: "sm-player-check", role: "status" });
  const button = (name, fn, more = {}) => el("button", { class: "sm-button", "data-act": name, on: { click: fn }, ...more }, say(`library.act.${name}`));

  function redraw() {
    if (!job) return;
    const focus = document.activeElement?.closest(".sm-player [data-act]")?.dataset.act;
    replace(way, el("button", { class: "sm-button sm-quiet", "data-act": "close", on: { click: hooks.close } }, `← ${say("library.back")}`), el("span", { class: "sm-space" }),
      el("button", { class: "sm-button", "data-act": "before", "aria-label": say("library.before"), on: { click: () => step(-1) } }, "‹"),
      el("button", { class: "sm-button", "data-act": "after", "aria-label": say("library.after"), on: { click: () => step(1) } }, "›"));
    replace(side, el("h2", { class: "sm-title" }, titleOf(page, job)), facts(), tags(), el("div", { class: "sm-row" }, actions()), check, el("div", { class: "sm-row sm-files" }, files()), job.status === "succeeded" ? elsewhere(page, job) : null, unfolding());
    drawCheck();
    if (focus) element.querySelector(`[data-act="${focus}"]`)?.focus();
  }

  function facts() {
    const date = new Intl.DateTimeFormat(page.language(), { dateStyle: "medium", timeStyle: "short" }).format(new Date(job.created));
    return el("p", { class: "sm-soft" }, [date, job.owner, job.run_seconds ? say("made.in", { time: page.seconds(job.run_seconds) }) : ""].filter(Boolean).join(" · "));
  }

  const tags = () => (job.tags.length ? el("div", { class: "sm-row" }, job.tags.map((tag) => el("button", { class: "sm-chip", on: { click: () => hooks.tagged(tag) } }, tag))) : null);

  function actions() {
    const film = filmOf(job);
    const still = stillsOf(job)[0];
    const star = el("button", { class: "sm-button", "data-act": "favourite", "aria-pressed": String(job.is_favourite), on: { click: favourite } }, `${job.is_favourite ? "★" : "☆"} ${say("library.favourite")}`);
    return [
      star, button("remake", () => page.remake(job.id)), button("again", again), ...changes(),
      film && isVideo(film) ? button("extend", () => extend(page, job, film).catch(page.fail)) : null,
      !film && still ? button("animate", () => page.animate(job.id, still)) : null,
      job.status === "succeeded" ? button("verify", verify) : null,
      button("delete", remove),
    ].filter(Boolean);
  }

  function files() {
    const offered = job.outputs.filter((one) => one.type === "output" && (isShown(one) || suffix(one) === "json"));
    const name = (one) => (suffix(one) === "json" ? say("file.settings") : suffix(one).toUpperCase());
    const link = (href, text, size, file) => el("a", { class: "sm-button sm-quiet", href, download: file }, `${text} `, size ? el("small", {}, page.bytes(size)) : null);
    const links = offered.map((one) => link(one.url, name(one), one.bytes, one.filename));
    return offered.some((one) => suffix(one) === "json") ? links : [...links, link(server.url(`${pathOf(job)}/workflow`), say("file.settings"), 0, "workflow.json")];
  }

  function drawCheck() {
    const now = checks.get(job.id);
    element.querySelector('[data-act="verify"]')?.setAttribute("aria-disabled", String(isOpen(now?.now)));
    if (!now) return replace(check);
    if (now.error) return replace(check, el("p", { class: "sm-bad" }, page.sayError(now.error)));
    if (now.found) {
      const side = now.found.is_identical ? null : el("button", { class: "sm-button", on: { click: () => hooks.compare(job, now.now) } }, say("library.tray.compare"));
      return replace(check, likeness(page, now.found).map((text) => el("p", { class: now.found.is_identical ? "sm-good" : "" }, text)), side);
    }
    if (!isOpen(now.now)) return replace(check, el("p", { class: "sm-bad" }, say("library.check.ended", { status: say(`status.${now.now.status}`) }), " ", now.now.error ? page.sayError(now.now.error) : ""));
    replace(check, ...progress(now.now));
  }

  function progress(now) {
    const { progress: at, remaining_seconds: left } = now;
    const share = at && left !== null ? at.seconds / (at.seconds + left || 1) : 0;
    const doing = at && STAGES.includes(at.stage) ? `${say(`library.stage.${at.stage}`)}${at.total ? ` ${at.step}/${at.total}` : ""}` : say(`status.${now.status}`);
    return [
      el("p", { class: "sm-soft" }, [say("library.check"), doing, left ? say("time.left", { time: page.seconds(left) }) : ""].filter(Boolean).join(" · ")),
      el("div", { class: "sm-bar", role: "progressbar", "aria-valuemin": "0", "aria-valuemax": "100", "aria-valuenow": Math.round(share * 100), "aria-label": say("progress") }, el("i", { style: `width:${(share * 100).toFixed(1)}%` })),
    ];
  }

  // All settings, by the groups of the form; technical names stand beside the plain ones.
  function unfolding() {
    const body = told ? [...settings(), ...made()] : [];
    return el("details", { class: "sm-details", open: isUnfolded, on: {
      toggle: (event) => {
        isUnfolded = event.target.open;
        localStorage.setItem("stillmotion.details", isUnfolded ? "open" : "");
      },
    } }, el("summary", { "data-act": "details" }, say("library.details")), ...body);
  }

  function settings() {
    const groups = new Map();
    const seen = new Set(); // one field of the form may stand for several inputs
    for (const one of told.settings.filter(({ value }) => value !== "")) {
      const name = one.kind === "prompt" ? say("library.prompts") : one.kind === "seed" ? say("library.seeds") : page.sayOf(one.group) || say("library.others");
      const shown = `${name}\n${page.sayOf(one.title) || one.place}\n${one.value}`;
      if (!seen.has(shown)) groups.set(name, [...(groups.get(name) ?? []), one]);
      seen.add(shown);
    }
    const first = told.verifies ? [el("p", {}, say("library.verifies"), " ", el("button", { class: "sm-button", on: { click: compareWithFirst } }, say("library.tray.compare")))] : [];
    const term = (one) => (page.sayOf(one.title) ? [page.sayOf(one.title), " ", el("code", {}, one.name)] : [el("code", {}, `${one.node} · ${one.name}`)]);
    return [...first, ...[...groups].flatMap(([name, all]) => section(name, all.map((one) => [term(one), valueOf(one.value)])))];
  }

  const valueOf = (text) => (text === "true" ? say("library.on") : text === "false" ? say("library.off") : text);

  async function compareWithFirst() {
    const shown = job;
    const other = await server.get(`api/jobs/${encodeURIComponent(told.verifies)}`).catch(page.fail);
    if (other && job === shown) hooks.compare(other, shown);
  }

  function made() {
    const stage = ([name, time]) => `${STAGES.includes(name) ? say(`library.stage.${name}`) : name} ${time < 9.95 ? say("time.seconds", { count: Number(time.toFixed(1)) }) : page.seconds(time)}`;
    const rows = [
      [say("library.waited"), job.queued_seconds > 0.5 ? page.seconds(job.queued_seconds) : ""], [say("library.worked"), job.run_seconds ? page.seconds(job.run_seconds) : ""],
      [say("library.stages"), Object.entries(job.stage_seconds).map(stage).join(", ")], [say("library.device"), job.device],
      [say("library.memory"), job.peak_bytes ? page.bytes(job.peak_bytes) : ""],
      [say("library.cached"), job.cached.length ? say("library.cached.nodes", { count: job.cached.length }) : say("library.cached.none")],
      [say("library.number"), job.id],
    ];
    return [...section(say("library.making"), rows.filter(([, text]) => text).map(([name, text]) => [[name], text])), ...job.warnings.map((text) => el("p", { class: "sm-soft" }, page.sentence(text)))];
  }

  const section = (name, rows) => [el("h3", {}, name), el("dl", {}, rows.flatMap(([term, text]) => [el("dt", {}, ...term), el("dd", {}, text)]))];

  document.addEventListener("keydown", keys);
  return { element, open, close, redraw, pause: () => media.querySelector("video")?.pause(), get job() { return job; } };
}
