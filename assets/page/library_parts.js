// What the library's views share: films that play, files of several jobs as one ZIP, how alike two jobs are.

import { filmOf, isVideo, posterOf, stillsOf, titleOf } from "./jobs_view.js";

// Large and moving, if it moves. A <video> is stopped by `stopped` before it goes.
export function shownOf(page, job, attributes = {}) {
  const { el } = page;
  const film = filmOf(job);
  const still = stillsOf(job)[0];
  if (film && isVideo(film)) {
    const video = el("video", { src: film.url, poster: posterOf(job, 960) ?? undefined, loop: true, playsinline: "", "aria-label": titleOf(page, job), ...attributes });
    video.muted = true;
    return video;
  }
  const picture = film ?? still;
  return picture ? el("img", { src: picture.url, alt: titleOf(page, job) }) : el("div", { class: "sm-blank" });
}

export function stopped(media) {
  if (media?.tagName === "VIDEO") {
    media.pause();
    media.removeAttribute("src");
    media.load(); // lets the connection and the decoder go
  }
  media?.remove();
}

// By a form, so that there can be many and the browser saves while they come; into a frame, since Gradio takes a form for leaving the page.
// Asked first: a refusal would be lost in the frame.
export async function download(page, jobs) {
  const { el, server } = page;
  const action = server.url("api/files.zip");
  const asking = new AbortController();
  try {
    const answer = await fetch(action, { method: "POST", body: new URLSearchParams(jobs.map((job) => ["job", job.id])), signal: asking.signal });
    if (!answer.ok) return page.fail((await answer.json()).error);
    asking.abort();
  } catch {
    return page.fail({ code: "connection_lost" });
  }
  const form = el("form", { method: "post", action, target: "sm-download", hidden: true }, jobs.map((job) => el("input", { type: "hidden", name: "job", value: job.id })));
  if (!document.getElementsByName("sm-download").length) document.body.append(el("iframe", { name: "sm-download", title: "", hidden: true }));
  document.body.append(form);
  form.submit();
  form.remove();
}

// "Identical", or the dB of each still and film with what that means.
export function likeness(page, found) {
  const { say } = page;
  if (found.is_identical) return [say("library.same")];
  const meaning = (psnr) => (psnr >= 40 ? "alike" : psnr >= 30 ? "close" : "other");
  return found.pairs.map((pair) => {
    const values = { kind: say(`library.kind.${pair.kind}`) };
    if (pair.files.includes(null)) return say("library.pair.one", values);
    if (pair.is_identical) return say("library.pair.same", values);
    const [first, second] = pair.sizes.map((size) => size.join("×"));
    if (first !== second) return say("library.pair.sizes", { ...values, first, second });
    const lengths = pair.frames[0] === pair.frames[1] ? "" : ` ${say("library.pair.frames", { first: pair.frames[0], second: pair.frames[1] })}`;
    if (pair.psnr === null) return say("library.pair.same", values) + lengths;
    return say(`library.pair.${meaning(pair.psnr)}`, { ...values, psnr: pair.psnr.toFixed(1) }) + lengths;
  });
}
