// Two jobs side by side, in step: one clock, one slider; how alike they are in dB, and which settings differ.

import { pathOf, titleOf } from "./jobs_view.js";
import { likeness, shownOf, stopped } from "./library_parts.js";

const DRIFT = 0.04; // seconds that nobody sees
const USUAL_FPS = 7;

export function comparison(page, first, second, back) {
  const { el, replace, say, server } = page;
  const jobs = [first, second];
  const media = jobs.map((job) => shownOf(page, job, { preload: "auto" }));
  const films = media.filter((one) => one.tagName === "VIDEO");
  const element = el("div", { class: "sm-compare", tabindex: "-1" });
  const verdict = el("div", { role: "status" });
  const differing = el("div", { class: "sm-compare-settings" });
  let frame = 0;
  let found = null;
  let details = null;
  let fps = USUAL_FPS;
  let isHeld = false; // while the slider is in a hand, or somebody has paused
  const slider = el("input", { type: "range", min: "0", max: "1000", value: "0", on: { input: () => (hold(), seek((slider.value / 1000) * length())) } });
  const toggle = el("button", { class: "sm-button sm-compare-toggle", on: { click: () => (isHeld ? go() : hold()) } });

  const length = () => Math.min(...films.map((one) => one.duration || Infinity)) || 0;

  function seek(seconds) {
    const end = length();
    if (!Number.isFinite(end)) return;
    films.forEach((one) => (one.currentTime = Math.min(Math.max(0, seconds), Math.max(0, end - 0.001))));
  }

  function go() {
    isHeld = false;
    films.forEach((one) => one.play().catch(() => {}));
    follow();
    drawToggle();
  }

  function hold() {
    isHeld = true;
    films.forEach((one) => one.pause());
    cancelAnimationFrame(frame);
    drawToggle();
  }

  // The first is the clock; the other is set to it when it has drifted, and both begin anew where the shorter one ends.
  function follow() {
    cancelAnimationFrame(frame);
    const [clock, other] = films;
    if (!clock || isHeld) return;
    const end = length();
    if (other && Number.isFinite(end)) {
      if (clock.currentTime > end - 0.001) clock.currentTime = 0;
      if (Math.abs(clock.currentTime - other.currentTime) > DRIFT && !other.seeking && !clock.seeking) other.currentTime = clock.currentTime;
    }
    if (Number.isFinite(end) && end) slider.value = Math.round((clock.currentTime / end) * 1000);
    frame = requestAnimationFrame(follow);
  }

  function by(frames) {
    hold();
    const at = Math.round((films[0]?.currentTime ?? 0) * fps) + frames;
    seek((at + 0.5) / fps);
    const end = length();
    if (Number.isFinite(end) && end) slider.value = Math.round(((at + 0.5) / fps / end) * 1000);
  }

  function keys(event) {
    if (page.view !== "library" || !(element.contains(event.target) || event.target === document.body)) return;
    const acts = { Escape: back, " ": () => (isHeld ? go() : hold()), ",": () => by(-1), ".": () => by(1) };
    if (!acts[event.key] || (event.key === " " && event.target.closest("button"))) return;
    event.preventDefault();
    acts[event.key]();
  }

  async function begin() {
    document.addEventListener("keydown", keys);
    redraw();
    element.focus({ preventScroll: true });
    if (films.length) go();
    const asked = new URLSearchParams({ with: second.id });
    const [numbers, ...both] = await Promise.all([server.get(`${pathOf(first)}/comparison?${asked}`), ...jobs.map((job) => server.get(`${pathOf(job)}/details`))].map((one) => one.catch((error) => ({ error }))));
    [found, details] = [numbers, both];
    fps = Number(both[0].settings?.find((one) => one.name === "frame_rate")?.value) || USUAL_FPS;
    redraw();
  }

  function drawToggle() {
    replace(toggle, say(isHeld ? "library.play" : "library.pause"));
  }

  function redraw() {
    const step = (frames, name, sign) => el("button", { class: "sm-button", "aria-label": say(name), on: { click: () => by(frames) } }, sign);
    slider.setAttribute("aria-label", say("library.time"));
    drawToggle();
    const controls = films.length ? [el("div", { class: "sm-row" }, toggle, step(-1, "library.frame.before", "‹"), slider, step(1, "library.frame.after", "›"))] : [];
    const figures = jobs.map((job, index) => el("figure", {}, media[index], el("figcaption", {}, titleOf(page, job))));
    replace(element, el("div", { class: "sm-row" }, el("button", { class: "sm-button sm-quiet", on: { click: back } }, `← ${say("library.back")}`)),
      el("div", { class: "sm-compare-two" }, figures), ...controls, verdict, differing);
    if (films.length && !isHeld) go(); // a film that was moved on the page has stopped
    replace(verdict, !found ? el("p", { class: "sm-soft" }, say("library.measuring")) : found.error ? el("p", { class: "sm-soft" }, page.sayError(found.error))
      : likeness(page, found).map((text) => el("p", {}, text)));
    replace(differing, details && details.every((one) => one.settings) ? table() : null);
  }

  // What was set otherwise; what only one of them has too.
  function table() {
    const [one, other] = details.map((told) => new Map(told.settings.map((each) => [each.place, each])));
    const said = new Set(); // one field of the form may stand for several inputs
    const isNew = (place) => {
      const { title, name } = one.get(place) ?? other.get(place);
      const line = JSON.stringify([page.sayOf(title) || place, name, one.get(place)?.value, other.get(place)?.value]);
      return !said.has(line) && said.add(line);
    };
    const places = [...new Set([...one.keys(), ...other.keys()])].filter((place) => one.get(place)?.value !== other.get(place)?.value && isNew(place));
    if (!places.length) return el("p", { class: "sm-soft" }, say("library.settings.same"));
    const row = (place) => {
      const { title, name, node } = one.get(place) ?? other.get(place);
      return el("tr", {}, el("th", { scope: "row" }, page.sayOf(title) || node, " ", el("code", {}, name)), el("td", {}, one.get(place)?.value ?? "–"), el("td", {}, other.get(place)?.value ?? "–"));
    };
    return el("table", {}, el("caption", {}, say("library.settings.differ")), el("tbody", {}, places.map(row)));
  }

  function close() {
    hold();
    document.removeEventListener("keydown", keys);
    media.forEach(stopped);
  }

  return { element, begin, close, redraw, pause: hold };
}
